"""GPUs that engines are built for, by compute capability, and which TensorRT can build for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mova_export.errors import ExportError
from mova_runtime.bundle.engine import Flavour
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.abilities import RUNS
from mova_runtime.engines.nvidia import Gpu

BUILDS: tuple[Precision, ...] = RUNS["tensorrt"]
"""Precisions that TensorRT takes from a graph's types."""


@dataclass(frozen=True)
class Target:
    """A compute capability such as "sm_86", the GPUs that have it, and whether TensorRT-RTX builds for it."""

    capability: str
    devices: str
    rtx: bool = False

    def __str__(self) -> str:
        return f"{self.capability} ({self.devices})"

    @property
    def number(self) -> str:
        """ "86" of "sm_86": what comes after SM in TensorRT-RTX's names."""
        return self.capability.removeprefix("sm_")


TARGETS = {
    target.capability: target
    for target in (
        # TensorRT-RTX multiplies no float32 matrices on Turing, and every graph holds some: the gate's, or positions.
        Target("sm_75", "RTX 20, T4"),
        Target("sm_80", "A100", rtx=True),
        Target("sm_86", "RTX 30, A10", rtx=True),
        Target("sm_87", "Jetson Orin"),
        Target("sm_89", "RTX 40, L4", rtx=True),
        Target("sm_90", "H100, H200"),
        Target("sm_100", "B200"),
        Target("sm_110", "Jetson Thor"),
        Target("sm_120", "RTX 50", rtx=True),
        Target("sm_121", "GB10", rtx=True),
    )
}


def targets_for(flavour: Flavour, names: Sequence[str] | None, here: Gpu | None) -> tuple[Target, ...]:
    """The targets to build for, each once, in the order named.

    Args:
        flavour: TensorRT builds for the GPU of the machine it runs on, TensorRT-RTX for those it knows, without one.
        names: capabilities; None is the GPU of this machine.
        here: this machine's GPU.

    Raises:
        ExportError: a name is not known, the flavour can't build for it, or nothing was named and there is no GPU.
    """
    if unknown := [name for name in names or () if name not in TARGETS]:
        raise ExportError(f"unknown target {', '.join(unknown)}; known: {', '.join(map(str, TARGETS.values()))}")
    chosen = tuple(TARGETS[name] for name in dict.fromkeys(names or ()))
    if flavour == "tensorrt":
        return (_of_this_machine(chosen, here),)
    if not chosen and not here:
        raise ExportError(f"this machine has no NVIDIA GPU to build for; name --target, of {_rtx_names()}")
    if not chosen and here:
        chosen = (TARGETS.get(here.capability, Target(here.capability, here.name)),)
    for target in chosen:
        if not target.rtx:
            raise ExportError(
                f"{target}: no target of TensorRT-RTX, build with TensorRT on the device (--backend tensorrt); "
                f"TensorRT-RTX has {_rtx_names()}"
            )
    return chosen


def _of_this_machine(chosen: tuple[Target, ...], here: Gpu | None) -> Target:
    if not here:
        raise ExportError(
            "TensorRT builds on the GPU that it builds for, and this machine has none; run this command on the device, "
            "or build with --backend tensorrt-rtx, which needs no GPU"
        )
    own = TARGETS.get(here.capability, Target(here.capability, here.name))
    if others := [target for target in chosen if target != own]:
        raise ExportError(
            f"TensorRT builds for the GPU at hand, a {here.name} ({here.capability}), not for "
            f"{', '.join(map(str, others))}; run this command on that device"
        )
    return own


def _rtx_names() -> str:
    return ", ".join(str(target) for target in TARGETS.values() if target.rtx)
