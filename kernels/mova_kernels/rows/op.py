"""Kernels over rows as functions of tensors, and as operators `torch.ops.mova.*`.

All tensors are C-contiguous and on one device; "T" is bfloat16, float16 or float32. Each function raises KernelError
where an argument doesn't suit. On CUDA, and on the CPU under TRITON_INTERPRET=1, a kernel computes; else its reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mova_kernels.blocks import FLAT, power
from mova_kernels.checks import ACTIVATIONS, check_contiguous, check_device, check_dtype, check_shape
from mova_kernels.errors import KernelError
from mova_kernels.launches import by_kernel, launch
from mova_kernels.launches import reference as by_reference
from mova_kernels.rows import reference
from mova_kernels.rows.residual import embed, embed_, normalise

__all__ = ["bias_act", "bias_act_", "convert", "embed", "embed_", "layer_norm", "normalise", "swiglu"]


@torch.library.custom_op("mova::swiglu", mutates_args=())
def swiglu(hidden: Tensor, bias: Tensor, features: int) -> Tensor:
    """LayerNorm(silu(a + b₁)·(b + b₂)) without affine.

    Args:
        hidden: [rows, 2·padded] T: a and b side by side, each `features` columns and padding, whatever that holds.
        bias: [2·padded] float32, likewise.
        features: columns that count, at most padded.

    Returns:
        [rows, padded], zero past `features`; dtype of `hidden`.
    """
    check_device(hidden=hidden, bias=bias)
    check_contiguous(hidden=hidden, bias=bias)
    check_dtype("hidden", hidden, *ACTIVATIONS)
    check_dtype("bias", bias, torch.float32)
    rows, doubled = check_shape("hidden", hidden, rows=None, doubled=None)
    check_shape("bias", bias, doubled=doubled)
    if doubled % 2 or not 0 < features <= doubled // 2:
        raise KernelError(f"features: {features}, needed 1 to half of hidden's {doubled} columns")
    if not by_kernel(hidden):
        by_reference("swiglu")
        return reference.swiglu(hidden, bias, features)
    from mova_kernels.rows import kernel  # noqa: PLC0415  # needs Triton

    padded = doubled // 2
    out = hidden.new_empty(rows, padded)
    block = power(padded)
    launch(kernel.swiglu, (rows,), hidden, bias, out, F=features, FP=padded, BLOCK=block, num_warps=8)
    return out


@swiglu.register_fake
def _(hidden: Tensor, bias: Tensor, features: int) -> Tensor:
    return hidden.new_empty(hidden.shape[0], hidden.shape[1] // 2)


@torch.library.custom_op("mova::layer_norm", mutates_args=())
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, silu: bool = False) -> Tensor:
    """LayerNorm over channels, then SiLU if `silu`, then + residual.

    Args:
        x: [rows, channels] T.
        weight: [channels] float32.
        bias: [channels] float32.
        residual: like `x`.
        silu: whether the activation follows the norm.

    Returns:
        Shape and dtype of `x`.
    """
    added = x if residual is None else residual
    check_device(x=x, weight=weight, bias=bias, residual=added)
    check_contiguous(x=x, weight=weight, bias=bias, residual=added)
    check_dtype("x", x, *ACTIVATIONS)
    check_dtype("residual", added, x.dtype)
    rows, channels = check_shape("x", x, rows=None, channels=None)
    if not channels:
        raise KernelError(f"x: shape {list(x.shape)}, needed at least one channel")
    check_shape("residual", added, rows=rows, channels=channels)
    for name, vector in (("weight", weight), ("bias", bias)):
        check_dtype(name, vector, torch.float32)
        check_shape(name, vector, channels=channels)
    if not by_kernel(x):
        by_reference("layer_norm")
        return reference.layer_norm(x, weight, bias, residual, silu)
    from mova_kernels.rows import kernel  # noqa: PLC0415  # needs Triton

    out = torch.empty_like(x)
    constants = {"C": channels, "BLOCK_C": power(channels)}
    flags = {"SILU": silu, "RESIDUAL": residual is not None}
    launch(kernel.layer_norm, (rows,), x, weight, bias, added, out, **constants, **flags, num_warps=4)
    return out


@layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, silu: bool = False) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mova::bias_act", mutates_args=())
def bias_act(x: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """x + bias, through exact GELU if `gelu`: x [rows, columns] T, bias [columns] float32; shape and dtype of `x`."""
    out = torch.empty_like(x)
    _bias_act(x, bias, out, gelu)
    return out


@bias_act.register_fake
def _(x: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mova::bias_act_", mutates_args=("x",))
def bias_act_(x: Tensor, bias: Tensor, gelu: bool = False) -> None:
    """`bias_act` in place."""
    _bias_act(x, bias, x, gelu)


def convert(source: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 of any shape to T, rounded to nearest: the runtime's `Tensor.to`."""
    check_dtype("source", source, torch.float32)
    check_contiguous(source=source)
    check_device(source=source)
    target = torch.empty_like(source, dtype=dtype)
    check_dtype("target", target, *ACTIVATIONS)
    if not by_kernel(source):
        by_reference("convert")
        return target.copy_(reference.convert(source, dtype))
    from mova_kernels.rows import kernel  # noqa: PLC0415  # needs Triton

    block = 2 * FLAT
    launch(kernel.convert, (-(-source.numel() // block),), source, target, source.numel(), BLOCK=block, num_warps=4)
    return target


@bias_act_.register_fake
def _(x: Tensor, bias: Tensor, gelu: bool = False) -> None:
    return None


def _bias_act(x: Tensor, bias: Tensor, out: Tensor, gelu: bool) -> None:
    check_device(x=x, bias=bias)
    check_contiguous(x=x, bias=bias)
    check_dtype("x", x, *ACTIVATIONS)
    check_dtype("bias", bias, torch.float32)
    _, columns = check_shape("x", x, rows=None, columns=None)
    check_shape("bias", bias, columns=columns)
    if not by_kernel(x):
        by_reference("bias_act")
        out.copy_(reference.bias_act(x, bias, gelu))
        return
    from mova_kernels.rows import kernel  # noqa: PLC0415  # needs Triton

    grid = (-(-x.numel() // FLAT),)
    constants = {"COLUMNS": columns, "BLOCK": FLAT, "GELU": gelu}
    launch(kernel.bias_act, grid, x, bias, out, x.numel(), **constants, num_warps=4)
