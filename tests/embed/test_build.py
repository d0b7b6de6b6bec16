"""`mova embed build`: what it writes and prints, how build systems find it, and what can be missing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from command_line import assert_user_error
from mova_embed import header, interpreter, source
from mova_embed.status import Status
from native_programs import EXAMPLES, STRICT, run


def sh(*command, **settings):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env={**os.environ, **settings})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_it_prints_compiles_a_program(mova_command, tmp_path, bundle, picture):
    out = tmp_path / "a folder"
    done = mova_command("embed", "build", "--out", out)
    assert (done.status, done.error) == (0, "")
    told = dict(line.split(":", 1) for line in done.output.splitlines() if ":" in line)
    program = tmp_path / "answer"
    flags = [*shlex.split(told["compile"]), str(EXAMPLES / "answer.c"), *shlex.split(told["link"])]
    sh("gcc", *STRICT, *flags, "-o", program)
    assert run(program, bundle(2), picture("chart"), "Why?", 1, "none").returncode == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "include/mova.h",
        "include/mova.hpp",
        "lib/cmake/mova/mova-config-version.cmake",
        "lib/cmake/mova/mova-config.cmake",
        "lib/libmova.so",
        "lib/pkgconfig/mova.pc",
    ]
    found = [line.split("or: ", 1)[1] for line in done.output.splitlines() if line.startswith("or:")]
    assert "mova" in sh("sh", "-c", found[0].strip())
    assert shlex.split(told["CMake"])[-1] == f"-DCMAKE_PREFIX_PATH={out}"
    assert mova_command("embed", "build", "--out", out).status == 0  # again, over what is there


def test_a_cmake_project_finds_it(library, tmp_path, bundle, picture):
    sh("cmake", "-S", EXAMPLES, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={library}")
    sh("cmake", "--build", tmp_path)
    done = run(tmp_path / "answer", bundle(2), picture("chart"), "Why?", 1, "none")
    assert done.stdout.splitlines()[-1] == "experts: "
    assert run(tmp_path / "cameras", bundle(2), "pix2struct", 1, picture("chart")).returncode == 0


def test_cmake_refuses_another_major_version(library, tmp_path):
    text = (EXAMPLES / "CMakeLists.txt").read_text().replace("mova 0.1", "mova 7.0")
    assert "mova 7.0" in text
    (tmp_path / "CMakeLists.txt").write_text(text)
    command = ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={library}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    assert "compatible with requested version" in " ".join(done.stderr.split())


def test_pkg_config_finds_it_also_where_it_was_moved(library, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(library, moved)
    for name in ("answer.c", "cameras.cpp"):
        flags = sh("pkg-config", "--cflags", "--libs", "mova", PKG_CONFIG_PATH=str(moved / "lib" / "pkgconfig"))
        compiler = "gcc" if name.endswith(".c") else "g++"
        sh(compiler, *STRICT, EXAMPLES / name, *flags.split(), "-o", tmp_path / "program")
        linked = sh("ldd", tmp_path / "program")
        assert str(moved / "lib") in linked.replace("/pkgconfig/../..", "")
        assert "not found" not in linked


def test_the_library_shows_its_functions_and_nothing_else(library):
    shown = sh("nm", "-D", "--defined-only", library / "lib" / "libmova.so")
    assert sorted(line.split()[-1] for line in shown.splitlines()) == sorted(header.names())
    assert len(header.names()) == 20


@pytest.mark.parametrize("compiler", ["gcc -std=c99 -x c", "gcc -std=c17 -x c", "g++ -std=c++11 -x c++"])
def test_the_header_alone_is_strict_c_and_cpp(library, compiler):
    of_language = "-Wold-style-cast" if compiler.startswith("g++") else "-Wstrict-prototypes"
    sh(*compiler.split(), *STRICT, of_language, "-fsyntax-only", library / "include" / "mova.h")


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
def test_the_wrapper_compiles_with_and_without_spans(library, standard):
    sh("g++", f"-std={standard}", *STRICT, "-fsyntax-only", f"-I{library / 'include'}", EXAMPLES / "cameras.cpp")


def test_every_status_has_its_number_and_meaning_in_the_header(library):
    text = (library / "include" / "mova.h").read_text()
    for status in Status:
        assert f"  MOVA_{status.name} = {status.value}, /**< " in text


def test_c_strings_of_any_path():
    assert source.literal('/a "b"\\é?1'.encode()) == '"/a \\042b\\042\\134\\303\\251\\0771"'


class TestMistakes:
    """One line each, and status 2."""

    def test_no_compiler(self, mova_command, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert_user_error(
            mova_command("embed", "build", "--out", tmp_path / "out"), "no C compiler (looked for cc, gcc"
        )

    def test_a_compiler_that_is_not_there(self, mova_command, monkeypatch, tmp_path):
        monkeypatch.setenv("CC", "no-such-cc -O3")
        done = mova_command("embed", "build", "--out", tmp_path / "out")
        assert_user_error(done, "no C compiler (looked for no-such-cc); install one")

    def test_a_compiler_that_fails(self, mova_command, monkeypatch, tmp_path):
        monkeypatch.setenv("CFLAGS", "-fno-such-flag")
        done = mova_command("embed", "build", "--out", tmp_path / "out")
        assert_user_error(done, "cc fails: ")
        assert "-fno-such-flag" in done.error
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("variable", ["CC", "CFLAGS"])
    def test_an_open_quotation_mark(self, mova_command, monkeypatch, tmp_path, variable):
        monkeypatch.setenv(variable, "gcc '-O3")
        done = mova_command("embed", "build", "--out", tmp_path / "out")
        assert_user_error(done, f"{variable} can't be read (no closing quotation): gcc '-O3")

    @pytest.mark.parametrize(
        ("variable", "value", "told"),
        [
            ("CFLAGS", "-c", "it made no library (CFLAGS: -c)"),
            ("CC", "/bin/true", "the compiler /bin/true fails: it made no library"),
            ("CC", "/bin/false", "the compiler /bin/false fails: status 1"),
            ("CC", "./script", "the compiler ./script can't be run (Exec format error)"),
            ("CC", "./latin", "the compiler ./latin fails: \N{REPLACEMENT CHARACTER}error"),
        ],
    )
    def test_a_compiler_that_makes_nothing(self, mova_command, monkeypatch, tmp_path, variable, value, told):
        monkeypatch.chdir(tmp_path)
        for name, text in (("script", b"no shebang"), ("latin", b"#!/bin/sh\nprintf '\\351error\\n' >&2\nexit 1\n")):
            (tmp_path / name).write_bytes(text)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv(variable, value)
        assert_user_error(mova_command("embed", "build", "--out", "out"), told)
        assert not (tmp_path / "out").exists()

    def test_strict_flags_are_for_our_files(self, mova_command, monkeypatch, tmp_path):
        monkeypatch.setenv("CFLAGS", "-Wall -Wextra -Werror -pedantic")
        done = mova_command("embed", "build", "--out", tmp_path / "a,b")
        assert (done.status, done.error) == (0, "")
        link = next(line for line in done.output.splitlines() if line.startswith("link:"))
        assert link.endswith(f"-Xlinker -rpath -Xlinker {tmp_path / 'a,b'}/lib")

    @pytest.mark.parametrize(("out", "told"), [("", "names no folder"), ("a:b", "has a colon")])
    def test_folders_that_do_not_work(self, mova_command, monkeypatch, tmp_path, out, told):
        monkeypatch.chdir(tmp_path)
        assert_user_error(mova_command("embed", "build", "--out", out), told)
        assert not list(tmp_path.iterdir())

    def test_no_headers(self, mova_command, monkeypatch, tmp_path):
        monkeypatch.setattr(sysconfig, "get_path", lambda name, **_: str(tmp_path))
        assert_user_error(mova_command("embed", "build", "--out", tmp_path / "out"), "no Python.h); install them")

    def test_a_python_without_a_shared_library(self, mova_command, monkeypatch, tmp_path):
        variables = {"LIBDIR": str(tmp_path), "INSTSONAME": "libpython3.11.a"}
        monkeypatch.setattr(sysconfig, "get_config_var", variables.get)
        monkeypatch.setattr(interpreter.sys, "base_prefix", str(tmp_path))
        done = mova_command("embed", "build", "--out", tmp_path / "out")
        assert_user_error(done, "has no shared libpython3.")
        assert "--enable-shared" in done.error

    def test_out_is_a_file(self, mova_command, tmp_path):
        (tmp_path / "out").write_text("")
        done = mova_command("embed", "build", "--out", tmp_path / "out")
        assert_user_error(done, f"{tmp_path / 'out'} can't be written (")

    def test_out_can_not_be_written(self, mova_command):
        assert_user_error(mova_command("embed", "build", "--out", "/proc/out"), "/proc/out can't be written (")

    def test_cffi_is_not_installed(self, mova_command, monkeypatch, tmp_path):
        import sys

        monkeypatch.setitem(sys.modules, "cffi", None)
        for name in [name for name in sys.modules if name.startswith("mova_embed")]:
            monkeypatch.delitem(sys.modules, name)
        done = mova_command("embed", "build", "--out", tmp_path / "out")
        assert_user_error(done, "building libmova needs cffi; install the project with its `embed` extra")

    def test_nothing_to_do(self, mova_command):
        assert_user_error(mova_command("embed"), "ACTION")


def test_python_that_moved_away_is_told(library, program, tmp_path, bundle, picture):
    """A library whose Python lost this project says so in C."""
    broken = tmp_path / "broken"
    shutil.copytree(library, broken)
    so = broken / "lib" / "libmova.so"
    root = str(Path(header.__file__).parents[1]).encode()
    data = so.read_bytes()
    assert root + b"\0" in data
    so.write_bytes(data.replace(root + b"\0", b"/" + b"x" * (len(root) - 1) + b"\0"))
    done = run(program("answer.c"), bundle(2), picture("chart"), "Why?", settings={"LD_LIBRARY_PATH": str(so.parent)})
    assert done.stderr.startswith("answer: open: MOVA_PYTHON: Python of ")
