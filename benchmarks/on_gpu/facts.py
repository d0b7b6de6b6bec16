"""What a GPU's numbers depend on, and the two rates that bound them, measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import triton

from mova_export.bench.facts import facts
from mova_runtime.engines.installed import version
from mova_runtime.engines.nvidia import gpu
from on_gpu.clock import measure

PACKAGES = ("triton", "cuda-core", "cuda-bindings", "nvmath-python", "onnxruntime-gpu", "nvidia-cudnn-cu13")
SIDE = 8192
COPIED = 1 << 31


def describe(threads: int) -> dict[str, Any]:
    """Machine, GPU, driver, versions, commit."""
    found = facts(threads) | {"precision": "bfloat16"}
    found["versions"] |= {name: version(name) or "not installed" for name in PACKAGES} | {"triton": triton.__version__}
    found["versions"]["torch"] = torch.__version__
    if here := gpu():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            **asdict(here),
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "l2_mib": round(properties.L2_cache_size / 2**20, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def ceilings(draw: Callable[..., torch.Tensor], repeats: int) -> dict[str, float]:
    """Bytes per second of a copy, read and written; operations per second of a large bfloat16 product."""
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    a, b = (draw(SIDE, SIDE, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    times = measure({"copy": lambda _: target.copy_(source), "product": lambda _: torch.mm(a, b, out=out)}, 1, repeats)
    return {
        "bytes_per_second": 2 * COPIED / times["copy"].seconds.median,
        "bf16_operations_per_second": 2 * SIDE**3 / times["product"].seconds.median,
    }
