"""The Python that runs this, as the library will start it: its shared library, headers and paths."""

from __future__ import annotations

import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cffi

import mova_embed
import mova_runtime
from mova_embed.errors import EmbedError


@dataclass(frozen=True)
class Interpreter:
    """A Python installation, and the virtual environment on it if there is one.

    home: what holds the standard library; prefix: the environment, or home; executable: its `python`; includes: folders
    of headers; library: libpython, shared; standard: folders of the standard library; sites: folders of installed
    packages, whose .pth files count; roots: folders that this project's packages and cffi are in.
    """

    home: Path
    prefix: Path
    executable: Path
    includes: tuple[Path, ...]
    library: Path
    standard: tuple[Path, ...]
    sites: tuple[Path, ...]
    roots: tuple[Path, ...]

    @property
    def search_paths(self) -> tuple[Path, ...]:
        """What modules are searched in."""
        return tuple(dict.fromkeys((*self.standard, *self.roots, *self.sites)))


def this_interpreter() -> Interpreter:
    """The one that runs this.

    Raises:
        EmbedError: it has no headers, or no shared library that can be linked.
    """
    names = ("stdlib", "platstdlib")
    standard = [Path(sysconfig.get_path(name, vars=_base())) for name in names]
    if dynamic := sysconfig.get_config_var("DESTSHARED"):
        standard.append(Path(dynamic))
    return Interpreter(
        home=Path(sys.base_prefix),
        prefix=Path(sys.prefix),
        executable=Path(sys.executable),
        includes=_includes(),
        library=_library(),
        standard=tuple(dict.fromkeys(standard)),
        sites=tuple(Path(folder) for folder in _sites()),
        roots=tuple(dict.fromkeys(_root(module) for module in (mova_embed, mova_runtime, cffi))),
    )


def _base() -> dict[str, str]:
    """A virtual environment has no standard library of its own."""
    return {"base": sys.base_prefix, "platbase": sys.base_exec_prefix, "installed_base": sys.base_prefix}


def _root(package: ModuleType) -> Path:
    """The folder that a package is in."""
    return Path(str(package.__file__)).resolve().parents[1]


def _sites() -> Iterator[str]:
    yield from (folder for folder in site.getsitepackages() if Path(folder).is_dir())
    if site.ENABLE_USER_SITE and Path(site.getusersitepackages()).is_dir():
        yield site.getusersitepackages()


def _includes() -> tuple[Path, ...]:
    found = dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("include", "platinclude"))
    if not any((folder / "Python.h").is_file() for folder in found):
        raise EmbedError(
            f"Python's headers are not in {next(iter(found))} (no Python.h); install them, such as with "
            f"apt install python{_version()}-dev"
        )
    return tuple(found)


def _library() -> Path:
    """libpythonX.Y.so, where it is, whatever Python says about having one: distributions split it off."""
    variables = {name: sysconfig.get_config_var(name) or "" for name in ("LIBDIR", "LIBPL", "MULTIARCH", "INSTSONAME")}
    folder = Path(variables["LIBDIR"] or Path(sys.base_prefix) / "lib")
    folders = [folder, folder / variables["MULTIARCH"], Path(sys.base_prefix) / "lib"]
    named = f"libpython{_version()}{sys.abiflags}.so"
    names = [variables["INSTSONAME"]] if ".so" in variables["INSTSONAME"] else []
    for one in folders:
        for name in (*names, f"{named}.1.0", named):
            if (one / name).is_file():
                return one / name
    raise EmbedError(
        f"this Python ({sys.base_prefix}) has no shared {named}, only what can't be linked into a library; use one "
        f"that has: built with --enable-shared (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared), or the system's with "
        f"python{_version()}-dev"
    )


def _version() -> str:
    return sysconfig.get_python_version()
