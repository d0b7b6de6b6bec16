"""C and C++ programs over libmova: compiled as strictly as a user may, and run as if nothing of Python were around."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from once import once

EXAMPLES = Path(__file__).parents[1] / "runtime" / "embed" / "examples"
SOURCES = Path(__file__).parent / "embed"
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread")
MOVA = (sys.executable, "-c", "import sys; from mova_export.cli import main; sys.exit(main())")
"""What `mova` is; no test may depend on where a script was installed."""

PRODUCTS = ("OMP_", "OPENBLAS_")
"""How names of variables begin that numpy's products go by."""

SECONDS = 300
"""Until a program that hangs is killed."""


def build_library(out: Path, flags: str = "") -> Path:
    """`mova embed build`; `flags` as CFLAGS. Whichever process comes first builds."""
    with once(out) as there:
        if not there:
            half = out.with_name(f"{out.name}.half")
            command = [*MOVA, "embed", "build", "--out", str(half)]
            done = subprocess.run(command, env={**os.environ, "CFLAGS": flags}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            half.rename(out)  # what was built may be moved: nothing in it says where it was
    return out


class Programs:
    """Compiles against one library; every program once a run, whichever process asks."""

    def __init__(self, library: Path, folder: Path, flags: tuple[str, ...] = ()) -> None:
        """`flags`: for compiling and linking programs, besides the usual."""
        self.library = library
        self._folder = folder
        self._flags = flags

    def __call__(self, name: str) -> Path:
        """The program of a source file, which is an example or lies beside the tests; a warning fails the test."""
        (source,) = [folder / name for folder in (EXAMPLES, SOURCES) if (folder / name).is_file()]
        out = self._folder / source.stem
        compiler = ["gcc", "-std=c11"] if source.suffix == ".c" else ["g++", "-std=c++17"]
        include, lib = self.library / "include", self.library / "lib"
        link = [f"-L{lib}", "-lmova", f"-Wl,-rpath,{lib}", "-ldl"]
        with once(out) as there:
            if not there:
                command = [
                    *compiler,
                    *STRICT,
                    "-g",
                    "-O1",
                    *self._flags,
                    f"-I{include}",
                    f"-I{EXAMPLES}",
                    str(source),
                    *link,
                ]
                done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
        return out


def run(
    program: Path, *arguments: object, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program far from any virtual environment, in "/": the environment has the cache's folder, and little else.

    How numpy computes products is as here, threads and kernels: their last bits depend on it.
    """
    kept = {name: value for name, value in os.environ.items() if name == "MOVA_CACHE" or name.startswith(PRODUCTS)}
    environment = {**kept, **(settings or {})}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=SECONDS,
    )
