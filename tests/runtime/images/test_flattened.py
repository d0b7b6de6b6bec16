"""Pix2Struct's patches against transformers' slow processor, which resizes in torch."""

import numpy as np
import pytest
from PIL import Image

from mova_runtime.bundle.manifest import PatchInput
from mova_runtime.images import antialias
from mova_runtime.images.flattened import flattened, grid
from mova_runtime.images.resize import Axis

COLOUR = (122, 116, 104)
TOLERANCE = 1e-5
SIZES = [(1, 1), (2, 1), (640, 400), (401, 640), (16, 16), (50, 333), (3, 400), (1500, 40), (2000, 1501)]


def noise(width, height):
    return Image.fromarray(np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8))


def squared(image):
    """The naive square of the training code."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), COLOUR)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def theirs(image, spec):
    from transformers import Pix2StructImageProcessor

    processor = Pix2StructImageProcessor(
        patch_size={"height": spec.patch, "width": spec.patch}, max_patches=spec.max_patches
    )
    # The format is said outright: transformers can't tell the channels of an image of one pixel.
    return processor(image, input_data_format="channels_last", return_tensors="np")["flattened_patches"][0]


@pytest.mark.parametrize("spec", [PatchInput(144, 16), PatchInput(100, 14), PatchInput(7, 5)], ids=str)
@pytest.mark.parametrize("aspect", ["pad", "crop"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_transformers(size, aspect, spec):
    image = noise(*size)
    ours = flattened(image, spec, aspect, COLOUR)
    assert ours.dtype == np.float32
    expected = theirs(squared(image) if aspect == "pad" else image, spec)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


def test_the_real_number_of_patches():
    spec = PatchInput(2048, 16)
    image = noise(1280, 960)
    for aspect, source in (("pad", squared(image)), ("crop", image)):
        ours = flattened(image, spec, aspect, COLOUR)
        np.testing.assert_allclose(ours, theirs(source, spec), rtol=0, atol=TOLERANCE)


def test_hard_edges():
    """Black on white is where taps placed a little off show most."""
    image = Image.fromarray((np.indices((700, 900)).sum(0) // 7 % 2 * 255).astype(np.uint8)).convert("RGB")
    for aspect, source in (("pad", squared(image)), ("crop", image)):
        ours = flattened(image, PatchInput(144, 16), aspect, COLOUR)
        np.testing.assert_allclose(ours, theirs(source, PatchInput(144, 16)), rtol=0, atol=TOLERANCE)


def test_one_colour_is_zero_not_noise():
    """transformers divides its float32 rounding by 1/sqrt(values) here, so it is no reference."""
    patches = flattened(Image.new("RGB", (90, 60), (77, 77, 77)), PatchInput(20, 16), "pad", (77, 77, 77))
    assert not patches[:, 2:].any()


def test_rows_and_columns_and_unused_patches():
    patches = flattened(noise(60, 40), PatchInput(10, 4), "crop", COLOUR)
    rows, columns = grid(40, 60, PatchInput(10, 4))
    assert (rows, columns) == (2, 3)
    assert patches.shape == (10, 2 + 4 * 4 * 3)
    assert patches[:6, :2].tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]
    assert not patches[6:].any()


def test_grid_never_exceeds_max_patches():
    for height in range(1, 700, 13):
        for width in range(1, 700, 17):
            rows, columns = grid(height, width, PatchInput(144, 16))
            assert 1 <= rows * columns <= 144


def test_strips_do_not_matter(monkeypatch):
    plane = np.random.default_rng(3).integers(0, 256, (61, 90), np.uint8)
    levels = np.linspace(-2, 2, 256, dtype=np.float32)
    across, down = Axis(90, 90, 48, 48), Axis(61, 90, 48, 48)
    whole = antialias.resample(plane, levels, across, down, 7)
    monkeypatch.setattr(antialias, "_STRIP", 1000)
    np.testing.assert_allclose(antialias.resample(plane, levels, across, down, 7), whole, rtol=0, atol=1e-6)
