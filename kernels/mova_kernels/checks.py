"""Checks of tensors that host functions share; each raises a `KernelError` of one line."""

from __future__ import annotations

import torch
from torch import Tensor

from mova_kernels.errors import KernelError

ACTIVATIONS = (torch.float16, torch.bfloat16, torch.float32)
"""What activations and matrices may be."""


def check_dtype(name: str, tensor: Tensor, *allowed: torch.dtype) -> None:
    """The tensor's dtype is one of those allowed."""
    if tensor.dtype not in allowed:
        raise KernelError(f"{name}: dtype {_short(tensor.dtype)}, needed {' or '.join(_short(one) for one in allowed)}")


def check_shape(name: str, tensor: Tensor, **axes: int | None) -> tuple[int, ...]:
    """The tensor's sizes are those of the named axes, in order; None is any size. Returns them all."""
    sizes, wanted = tuple(tensor.shape), tuple(axes.values())
    if len(sizes) != len(wanted) or any(want not in (None, size) for want, size in zip(wanted, sizes, strict=True)):
        needed = ", ".join(axis if want is None else f"{axis}={want}" for axis, want in axes.items())
        raise KernelError(f"{name}: shape {list(sizes)}, needed [{needed}]")
    return sizes


def check_contiguous(**tensors: Tensor) -> None:
    """Every tensor is C-contiguous."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise KernelError(f"{name}: strides {list(tensor.stride())}, needed contiguous; pass {name}.contiguous()")


def check_device(**tensors: Tensor) -> None:
    """Every tensor is on the CPU, or all are on one CUDA device."""
    (first, tensor), *_ = tensors.items()
    if tensor.device.type not in ("cpu", "cuda"):
        raise KernelError(f"{first}: device {tensor.device}, needed cuda or cpu")
    for name, other in tensors.items():
        if other.device != tensor.device:
            raise KernelError(f"{name}: device {other.device}, needed {tensor.device}, as {first}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
