"""Memory as torch tensors: for stand-ins that compute where an address says."""

from __future__ import annotations

import ctypes

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "i32": torch.int32, "i64": torch.int64}
"""By Triton's name."""


def tensor_at(address: int, of: str, count: int) -> torch.Tensor:
    """`count` numbers from an address on, without a copy."""
    dtype = DTYPES[of]
    return torch.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype=dtype)
