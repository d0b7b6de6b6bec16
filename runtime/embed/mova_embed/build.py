"""libmova, its headers, and what build systems need to find them, in a folder."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mova_embed import header, packages, source
from mova_embed.compiler import compile_library, compiler
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
    interpreter = this_interpreter()
    out = out.absolute()
    try:
        for folder in ("include", "lib/pkgconfig", "lib/cmake/mova"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as name:
            made = Path(name)
            sources = source.write(made, interpreter)
            flags = shlex.split(os.environ.get("CFLAGS", ""))
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
                (made / "file").replace(out / file)
            shutil.move(made / "libmova.so", out / "lib" / "libmova.so")
    except OSError as error:
        raise EmbedError(f"{out} can't be written ({error.strerror or error})") from None
    prefix = shlex.quote(str(out))
    return Built(out, interpreter, packages.compile_flags(prefix), packages.link_flags(prefix))
