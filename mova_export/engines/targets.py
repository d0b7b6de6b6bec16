"""GPUs that engines are built for, by compute capability, and which TensorRT can build for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mova_export.errors import ExportError
from mova_runtime.bundle.engine import Flavour
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.nvidia import Gpu

FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")

BUILDS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""Precisions that TensorRT takes from a graph's types."""


@dataclass(frozen=True)
class Target:
    """A compute capability such as "sm_86", the GPUs that have it, and the precisions TensorRT-RTX builds for it."""

    capability: str
    devices: str
    rtx: tuple[Precision, ...] = ()

    def __str__(self) -> str:
        return f"{self.capability} ({self.devices})"

    @property
    def number(self) -> str:
        """ "86" of "sm_86": what comes after SM in TensorRT-RTX's names."""
        return self.capability.removeprefix("sm_")


TARGETS = {
    target.capability: target
    for target in (
        # Turing multiplies no float32 matrices in TensorRT-RTX, and has no bfloat16.
        Target("sm_75", "RTX 20, T4", ("fp16",)),
        Target("sm_80", "A100", BUILDS),
        Target("sm_86", "RTX 30, A10", BUILDS),
        Target("sm_87", "Jetson Orin"),
        Target("sm_89", "RTX 40, L4", BUILDS),
        Target("sm_90", "H100, H200"),
        Target("sm_100", "B200"),
        Target("sm_110", "Jetson Thor"),
        Target("sm_120", "RTX 50", BUILDS),
        Target("sm_121", "GB10", BUILDS),
    )
}


def targets_for(
    flavour: Flavour, names: Sequence[str] | None, precision: Precision, here: Gpu | None
) -> tuple[Target, ...]:
    """The targets to build for, each once, in the order named.

    Args:
        flavour: TensorRT builds for the GPU of the machine it runs on, TensorRT-RTX for those it knows, without one.
        names: capabilities; None is the GPU of this machine.
        precision: of the engines.
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
        raise ExportError(f"this machine has no NVIDIA GPU to build for; name --target, of {_rtx_names(precision)}")
    if not chosen and here:
        chosen = (TARGETS.get(here.capability, Target(here.capability, here.name)),)
    for target in chosen:
        if precision not in target.rtx:
            raise ExportError(_refusal(target, precision))
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


def _refusal(target: Target, precision: Precision) -> str:
    if target.rtx:
        return f"TensorRT-RTX builds {', '.join(target.rtx)} for {target}, not {precision}"
    return (
        f"{target}: no target of TensorRT-RTX, build with TensorRT on the device (--backend tensorrt); "
        f"TensorRT-RTX has {_rtx_names(precision)}"
    )


def _rtx_names(precision: Precision) -> str:
    return ", ".join(str(target) for target in TARGETS.values() if precision in target.rtx)
