"""The examples and the library's own C under AddressSanitizer: what they do with memory, and what they leave behind."""

from __future__ import annotations

import pytest

import mova_runtime as mova
from native_programs import SOURCES, run
from reference_data import cases

LIBRARIES = ("libpython", "_cffi_backend", "numpy", "onnxruntime", "openblas", "PIL/", "tokenizers", "libcrypto")
"""Not compiled for it. Python and its modules keep what they allocate at their start until the process ends."""


WITHOUT_LEAKS = {"ASAN_OPTIONS": "detect_leaks=0"}


@pytest.fixture
def with_leaks(tmp_path):
    """Leaks count, but for those of `LIBRARIES`; stacks are unwound, for these have no frame pointers."""
    suppressions = tmp_path / "suppressions"
    suppressions.write_text("".join(f"leak:{name}\n" for name in LIBRARIES))
    return {
        "ASAN_OPTIONS": "detect_leaks=1:fast_unwind_on_malloc=0:malloc_context_size=12",
        "LSAN_OPTIONS": f"suppressions={suppressions}:print_suppressions=0",
    }


def test_the_c_example_leaves_nothing(sanitized, picture, bundle, with_leaks):
    arguments = (bundle(2), picture("chart"), "Why?", 2, "none")
    done = run(sanitized("answer.c"), *arguments, settings=with_leaks)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_c_example_answers_as_the_reference(sanitized, picture, bundle):
    case = cases(2)[0]
    arguments = (bundle(2), picture(case.image.stem), case.question, case.max_new_tokens)
    done = run(sanitized("answer.c"), *arguments, settings=WITHOUT_LEAKS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rsplit("\n", 3)[1] == "tokens: " + " ".join(map(str, case.answer_tokens))


def test_the_cpp_example(sanitized, picture, bundle):
    pictures = [picture(name) for name in ("chart", "photo", "document")]
    done = run(sanitized("cameras.cpp"), bundle(2), "pix2struct", 20, *pictures, settings=WITHOUT_LEAKS)
    assert (done.returncode, done.stderr) == (0, "")
    with mova.open(bundle(2)) as runtime:
        rows, columns = runtime.features(pictures[0], "pix2struct").shape
    for name, line in zip(pictures, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{name} {rows}x{columns} ")
        assert line.endswith(" 20")


def test_every_mistake(sanitized, bundle):
    done = run(sanitized("bad_calls.c"), bundle(2), settings=WITHOUT_LEAKS)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len((SOURCES / "bad_calls.txt").read_text().splitlines())


def test_the_wrapper(sanitized, bundle, picture):
    done = run(sanitized("wrapper.cpp"), bundle(2), picture("chart"), settings=WITHOUT_LEAKS)
    assert (done.returncode, done.stderr) == (0, "")
