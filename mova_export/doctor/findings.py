"""All that was found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mova_export.doctor.libraries import PACKAGES, USES, Library
from mova_export.doctor.machine import Machine
from mova_export.doctor.plan import Plan
from mova_export.doctor.room import Room, room
from mova_runtime.engines.abilities import BACKENDS
from mova_runtime.engines.nvidia import Gpu


@dataclass(frozen=True)
class Findings:
    """What `look` found.

    gpu: NVIDIA's first, None where CUDA shows none; gpu_memory: its bytes, 0 where that is not told; driver_trouble:
    why the driver could not be asked; abilities: by backend, the precisions that it would run here, or what it lacks;
    able: backends that run some; twice: onnxruntime is installed beside onnxruntime-gpu; missing: packages that
    exporting needs; system_tensorrt: where the system's Python has TensorRT, empty where it has none; bundle: its
    folder, empty without one; bundle_trouble: why it can't be opened; max_context: that requests are to have;
    precisions: of the bundle; damaged: its files that are missing or have another size; plan_trouble: why there is no
    plan.
    """

    machine: Machine
    libraries: dict[str, Library]
    gpu: Gpu | None = None
    gpu_memory: int = 0
    driver_trouble: str = ""
    abilities: dict[str, str] = field(default_factory=dict)
    able: tuple[str, ...] = ()
    twice: bool = False
    missing: tuple[str, ...] = ()
    system_tensorrt: str = ""
    bundle: str = ""
    bundle_trouble: str = ""
    max_context: int | None = None
    precisions: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    plan: Plan | None = None
    plan_trouble: str = ""

    @property
    def broken(self) -> dict[str, str]:
        """By name, what is installed and can't be used, and why."""
        return {name: one.trouble for name, one in self.libraries.items() if one.trouble}

    @property
    def unusable(self) -> tuple[str, ...]:
        """Backends whose libraries are installed and can't be used, and "driver" where that does not answer."""
        return unusable(self.libraries, self.driver_trouble)

    @property
    def room(self) -> Room | None:
        """Whether the bundle fits into memory."""
        shared = bool(self.gpu and self.gpu.shares_memory)
        return None if self.plan is None else room(self.plan, self.machine.available, self.gpu_memory, shared=shared)

    @property
    def runs(self) -> bool:
        """Whether the bundle, or without one anything, can run."""
        if self.bundle:
            fits = self.room is None or self.room.suffices_in_turn
            return self.plan is not None and self.plan.runs and fits and not self.damaged and not self._lacks_packages
        return bool(self.able) and not self._lacks_packages

    @property
    def _lacks_packages(self) -> bool:
        found = [self.libraries[name] for name in PACKAGES]
        return any(one.trouble or not one.installed for one in found)

    def to_json(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return {**asdict(self), "room": self.room and asdict(self.room), "runs": self.runs}


def unusable(libraries: dict[str, Library], driver_trouble: str) -> tuple[str, ...]:
    """See `Findings.unusable`."""
    broken = {name for name, one in libraries.items() if one.trouble}
    return (*(name for name in BACKENDS if broken & set(USES[name])), *(["driver"] if driver_trouble else []))
