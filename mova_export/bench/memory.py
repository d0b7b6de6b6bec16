"""The memory that loading and running takes in a process that does nothing else."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mova_export.bench.facts import process_memory
from mova_runtime.engines.protocol import GpuMemory
from mova_runtime.engines.release import release
from mova_runtime.errors import BackendError

_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Level:
    """Bytes of the host's memory that this process holds, mapped files included; of the GPU's what anybody uses."""

    host: int
    device: int | None

    def beyond(self, before: Level) -> Level:
        """What came since."""
        device = None if self.device is None or before.device is None else max(0, self.device - before.device)
        return Level(max(0, self.host - before.host), device)


def now(gpu: GpuMemory | None) -> Level:
    """What is held between two runs: what was freed is given back first."""
    release()
    return Level(_bytes("VmRSS"), _used(gpu))


def peak(gpu: GpuMemory | None) -> Level:
    """The most that the host's ever was; the GPU's as it is, for engines keep what a run took."""
    return Level(_bytes("VmHWM"), _used(gpu))


def forget_peak() -> None:
    """Let the peak begin now; where the system does not let us, it stays what it was."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")


def _bytes(field: str) -> int:
    return int(process_memory(field) * 2**20)


def _used(gpu: GpuMemory | None) -> int | None:
    if gpu is None:
        return None
    with contextlib.suppress(BackendError):
        return gpu.used()
    return None
