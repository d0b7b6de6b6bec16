"""mova embed: the runtime as a library for C and C++ programs."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from mova_runtime import MovaError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("embed", help="the runtime as a library for C and C++ programs")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="compile libmova for this Python, with mova.h and mova.hpp")
    build.add_argument("--out", type=folder, required=True, metavar="DIR", help="gets lib/ and include/")
    build.set_defaults(run=run)


def folder(text: str) -> Path:
    """A path that says something: `--out "$DIR"` without a DIR is a mistake."""
    if not text:
        raise argparse.ArgumentTypeError("names no folder")
    return Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Run `mova embed build`."""
    try:
        from mova_embed.build import build
    except ImportError as error:
        raise MovaError(f"building libmova needs {error.name}; install the project with its `embed` extra") from None
    built = build(arguments.out)
    print(f"{built.out / 'lib' / 'libmova.so'}, for the Python of {built.interpreter.prefix}")
    print(f"compile: {built.compile_flags}")
    print(f"link:    {built.link_flags}")
    print(
        f"or:      PKG_CONFIG_PATH={shlex.quote(str(built.out / 'lib' / 'pkgconfig'))} pkg-config --cflags --libs mova"
    )
    print(f"CMake:   find_package(mova) with -DCMAKE_PREFIX_PATH={shlex.quote(str(built.out))}")
    return 0
