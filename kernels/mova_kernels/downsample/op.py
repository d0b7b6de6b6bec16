"""The kernels of the adapter's end as functions of tensors, and as operators `torch.ops.mova.*`.

All tensors are C-contiguous and on one device; "T" is bfloat16, float16 or float32. Each function raises KernelError
where an argument doesn't suit. On CUDA, and on the CPU under TRITON_INTERPRET=1, a kernel computes; else its reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mova_kernels.blocks import FLAT, ROWS, power
from mova_kernels.checks import ACTIVATIONS, check_contiguous, check_device, check_dtype, check_shape
from mova_kernels.downsample import reference
from mova_kernels.errors import KernelError
from mova_kernels.launches import by_kernel, launch
from mova_kernels.launches import reference as by_reference

EXCITE_BLOCK = 64
"""Of both axes of `excite`'s matrix."""


@torch.library.custom_op("mova::average", mutates_args=())
def average(x: Tensor, addend: Tensor, base: Tensor, dtype: torch.dtype) -> Tensor:
    """(x + addend + base) / 2 of `dtype`, which is T; x, base [rows, channels] float32, addend [channels] float32."""
    check_device(x=x, addend=addend, base=base)
    check_contiguous(x=x, addend=addend, base=base)
    rows, channels = check_shape("x", x, rows=None, channels=None)
    check_shape("addend", addend, channels=channels)
    check_shape("base", base, rows=rows, channels=channels)
    for name, tensor in (("x", x), ("addend", addend), ("base", base)):
        check_dtype(name, tensor, torch.float32)
    if dtype not in ACTIVATIONS:
        raise KernelError(f"dtype: {dtype}, needed one of {', '.join(map(str, ACTIVATIONS))}")
    if not by_kernel(x):
        by_reference("average")
        return reference.average(x, addend, base, dtype)
    from mova_kernels.downsample import kernel  # noqa: PLC0415  # needs Triton

    out = torch.empty_like(x, dtype=dtype)
    _launch_flat(kernel.average, x, addend, base, out, count=out.numel(), channels=channels)
    return out


@average.register_fake
def _(x: Tensor, addend: Tensor, base: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=dtype)


@torch.library.custom_op("mova::depthwise_norm", mutates_args=())
def depthwise_norm(x: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> tuple[Tensor, Tensor]:
    """3×3 depthwise convolution (padding 1), LayerNorm over channels, SiLU.

    Args:
        x: [batch, side, side, channels] T.
        weight: [9, channels] float32, taps row by row.
        norm_weight: [channels] float32.
        norm_bias: [channels] float32.

    Returns:
        The map, shape and dtype of `x`; float32 sums of it over chunks of `ROWS` positions,
        [batch, cdiv(side², ROWS), channels].
    """
    tensors = {"x": x, "weight": weight, "norm_weight": norm_weight, "norm_bias": norm_bias}
    check_device(**tensors)
    check_contiguous(**tensors)
    check_dtype("x", x, *ACTIVATIONS)
    batch, side, channels = _check_map(x)
    check_shape("weight", weight, taps=9, channels=channels)
    check_shape("norm_weight", norm_weight, channels=channels)
    check_shape("norm_bias", norm_bias, channels=channels)
    for name in ("weight", "norm_weight", "norm_bias"):
        check_dtype(name, tensors[name], torch.float32)
    if not by_kernel(x):
        by_reference("depthwise_norm")
        return reference.depthwise_norm(x, weight, norm_weight, norm_bias, ROWS)
    from mova_kernels.downsample import kernel  # noqa: PLC0415  # needs Triton

    out, sums = torch.empty_like(x), _sums(x)
    constants = {"C": channels, "BLOCK_C": power(channels), "ROWS": ROWS}
    grid = (sums.shape[1], batch)
    launch(kernel.depthwise_norm, grid, x, weight, norm_weight, norm_bias, out, sums, side, **constants, num_warps=8)
    return out, sums


@depthwise_norm.register_fake
def _(x: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _sums(x)


@torch.library.custom_op("mova::excite", mutates_args=())
def excite(partial: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """sigmoid(silu(Σ partial + bias1)·weight2 + bias2): scales of squeeze-and-excitation.

    Args:
        partial: [batch, slices, squeezed] float32; their sum is the first layer's product with the map's means.
        bias1: [squeezed] float32.
        weight2: [squeezed, channels] T, input by output.
        bias2: [channels] float32.

    Returns:
        [batch, channels] float32.
    """
    tensors = {"partial": partial, "bias1": bias1, "weight2": weight2, "bias2": bias2}
    check_device(**tensors)
    check_contiguous(**tensors)
    batch, slices, squeezed = check_shape("partial", partial, batch=None, slices=None, squeezed=None)
    _, channels = check_shape("weight2", weight2, squeezed=squeezed, channels=None)
    check_shape("bias1", bias1, squeezed=squeezed)
    check_shape("bias2", bias2, channels=channels)
    check_dtype("weight2", weight2, *ACTIVATIONS)
    for name in ("partial", "bias1", "bias2"):
        check_dtype(name, tensors[name], torch.float32)
    if not by_kernel(partial):
        by_reference("excite")
        return reference.excite(partial, bias1, weight2, bias2)
    from mova_kernels.downsample import kernel  # noqa: PLC0415  # needs Triton

    out = partial.new_empty(batch, channels)
    sizes = {"SLICES": slices, "HID": squeezed, "C": channels}
    grid = (-(-channels // EXCITE_BLOCK), batch)
    blocks = {"BLOCK_H": EXCITE_BLOCK, "BLOCK_N": EXCITE_BLOCK}
    launch(kernel.excite, grid, partial, bias1, weight2, bias2, out, **sizes, **blocks, num_warps=4)
    return out


@excite.register_fake
def _(partial: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    return partial.new_empty(partial.shape[0], weight2.shape[1])


@torch.library.custom_op("mova::scale_channels", mutates_args=())
def scale_channels(x: Tensor, scale: Tensor) -> Tensor:
    """[batch, tokens, channels] T times [batch, channels] float32; shape and dtype of `x`."""
    check_device(x=x, scale=scale)
    check_contiguous(x=x, scale=scale)
    check_dtype("x", x, *ACTIVATIONS)
    check_dtype("scale", scale, torch.float32)
    batch, tokens, channels = check_shape("x", x, batch=None, tokens=None, channels=None)
    check_shape("scale", scale, batch=batch, channels=channels)
    if not by_kernel(x):
        by_reference("scale_channels")
        return reference.scale_channels(x, scale)
    from mova_kernels.downsample import kernel  # noqa: PLC0415  # needs Triton

    out = torch.empty_like(x)
    _launch_flat(kernel.scale_channels, x, scale, out, count=out.numel(), more=(tokens,), channels=channels)
    return out


@scale_channels.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mova::pool", mutates_args=())
def pool(x: Tensor) -> Tensor:
    """2×2 averages of [batch, side, side, channels] T, side even: [batch, side/2, side/2, channels], dtype of `x`."""
    check_device(x=x)
    check_contiguous(x=x)
    check_dtype("x", x, *ACTIVATIONS)
    batch, side, channels = _check_map(x)
    if side % 2:
        raise KernelError(f"x: side {side}, needed an even one")
    if not by_kernel(x):
        by_reference("pool")
        return reference.pool(x)
    from mova_kernels.downsample import kernel  # noqa: PLC0415  # needs Triton

    out = x.new_empty(batch, side // 2, side // 2, channels)
    _launch_flat(kernel.pool, x, out, count=out.numel(), more=(side,), channels=channels)
    return out


@pool.register_fake
def _(x: Tensor) -> Tensor:
    batch, side, _, channels = x.shape
    return x.new_empty(batch, side // 2, side // 2, channels)


def _check_map(x: Tensor) -> tuple[int, int, int]:
    batch, side, _, channels = check_shape("x", x, batch=None, side=None, side_again=None, channels=None)
    check_shape("x", x, batch=batch, side=side, side_again=side, channels=channels or 1)
    return batch, side, channels


def _sums(x: Tensor) -> Tensor:
    batch, side, _, channels = x.shape
    return x.new_empty(batch, -(-side * side // ROWS), channels, dtype=torch.float32)


def _launch_flat(kernel: Any, *tensors: Tensor, count: int, channels: int, more: tuple[int, ...] = ()) -> None:
    grid = (-(-count // FLAT),)
    launch(kernel, grid, *tensors, count, *more, C=channels, BLOCK=FLAT, num_warps=4)
