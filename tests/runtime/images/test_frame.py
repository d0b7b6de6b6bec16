"""A frame that is read where it lies gives what a decoded copy of it gives, bit for bit."""

import tracemalloc

import numpy as np
import pytest

from mova_runtime.bundle import Bundle
from mova_runtime.errors import ImageError
from mova_runtime.images import Frame, Preprocessor, decode
from mova_runtime.images.frame import WIDTHS

FORMS = sorted(WIDTHS)
SIZES = [(1, 1), (63, 7), (480, 640), (700, 301)]
"""Height and width; the last but one takes several strips of Pillow's, the last is upright."""


def noise(height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def as_rgb(pixels, form):
    """What a frame shows, from numpy alone."""
    if form == "GRAY8":
        return np.repeat(pixels, 3, axis=2)
    return pixels[:, :, ::-1] if form == "BGR8" else pixels[:, :, :3]


@pytest.fixture(scope="module")
def preprocessor(bundle):
    return Preprocessor(Bundle.open(bundle(2)).manifest.preprocessing)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_every_input_is_that_of_a_copy(preprocessor, form, size):
    pixels = noise(*size, WIDTHS[form])
    frame, copy = Frame(pixels, form), np.ascontiguousarray(as_rgb(pixels, form))
    found, wanted = preprocessor(frame), preprocessor(copy)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_lie_apart_or_go_up(preprocessor, form):
    whole = noise(90, 80, WIDTHS[form])
    for pixels in (whole[:, :50], whole[::-1], whole[10:70:3, 5:]):
        np.testing.assert_array_equal(np.asarray(Frame(pixels, form).image()), as_rgb(pixels, form))
        wanted = preprocessor.decode(np.ascontiguousarray(as_rgb(pixels, form)))
        found = preprocessor.decode(Frame(pixels, form))
        assert found.digest == wanted.digest
        np.testing.assert_array_equal(found["dinov2"], wanted["dinov2"])


def test_it_has_the_digest_of_the_same_picture_from_a_file(preprocessor):
    pixels = noise(400, 1000, 3)
    assert preprocessor.decode(Frame(pixels)).digest == preprocessor.decode(decode(pixels)).digest
    changed = pixels.copy()
    changed[399, 999, 2] ^= 1
    assert preprocessor.decode(Frame(changed)).digest != preprocessor.decode(Frame(pixels)).digest


def test_pillows_histogram():
    pixels = noise(700, 900, 3)
    assert Frame(pixels).histogram() == decode(pixels).histogram()


def test_it_is_a_view(preprocessor):
    pixels = noise(40, 40, 3)
    frame = Frame(pixels)
    assert decode(frame) is frame
    assert np.shares_memory(frame.plane(1), pixels)
    assert np.shares_memory(next(frame.strips()), pixels)


def test_numpy_copies_no_4k_frame(preprocessor):
    """Pillow's memory is not counted here: the test in C measures the process."""
    inputs = preprocessor.decode(Frame(noise(2160, 3840, 3)))
    tracemalloc.start()
    try:
        assert inputs.digest
        assert inputs["dinov2"].shape[0] == 3
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2160 * 3840 * 3 / 4


@pytest.mark.parametrize(
    ("pixels", "form", "text"),
    [
        (noise(4, 4, 3), "RGB", "frame of format 'RGB'; there are RGB8, BGR8, RGBA8, GRAY8"),
        (noise(4, 4, 4), "RGB8", r"frame of uint8 \[4, 4, 4\]; RGB8 is uint8 \[height, width, 3\]"),
        (noise(4, 4, 3)[:0], "RGB8", r"frame of uint8 \[0, 4, 3\]"),
        (noise(4, 4, 3)[:, :, 0], "GRAY8", r"frame of uint8 \[4, 4\]"),
        (noise(4, 4, 3).astype(np.float32), "RGB8", "frame of float32"),
    ],
)
def test_what_is_no_frame(pixels, form, text):
    with pytest.raises(ImageError, match=text):
        Frame(pixels, form)
