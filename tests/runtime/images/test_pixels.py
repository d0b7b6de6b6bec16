"""The CLIP-style inputs against transformers' slow processors and the reference's golden arrays."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mova_runtime.bundle.manifest import PatchInput, PixelInput, Preprocessing
from mova_runtime.errors import ImageError
from mova_runtime.images import Preprocessor, preprocessor
from mova_runtime.images.pixels import pixels

REFERENCE = Path(__file__).parents[2] / "reference"
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOLERANCE = 1e-5
SIZES = [(1, 1), (640, 400), (400, 640), (101, 100), (50, 333), (224, 224), (3, 170), (1500, 40)]


def colour(mean):
    return tuple(int(255 * value) for value in mean)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def squared(image, background):
    """The naive square of the training code."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), background)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def processors(spec):
    from transformers import BitImageProcessor, CLIPImageProcessor

    for processor in (CLIPImageProcessor, BitImageProcessor):
        yield processor(
            size={"shortest_edge": spec.resize},
            crop_size={"height": spec.side, "width": spec.side},
            resample=Image.Resampling[spec.resample.upper()],
            image_mean=list(spec.mean),
            image_std=list(spec.std),
        )


@pytest.mark.parametrize("aspect", ["pad", "crop"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("resize", "side", "resample"),
    [(112, 112, "bicubic"), (256, 224, "bilinear"), (64, 81, "lanczos"), (63, 32, "nearest")],
)
def test_equals_transformers(aspect, size, resize, side, resample):
    image = noise(*size)
    for mean, std in (CLIP, IMAGENET):
        spec = PixelInput(resize, side, resample, mean, std)
        ours = pixels(image, spec, aspect, colour(mean))
        assert ours.dtype == np.float32
        source = squared(image, colour(mean)) if aspect == "pad" else image
        for processor in processors(spec):
            # The format is said outright: transformers can't tell the channels of an image of one pixel.
            theirs = processor(source, input_data_format="channels_last", return_tensors="np")
            np.testing.assert_allclose(ours, theirs["pixel_values"][0], rtol=0, atol=TOLERANCE)


def test_a_sliver_is_refused_only_where_it_would_be_cropped():
    spec = PixelInput(1024, 1024, "bicubic", *CLIP)
    image = Image.new("RGB", (20000, 1))
    with pytest.raises(ImageError, match="image of 20000 x 1 pixels: too narrow to crop"):
        pixels(image, spec, "crop", (0, 0, 0))
    assert pixels(image, spec, "pad", (0, 0, 0)).shape == (3, 1024, 1024)


@pytest.fixture(scope="module")
def tiny():
    """The preprocessing of the tiny checkpoints."""
    clip = colour(CLIP[0])
    return Preprocessing(
        aspect="pad",
        clip=PixelInput(112, 112, "bicubic", *CLIP),
        dinov2=PixelInput(112, 112, "bicubic", *IMAGENET),
        high=PixelInput(256, 256, "bicubic", *CLIP),
        flattened=PatchInput(144, 16),
        pad_colour={"clip": clip, "dinov2": colour(IMAGENET[0]), "high": clip, "flattened": clip},
    )


@pytest.mark.parametrize("seed", [0, 2, 6, 9])
def test_equals_the_golden_arrays(tiny, seed):
    with np.load(REFERENCE / "golden" / f"seed{seed}.npz") as golden:
        for case, name in enumerate(("chart", "photo", "document")):
            inputs = Preprocessor(tiny)(REFERENCE / "images" / f"{name}.png")
            assert list(inputs) == ["clip", "dinov2", "high", "flattened"]
            for key, ours in inputs.items():
                theirs = golden[f"{case}.{key}" if key == "flattened" else f"{case}.pixel_{key}"]
                assert ours.dtype == theirs.dtype == np.float32
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE, err_msg=f"{name} {key}")


def test_inputs_are_made_once_and_only_when_asked_for(tiny, monkeypatch):
    made = []

    def counted(*args):
        made.append(args[1])
        return pixels(*args)

    monkeypatch.setattr(preprocessor, "pixels", counted)
    monkeypatch.setattr(preprocessor, "flattened", lambda *args: pytest.fail("nobody asked for it"))
    inputs = Preprocessor(tiny).decode(noise(30, 20))
    assert made == []
    assert inputs["high"] is inputs["high"]
    assert made == [tiny.high]
    inputs["clip"]
    assert made == [tiny.high, tiny.clip]
