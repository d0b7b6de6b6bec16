"""The TensorRT library of a flavour: which module it is, and which version, the latter without importing it."""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from mova_runtime.engines import installed
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle.engine import Flavour

FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")

EXTRA: dict[str, str] = {
    "tensorrt": "pip install tensorrt (extra `tensorrt`); on a Jetson it comes with JetPack",
    "tensorrt-rtx": "pip install tensorrt-rtx-cu13 (extra `tensorrt-rtx`)",
}
"""How to get a flavour's library."""

MODULES: dict[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_DISTRIBUTIONS: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}
"""What a flavour can be installed as: which CUDA it was made for is part of a distribution's name."""


def load(flavour: Flavour) -> Any:
    """The library's module.

    Raises:
        BackendError: it is not installed, or can't be imported.
    """
    name = _module(flavour)
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise BackendError(f"backend {flavour}: {name} is installed but can't be imported ({error})") from None


def version(flavour: Flavour) -> str:
    """The library's exact version, such as "1.7.1.116"; it is imported only where no package tells.

    Raises:
        BackendError: it is not installed.
    """
    _module(flavour)
    for distribution in _DISTRIBUTIONS[flavour]:
        if found := installed.version(distribution):
            return _numbers(found)
    return _numbers(str(load(flavour).__version__))


@cache
def _module(flavour: Flavour) -> str:
    if not installed.has_module(MODULES[flavour]):
        raise BackendError(f"backend {flavour}: not installed; {EXTRA[flavour]}")
    return MODULES[flavour]


def _numbers(version: str) -> str:
    # a repackaged release, such as 10.2.0.post1, has the same library in it
    found = re.match(r"\d+(\.\d+)*", version)
    return found[0] if found else version
