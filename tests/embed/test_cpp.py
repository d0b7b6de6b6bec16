"""mova.hpp, its example, and many threads."""

from __future__ import annotations

import json

import numpy as np

import mova_runtime as mova
from native_programs import run

THREADS, FRAMES, SIDE = 8, 100, 40


def test_a_thread_a_camera(program, picture, bundle):
    names = ["chart", "photo", "document"]
    done = run(program("cameras.cpp"), bundle(2), "vary", 3, *map(picture, names))
    assert done.returncode == 0, done.stderr
    with mova.open(bundle(2)) as runtime:
        for name, line in zip(names, done.stdout.splitlines(), strict=True):
            features = runtime.features(picture(name), "vary")
            shape = "x".join(map(str, features.shape))
            assert line == f"{picture(name)} {shape} {fnv(features.tobytes()):x} 3"


def fnv(data):
    """FNV-1a, 64 bits."""
    found = 14695981039346656037
    for byte in data:
        found = ((found ^ byte) * 1099511628211) & (2**64 - 1)
    return found


def test_an_exception_tells_status_and_text(program, picture, bundle):
    done = run(program("cameras.cpp"), bundle(2), "nobody", 1, picture("chart"))
    assert done.returncode == 1
    assert done.stderr.startswith("cameras: MOVA_EXPERT: ")
    assert "nobody" in done.stderr


def test_what_the_wrapper_promises(program, picture, bundle):
    done = run(program("wrapper.cpp"), bundle(2), picture("chart"))
    assert (done.returncode, done.stdout) == (0, "all holds\n"), done.stderr


def test_eight_threads_get_what_python_gets(program, bundle, tmp_path):
    out = tmp_path / "features"
    done = run(program("threads.cpp"), bundle(2), out)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cache"]["misses"] == THREADS * FRAMES
    with mova.open(bundle(2), feature_cache="0", threads=1, backend="ort") as runtime:
        wanted = [runtime.features(frame(t, f), "pix2struct") for t in range(THREADS) for f in range(FRAMES)]
    found = np.fromfile(out, np.float32).reshape(THREADS * FRAMES, *wanted[0].shape)
    np.testing.assert_array_equal(found, np.stack(wanted))
    assert len(np.unique(found.reshape(len(found), -1), axis=0)) > FRAMES  # the frames are not all alike


def frame(thread, number):
    """As threads.cpp has it."""
    places = np.arange(3 * SIDE * SIDE)
    return ((31 * places + 7 * thread + 13 * number) % 251).astype(np.uint8).reshape(SIDE, SIDE, 3)


def test_the_first_calls_at_once_and_closing_what_others_use(program, bundle):
    done = run(program("close_in_use.cpp"), bundle(2))
    assert done.returncode == 0, done.stderr
    opened, *ends, streamed = done.stdout.splitlines()
    assert streamed == "MOVA_CLOSED after 3"
    assert opened.split() == ["MOVA_OK"] * THREADS
    assert ends == ["MOVA_CLOSED: the runtime is closed", "MOVA_OK"]
