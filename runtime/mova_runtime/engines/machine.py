"""What an engine's results depend on besides its bytes: the device, and what drives it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Literal

from mova_runtime.engines.nvidia import gpu

_INSTRUCTIONS = {
    "bf16": frozenset(("avx512_bf16", "amx_bf16", "bf16")),
    "fp16": frozenset(("avx512_fp16", "amx_fp16", "asimdhp")),
    "int8": frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")),
}
"""Any of them, as Linux names them on x86 and on ARM."""


def identity_of(device: Literal["cpu", "cuda"]) -> dict[str, str]:
    """`device` and `driver`, as words that change when either does."""
    if device == "cpu":
        return {"device": processor(), "driver": "none"}
    found = gpu()
    return {"device": f"{found.name} ({found.capability})", "driver": found.driver} if found else {"device": "no GPU"}


def multiplies(precision: str) -> bool:
    """Whether the processor has instructions for the matrix products of a precision: "fp32", "bf16", "fp16", "int8"."""
    return precision == "fp32" or bool(_INSTRUCTIONS[precision] & _flags())


@cache
def processor() -> str:
    """The processor's name, the instructions that decide how it multiplies, and its architecture."""
    values = _cpuinfo()
    name = values.get("model name") or values.get("Model") or platform.processor() or "unknown"
    telling = [flag for flag in _flags() if flag.startswith(("avx", "amx", "sve", "bf16", "i8mm", "asimd"))]
    return f"{name} ({platform.machine()}{': ' if telling else ''}{' '.join(sorted(telling))})"


@cache
def _flags() -> frozenset[str]:
    values = _cpuinfo()
    return frozenset(values.get("flags", values.get("Features", "")).split())


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
