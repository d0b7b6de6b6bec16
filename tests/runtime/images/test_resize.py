"""Resizing in strips against the naive way: Pillow's resize of the whole square, into the whole result."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mova_runtime.images import resize as module
from mova_runtime.images.resize import Axis, resize

COLOUR = (122, 116, 104)
SIZES = [(1, 1), (1, 2), (7, 7), (64, 31), (31, 64), (63, 64), (200, 3), (3, 200), (301, 148), (112, 112)]
FILTERS = [Image.Resampling[name] for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")]


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(params=[1000, 1 << 20], ids="strip={}".format)
def strip(request, monkeypatch):
    """Strips of a few rows (one, of the longest), and of all."""
    monkeypatch.setattr(module, "_STRIP", request.param)


@pytest.mark.usefixtures("strip")
@pytest.mark.parametrize("resample", FILTERS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_padded_equals_the_naive_square(size, resample):
    image = noise(*size)
    width, height = size
    square = max(size)
    naive = Image.new("RGB", (square, square), COLOUR)
    naive.paste(image, ((square - width) // 2, (square - height) // 2))
    for side in (1, 16, 49, 112, 250):
        across, down = Axis(width, square, side, side), Axis(height, square, side, side)
        ours = resize(image, across, down, resample, COLOUR)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(naive.resize((side, side), resample)))


@pytest.mark.usefixtures("strip")
@pytest.mark.parametrize("resample", FILTERS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cropped_equals_cropping_afterwards(size, resample):
    image = noise(*size)
    width, height = size
    for (wide, high), (kept_wide, kept_high) in (((90, 41), (33, 40)), ((20, 60), (20, 7)), ((5, 5), (1, 2))):
        across, down = Axis(width, width, wide, kept_wide), Axis(height, height, high, kept_high)
        ours = resize(image, across, down, resample, COLOUR)
        left, top = (wide - kept_wide) // 2, (high - kept_high) // 2
        # In two calls, as Pillow 13 takes some of these shapes in the other order.
        naive = image.resize((wide, height), resample).resize((wide, high), resample)
        naive = naive.crop((left, top, left + kept_wide, top + kept_high))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(naive))


@pytest.mark.parametrize("size", [(20000, 100), (100, 20000)], ids=str)
def test_a_square_of_20000_pixels_never_exists(size):
    """In a process of its own, as memory that Pillow takes shows only in the process's peak."""
    script = f"""
import resource
from PIL import Image
from mova_runtime.bundle.manifest import PatchInput, PixelInput
from mova_runtime.images.flattened import flattened
from mova_runtime.images.pixels import pixels
image = Image.effect_noise({size}, 50).convert("RGB")
Image.new("RGB", (8, 8)).resize((4, 4))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
spec = PixelInput(1024, 1024, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
assert pixels(image, spec, "pad", {COLOUR}).shape == (3, 1024, 1024)
assert flattened(image, PatchInput(2048, 16), "pad", {COLOUR}).shape == (2048, 770)
if image.width > image.height:
    assert pixels(image, spec, "crop", {COLOUR}).shape == (3, 1024, 1024)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # MiB; the square alone would be 1,526, the uncropped result 800.
    assert float(run.stdout) < 250
