"""The C compiler: the one that CC names, or the system's."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mova_embed.errors import EmbedError
from mova_embed.header import C
from mova_embed.interpreter import Interpreter

_STRICT = ("-Wall", "-Wextra", "-Werror")
_LINES = 3
"""Of what a compiler complains about that an error repeats."""


def compiler() -> list[str]:
    """The command, from CC or what is installed.

    Raises:
        EmbedError: there is none, or CC is no command line.
    """
    asked = words("CC")
    candidates = [asked] if asked else [["cc"], ["gcc"], ["clang"]]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    tried = ", ".join(command[0] for command in candidates)
    raise EmbedError(f"no C compiler (looked for {tried}); install one, such as with apt install gcc, or set CC")


def words(variable: str) -> list[str]:
    """What an environment variable says, as a shell splits it.

    Raises:
        EmbedError: a quotation mark is open.
    """
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise EmbedError(f"{variable} can't be read ({str(error).lower()}): {os.environ[variable]}") from None


def compile_library(
    sources: Sequence[Path], made: Path, interpreter: Interpreter, out: Path, flags: Sequence[str] = ()
) -> None:
    """Make libmova.so.

    Args:
        sources: C files; those in the folder `made` come from cffi and are compiled without warnings.
        made: holds the written headers, and takes object files.
        interpreter: to link.
        out: the library's file.
        flags: besides ours, as CFLAGS has them.

    Raises:
        EmbedError: there is no compiler, or it fails.
    """
    command = compiler()
    folders = [made, C, *interpreter.includes]
    common = ["-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-pthread", *(f"-I{one}" for one in folders)]
    objects = []
    for source in sources:
        ours = () if source.parent == made else _STRICT
        objects.append(made / f"{source.stem}.o")
        theirs = ("-w",) if source.parent == made else ()
        _run([*command, *common, *ours, *flags, *theirs, "-c", str(source), "-o", str(objects[-1])])
    python = interpreter.library
    link = [f"-Wl,--version-script={made / 'exports.map'}", f"-Wl,-rpath,{python.parent}", "-Wl,-soname,libmova.so"]
    files = [*map(str, objects), str(python)]
    _run([*command, "-shared", "-pthread", *flags, *link, "-o", str(out), *files, "-ldl"])
    if not out.is_file():
        raise EmbedError(f"the compiler {command[0]} fails: it made no library (CFLAGS: {' '.join(flags) or 'none'})")


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise EmbedError(f"the compiler {command[0]} can't be run ({error.strerror or error})") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        said = [line.strip() for line in lines if "error" in line] or lines or [f"status {done.returncode}"]
        raise EmbedError(f"the compiler {command[0]} fails: {'; '.join(said[:_LINES])}")
