"""The C example, started outside any virtual environment, says what Python says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import mova_runtime as mova
from native_programs import run
from reference_data import cases


@pytest.mark.parametrize("index", range(len(cases(2))))
def test_the_answer_is_the_references_token_for_token(program, picture, bundle, index):
    case = cases(2)[index]
    done = run(program("answer.c"), bundle(2), picture(case.image.stem), case.question, case.max_new_tokens)
    assert done.returncode == 0, done.stderr
    answer, tokens, experts = done.stdout.rsplit("\n", 3)[:3]
    assert tokens == "tokens: " + " ".join(map(str, case.answer_tokens))
    assert experts == "experts: " + ",".join(case.experts)
    assert answer == case.answer
    assert done.stderr == ""


def test_it_is_pythons_answer_with_experts_that_are_named(program, picture, bundle):
    case = cases(2)[0]
    with mova.open(bundle(2)) as runtime:
        expected = runtime.answer(case.image, case.question, ("sam", "dinov2"), 5)
    done = run(program("answer.c"), bundle(2), picture(case.image.stem), case.question, 5, "sam, dinov2")
    assert done.stdout.rsplit("\n", 3)[1:3] == [
        "tokens: " + " ".join(map(str, expected.tokens)),
        "experts: " + ",".join(expected.routing.experts),
    ]


def test_a_mistake_is_a_line_and_a_status(program, picture, bundle, tmp_path):
    done = run(program("answer.c"), tmp_path, picture("chart"), "Why?")
    assert done.returncode == 1
    assert done.stderr.startswith(f"answer: open: MOVA_BUNDLE: {tmp_path}: not a bundle")
    assert len(done.stderr.splitlines()) == 1


def test_signals_stay_the_programs(program, bundle, picture):
    done = run(program("signals.c"), bundle(2), picture("chart"))
    assert (done.returncode, done.stdout) == (0, "handlers changed: 0\nSIGINT reached the program: 1\n"), done.stderr


def test_a_plugin_that_is_loaded_for_itself_alone(program, library, bundle):
    done = run(program("plugin.c"), library / "lib" / "libmova.so", bundle(2))
    assert (done.returncode, done.stdout) == (0, "MOVA_OK\n"), done.stderr


def test_a_program_that_is_python_itself(library, bundle):
    code = (
        "import ctypes, sys\n"
        "mova = ctypes.CDLL(sys.argv[1])\n"
        "runtime = ctypes.c_void_p()\n"
        "print(mova.mova_open(sys.argv[2].encode(), None, ctypes.byref(runtime)), mova.mova_close(runtime))"
    )
    done = run_python(code, library / "lib" / "libmova.so", bundle(2))
    assert done.stdout == "0 0\n", done.stderr


def test_a_program_that_is_another_python(library):
    """The one that lacks what is needed is named, not the one that libmova was built for."""
    code = (
        "import ctypes, sys\n"
        "mova = ctypes.CDLL(sys.argv[1])\n"
        "mova.mova_last_error.restype = ctypes.c_char_p\n"
        "print(mova.mova_init(), mova.mova_last_error().decode())"
    )
    done = run_python(code, library / "lib" / "libmova.so", options=["-IS"])
    assert "the Python that runs in this program can't import _cffi_backend (" in done.stdout, done.stderr
    assert f"libmova was built for that of {sys.prefix}" in done.stdout


def run_python(code, *arguments, options=()):
    return run(Path(sys.executable), *options, "-c", code, *arguments)


def test_memory_does_not_grow(program, bundle):
    done = run(program("memory.c"), bundle(2), 200, 1000)
    assert done.returncode == 0, done.stderr
    warm, after = (int(line.split()[-1]) for line in done.stdout.splitlines()[:2])
    assert after < 1.02 * warm
    assert done.stdout.splitlines()[2:] == [f"cycle {number}: MOVA_OK" for number in range(10)]


@pytest.mark.parametrize("form", ["rgb", "bgr", "rgba", "gray", "strided", "upwards"])
def test_a_4k_frame_is_not_copied(program, bundle, form):
    """A copy takes 24 MiB; Pillow's own image of it 32 MiB."""
    done = run(program("frame.c"), bundle(2), form, 3840, 2160)
    assert done.returncode == 0, done.stderr
    more = int(done.stdout.split()[-1])
    assert more < 3840 * 2160 * 3 / 2
