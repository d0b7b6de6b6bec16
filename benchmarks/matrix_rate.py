"""How fast this machine multiplies large matrices: what a tower's time is held against."""

from __future__ import annotations

import time

import torch

from mova_export.bench import rate

SIZE = 2048
RUNS = 8


def matrix_rates(threads: int) -> dict[str, float]:
    """Floating-point operations a second of a product of two square matrices, by library and precision."""
    torch.set_num_threads(threads)
    rates = {}
    for label, dtype in (("torch fp32", torch.float32), ("torch bf16", torch.bfloat16)):
        left, right = (torch.randn(SIZE, SIZE, generator=torch.manual_seed(0)).to(dtype) for _ in range(2))
        rates[label] = _rate(left, right)
    return {**rates, **rate.matrix_rates([("openvino", "fp32"), ("openvino", "bf16")], threads)}


def _rate(left: torch.Tensor, right: torch.Tensor) -> float:
    left @ right
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(times)
