"""The machine: system, processor and what it multiplies, memory, room on disks."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from mova_export.bench.facts import available_memory, cores
from mova_runtime.cache_folder import cache_folder
from mova_runtime.engines.machine import multiplies, processor

_MEANT = {
    "bf16": "OpenVINO computes in bf16, in about half of float32's time and memory",
    "fp16": "OpenVINO computes in fp16",
    "int8": "weights of 8 and 4 bits are multiplied as they are",
}


@dataclass(frozen=True)
class Disk:
    """A folder that matters: what for, its place, bytes free, and whether it can be written."""

    what: str
    path: str
    free: int
    writable: bool


@dataclass(frozen=True)
class Machine:
    """What needs no library to find out.

    cores: that this process may use; memory, available: bytes, 0 where the system does not tell; instructions: by
    "bf16", "fp16" and "int8", whether the processor multiplies them.
    """

    python: str
    system: str
    cores: int
    processor: str
    memory: int
    available: int
    instructions: dict[str, bool]
    disks: tuple[Disk, ...]

    def meaning(self) -> list[str]:
        """A line for each kind of arithmetic: whether it is there, and what that is good for."""
        return [f"{name}: {'yes, ' + why if self.instructions[name] else 'no'}" for name, why in _MEANT.items()]


def machine(bundle: Path | None = None) -> Machine:
    """This one, with the disks of a bundle, or of the current folder, and of the cache folder."""
    shown = [("bundle", bundle)] if bundle else [("current folder", Path())]
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=cores(),
        processor=processor(),
        memory=_memory(),
        available=available_memory(),
        instructions={name: multiplies(name) for name in _MEANT},
        disks=tuple(_disk(what, path) for what, path in (*shown, ("cache", cache_folder()))),
    )


def _disk(what: str, path: Path) -> Disk:
    """Of a folder that need not be there yet: then it is its nearest parent that counts."""
    there = path.absolute()
    while not there.is_dir() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        free = 0
    return Disk(what, str(path.absolute()), free, os.access(there, os.W_OK))


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
