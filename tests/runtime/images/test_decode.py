"""Decoding against Pillow's own conversions, and every way a source can fail to be an image."""

import io
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mova_runtime.errors import ImageError
from mova_runtime.images import decode

IMAGES = Path(__file__).parents[2] / "reference" / "images"


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image, fmt="PNG", **options):
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def assert_same(image, expected):
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("name", ["chart.png", "photo.png", "document.png"])
def test_every_kind_of_source_gives_what_training_read(name):
    path = IMAGES / name
    expected = Image.open(path).convert("RGB")
    for source in (path, str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path))):
        assert_same(decode(source), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_every_8_bit_mode_converts_as_in_training(mode):
    through = {"YCbCr": "RGB", "HSV": "RGB", "CMYK": "RGB", "P": "RGB", "PA": "LA"}.get(mode, "RGBA")
    image = Image.fromarray(noise(9, 14, 4)).convert(through).convert(mode)
    assert image.mode == mode
    assert_same(decode(image), image.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays(channels):
    array = noise(5, 7, channels)
    expected = np.stack([array] * 3, -1) if channels == 1 else array[:, :, :3]
    assert_same(decode(array), expected)
    assert_same(decode(array[:, ::-1]), expected[:, ::-1])
    if channels == 1:
        assert_same(decode(array[:, :, None]), expected)


def test_result_is_a_copy():
    array = noise(4, 4)
    before = array.copy()
    image = decode(array)
    array[:] = 0
    assert_same(image, before)


def test_alpha_is_dropped_not_blended():
    array = noise(6, 6, 4)
    array[:, :, 3] = 0
    assert_same(decode(encoded(Image.fromarray(array))), array[:, :, :3])


def test_palette_with_transparency_bytes_does_not_warn():
    image = Image.fromarray(noise(8, 8)).quantize(16)
    data = encoded(image, transparency=bytes(range(16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(decode(data), image.convert("RGB"))


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(fmt):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert_same(decode(data), frames[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(orientation, fmt):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(noise(16, 24)), fmt, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert expected.size == ((24, 16) if orientation < 5 else (16, 24))
    assert_same(decode(data), expected)


def test_unknown_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    array = noise(16, 24)
    assert_same(decode(encoded(Image.fromarray(array), exif=exif)), array)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_16_bit_greyscale_is_scaled(fmt):
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    values[0, :4] = (0, 65535, 128, 129)
    expected = np.rint(values / 257).astype(np.uint8)
    assert expected[0, :4].tolist() == [0, 255, 0, 1]
    image = decode(encoded(Image.fromarray(values), fmt))
    assert_same(image, np.stack([expected] * 3, -1))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
def test_16_bit_modes_are_scaled(mode):
    values = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    dtype = {"I;16B": ">u2", "I": np.int32}.get(mode, "<u2")
    image = Image.frombytes(mode, (8, 8), values.astype(dtype).tobytes())
    assert_same(decode(image), np.stack([np.rint(values / 257).astype(np.uint8)] * 3, -1))


def test_one_pixel():
    assert_same(decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3)))), [[[1, 2, 3]]])


PNG = encoded(Image.fromarray(noise(40, 40)))
JPEG = encoded(Image.fromarray(noise(40, 40)), "JPEG")

BAD = {
    "truncated PNG": (PNG[: len(PNG) // 2], "image bytes: can't be decoded (image file is truncated"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "image bytes: can't be decoded (image file is truncated"),
    "header only": (PNG[:10], "image bytes: "),
    "text": (b"not an image\n" * 9, "image bytes: not an image, or of a format Pillow can't read"),
    "empty": (b"", "image bytes: empty, not an image"),
    "None": (None, "image of type NoneType: give a path, bytes, PIL image or uint8 array"),
    "number": (3, "image of type int: give a path"),
    "list": ([[0, 0, 0]], "image of type list: give a path"),
    "float array": (np.zeros((4, 4, 3), np.float32), "image array: dtype float32; give uint8 in 0..255"),
    "bool array": (np.zeros((4, 4), bool), "image array: dtype bool; give uint8"),
    "channels first": (np.zeros((3, 9, 8), np.uint8), "image array: shape [3, 9, 8]; give [height, width"),
    "two channels": (np.zeros((4, 4, 2), np.uint8), "image array: shape [4, 4, 2]; give"),
    "batch": (np.zeros((1, 4, 4, 3), np.uint8), "image array: shape [1, 4, 4, 3]; give"),
    "no rows": (np.zeros((0, 4, 3), np.uint8), "image array: shape [0, 4, 3]; give"),
    "no channels": (np.zeros((4, 4, 0), np.uint8), "image array: shape [4, 4, 0]; give"),
    "scalar": (np.uint8(3) * np.ones((), np.uint8), "image of type uint8: give a path"),
    "no width": (Image.new("RGB", (0, 5)), "PIL image: 0 x 5 pixels"),
    "32-bit": (Image.new("I", (2, 2), 70000), "PIL image: 32-bit pixels from 70000 to 70000; scale them"),
    "negative": (Image.new("I", (2, 2), -1), "PIL image: 32-bit pixels from -1 to -1; scale them"),
    "float": (Image.new("F", (2, 2), 0.5), "PIL image: floating-point pixels of unknown range; scale them"),
    "premultiplied": (Image.new("La", (2, 2)), "PIL image: can't be decoded (conversion from La"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_is_an_image_error_of_one_line(case):
    source, message = BAD[case]
    with pytest.raises(ImageError) as caught:
        decode(source)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_paths_that_hold_no_image_are_named(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "half.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    (tmp_path / "note\n.txt").write_text("hello")
    for name, message in {
        "gone.png": "gone.png: can't be opened (No such file or directory)",
        ".": "can't be opened (Is a directory)",
        "empty.png": "empty.png: empty, not an image",
        "half.jpg": "half.jpg: can't be decoded (image file is truncated",
        "note\n.txt": "note\\n.txt': not an image, or of a format Pillow can't read",
        "nul\0.png": "nul\\x00.png': can't be opened (embedded null byte)",
    }.items():
        with pytest.raises(ImageError) as caught:
            decode(str(tmp_path / name))
        assert message in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_no_path():
    with pytest.raises(ImageError, match=r"^'': can't be opened"):
        decode("")


def test_every_prefix_of_a_file_is_refused():
    for data in (PNG, JPEG, encoded(Image.fromarray(noise(40, 40)).quantize(16), "GIF")):
        for length in range(0, len(data) - 20, 97):
            with pytest.raises(ImageError):
                decode(data[:length])


def test_damaged_files_are_read_or_refused_never_anything_else():
    random = np.random.default_rng(0)
    for fmt in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "ICO", "PPM", "TGA"):
        data = np.frombuffer(encoded(Image.fromarray(noise(24, 24)), fmt), np.uint8)
        for _ in range(40):
            damaged = data.copy()
            damaged[random.integers(0, min(len(data), 200), 6)] = random.integers(0, 256, 6)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with suppress(ImageError):
                    assert decode(damaged.tobytes()).mode == "RGB"


def test_closed_pil_image():
    image = Image.open(io.BytesIO(PNG))
    image.close()
    with pytest.raises(ImageError, match="PIL image: can't be decoded"):
        decode(image)


def test_large_images_do_not_warn_and_bombs_are_refused(monkeypatch):
    data = encoded(Image.new("L", (30, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).size == (30, 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ImageError, match=r"image bytes: too large \(.*1500 pixels.* limit of 1000 pixels"):
        decode(data)


def test_threads_leave_the_warning_filters_as_they_were():
    filters = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode(PNG) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == filters
