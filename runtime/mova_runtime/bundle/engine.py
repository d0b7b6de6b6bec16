"""What a built engine says about itself: `engines/<key>/engine.json`, beside the engine file.

Engines are built after the export, so the manifest doesn't know them; each folder is complete in itself, and is named
by the hash of everything the engine depends on.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from typing import Literal

from mova_runtime.bundle.manifest import File, Precision
from mova_runtime.bundle.schema import to_json

RECORD = "engine.json"

Flavour = Literal["tensorrt", "tensorrt-rtx"]

PLUGINS = "plugins-"
"""How the flag of an engine that holds our kernels begins."""


def this_platform() -> str:
    """This machine's, as a key has it."""
    return f"{platform.system().lower()}-{platform.machine()}"


@dataclass(frozen=True)
class Range:
    """An input's shapes in an optimisation profile: the least, the one to be fastest at, the greatest."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


@dataclass(frozen=True)
class EngineKey:
    """Everything an engine depends on.

    graph: sha256 over its source's files; version: the library's, exact; capability: the GPU's, such as "sm_89";
    platform: such as "linux-x86_64"; profile: range of each input; flags: of the builder, sorted.
    """

    component: str
    precision: Precision
    graph: str
    flavour: Flavour
    version: str
    capability: str
    platform: str
    profile: dict[str, Range]
    flags: tuple[str, ...]

    @property
    def has_plugins(self) -> bool:
        """Whether it holds our kernels."""
        return any(flag.startswith(PLUGINS) for flag in self.flags)

    @property
    def name(self) -> str:
        """The folder's name: 32 hexadecimal digits of the key's sha256."""
        canonical = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class EngineRecord:
    """An engine: its key, its file (relative to the bundle), and the seconds its build took."""

    key: EngineKey
    file: File
    seconds: float
