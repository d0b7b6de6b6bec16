"""The C files of one library: those in `c/`, and those that depend on this Python, which are written."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import cffi

from mova_embed import header
from mova_embed.interpreter import Interpreter
from mova_embed.status import Status

MODULE = "_mova_library"
"""What the compiled Python module within the library is called."""

_PRELUDE = '#include "inside.h"\n'
_SAY = "void mova_inner_say(const char *text);"


def write(folder: Path, interpreter: Interpreter) -> list[Path]:
    """Write what is made into an empty folder; all files that are to be compiled."""
    (folder / "mova.h").write_text(header.header(), encoding="utf-8")
    (folder / "facts.h").write_text(facts(interpreter), encoding="utf-8")
    (folder / "exports.map").write_text(exports(), encoding="utf-8")
    ffi = cffi.FFI()
    ffi.cdef(header.types())
    ffi.cdef(_SAY)
    ffi.embedding_api((header.C / "inner.h").read_text(encoding="utf-8"))
    ffi.embedding_init_code(_init(interpreter))
    ffi.set_source(MODULE, _PRELUDE)
    made = folder / f"{MODULE}.c"
    with contextlib.redirect_stdout(io.StringIO()):  # cffi tells what it does
        ffi.emit_c_code(str(made))
    return [*sorted(header.C.glob("*.c")), made]


def facts(interpreter: Interpreter) -> str:
    """facts.h: Python's paths, and what statuses are called."""
    paths = {"HOME": interpreter.home, "PREFIX": interpreter.prefix, "EXECUTABLE": interpreter.executable}
    return "\n".join(
        [
            *(f"#define MOVA_{name} {literal(os.fsencode(path))}" for name, path in paths.items()),
            "__attribute__((unused)) static const char *const search_paths[] = {",
            *(f"  {literal(os.fsencode(path))}," for path in interpreter.search_paths),
            "  0,",
            "};",
            "__attribute__((unused)) static const char *const status_names[] = {",
            *(f'  "MOVA_{status.name}",' for status in Status),
            "};",
            "",
        ]
    )


def exports() -> str:
    """The linker's list of what the library shows: mova.h's functions, and nothing of Python's or cffi's."""
    return "{\n  global:\n" + "".join(f"    {name};\n" for name in header.names()) + "  local: *;\n};\n"


def literal(text: bytes) -> str:
    """A C string; what is not plain ASCII in octal, which ends after three digits whatever follows."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text) + '"'


def _init(interpreter: Interpreter) -> str:
    """Runs in the library's Python when it takes its first call."""
    sites = [os.fspath(folder) for folder in interpreter.sites]
    return f"""
import site
for folder in {sites!r}:
    site.addsitedir(folder)  # for its .pth files
from {MODULE} import ffi, lib
from mova_embed.boundary import connect
connect(ffi, lib)
"""
