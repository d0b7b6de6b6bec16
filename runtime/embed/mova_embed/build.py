"""libmova, its headers, and what build systems need to find them, in a folder."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mova_embed import header, packages, source
from mova_embed.compiler import compile_library, compiler, words
from mova_embed.errors import EmbedError
from mova_embed.interpreter import Interpreter, this_interpreter

HPP = Path(__file__).parent / "mova.hpp"


@dataclass(frozen=True)
class Built:
    """What was written: the folder, and the flags that a program needs."""

    out: Path
    interpreter: Interpreter
    compile_flags: str
    link_flags: str


def build(out: Path) -> Built:
    """Compile the library for the Python that runs this; CC and CFLAGS count as usual.

    Files that are there already are replaced, each at once: a program that has the library loaded keeps the one it has.

    Raises:
        EmbedError: no compiler, no headers, no shared libpython, a compiler that fails, or `out` can't be written.
    """
    compiler()  # a mistake that is found at once
    flags = words("CFLAGS")
    interpreter = this_interpreter()
    out = out.absolute()
    if ":" in str(out):
        raise EmbedError(f"{out} has a colon, which ends a path where programs look for libraries; give another folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=_there(out)) as name:
            made = Path(name)
            sources = source.write(made, interpreter)
            compile_library(sources, made, interpreter, made / "libmova.so", flags)
            files = {
                "include/mova.h": (made / "mova.h").read_text(encoding="utf-8"),
                "include/mova.hpp": HPP.read_text(encoding="utf-8"),
                "lib/pkgconfig/mova.pc": packages.pkg_config(header.version()),
                "lib/cmake/mova/mova-config.cmake": packages.cmake_config(),
                "lib/cmake/mova/mova-config-version.cmake": packages.cmake_version(header.version()),
            }
            for file, text in files.items():
                (made / "file").write_text(text, encoding="utf-8")
                _move(made / "file", out / file)
            _move(made / "libmova.so", out / "lib" / "libmova.so")
    except OSError as error:
        raise EmbedError(f"{out} can't be written ({error.strerror or error})") from None
    prefix = shlex.quote(str(out))
    return Built(out, interpreter, packages.compile_flags(prefix), packages.link_flags(prefix))


def _there(out: Path) -> Path:
    """It, or the nearest folder above that exists: a failure leaves nothing behind, and a move is at once."""
    return next(folder for folder in (out, *out.parents) if folder.exists())


def _move(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    file.replace(to)
