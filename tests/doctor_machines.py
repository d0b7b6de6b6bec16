"""Machines that this one is made to look like, for `mova doctor`."""

from __future__ import annotations

from dataclasses import replace

from mova_export.doctor.libraries import KINDS, Library
from mova_export.doctor.machine import Disk, Machine
from mova_export.doctor.plan import Part
from mova_runtime.engines.nvidia import Gpu

GIB = 1 << 30
RTX = Gpu("NVIDIA RTX 4090", "sm_89", "580.65.06, CUDA 13.0")
ORIN = Gpu("Orin", "sm_87", "CUDA 12.6", shares_memory=True)
NAMES = ("base", "sam", "text", "adapter", "llm")

MACHINE = Machine(
    python="3.12.1",
    system="Linux x86_64",
    cores=8,
    processor="a processor",
    memory=32 * GIB,
    available=30 * GIB,
    instructions={"bf16": True, "fp16": False, "int8": True},
    disks=(Disk("bundle", "/bundle", 99 * GIB, True), Disk("cache", "/cache", 99 * GIB, True)),
)


def parts(by: str = "ort:fp32", **changes: object) -> tuple[Part, ...]:
    """Components of 1 GiB that take half as much in a run, all checked and measured."""
    part = Part("", ("fp32",), by, "", True, True, (GIB, 0), (GIB // 2, 0), (GIB, 0))
    return tuple(replace(part, component=name, **changes) for name in NAMES)


def libraries(*names: str, **troubles: str) -> dict[str, Library]:
    """Those that are installed, and those that are and can't be used."""
    found = {name: Library("1.0") for name in ("numpy", "pillow", "tokenizers", *names)}
    found |= {name.replace("_", "-"): Library("1.0", trouble=trouble) for name, trouble in troubles.items()}
    return {name: found.get(name, Library("")) for name in KINDS}
