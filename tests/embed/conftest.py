"""The library, built once a run; programs compiled against it; images that they can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from native_programs import Programs, build_library
from reference_data import IMAGES

Picture = Callable[[str], Path]


@pytest.fixture(scope="session")
def library(shared: Path) -> Path:
    """A folder with lib/ and include/."""
    return build_library(shared / "embed" / "libmova")


@pytest.fixture(scope="session")
def program(library: Path, shared: Path) -> Programs:
    """program("answer.c"): compiled and linked."""
    return Programs(library, shared / "embed" / "programs")


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """picture("chart"): one of the reference's images as a PPM file."""
    folder = tmp_path_factory.mktemp("pictures")

    def convert(name: str) -> Path:
        out = folder / f"{name}.ppm"
        if not out.exists():
            Image.open(IMAGES / f"{name}.png").convert("RGB").save(out)
        return out

    return convert


@pytest.fixture(scope="session")
def sanitized(shared: Path) -> Programs:
    """Like `program`, with the library's C and the programs under AddressSanitizer and UndefinedBehaviorSanitizer."""
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
    library = build_library(shared / "embed" / "sanitized", " ".join((*flags, "-g")))
    return Programs(library, shared / "embed" / "sanitized-programs", flags)
