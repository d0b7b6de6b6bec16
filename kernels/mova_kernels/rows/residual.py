"""The residual stream between matrix products: add, normalise, sum over tokens in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from mova_kernels.blocks import ROWS, power
from mova_kernels.checks import ACTIVATIONS, check_contiguous, check_device, check_dtype, check_shape
from mova_kernels.errors import KernelError
from mova_kernels.launches import by_kernel, launch
from mova_kernels.launches import reference as by_reference
from mova_kernels.rows import reference


@torch.library.custom_op("mova::normalise", mutates_args=())
def normalise(source: Tensor, dtype: torch.dtype) -> Tensor:
    """LayerNorm without affine of [batch, tokens, channels] float32: the same shape, of `dtype`, which is T."""
    _check(source, dtype)
    if not by_kernel(source):
        by_reference("normalise")
        return reference.normalise(source, dtype)
    normal = torch.empty_like(source, dtype=dtype)
    _launch(source, None, source, normal, None)
    return normal


@normalise.register_fake
def _(source: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(source, dtype=dtype)


@torch.library.custom_op("mova::embed", mutates_args=())
def embed(source: Tensor, addend: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Residual, LayerNorm and sums over tokens in one pass.

    Args:
        source: [batch, tokens, channels] float32.
        addend: [rows, channels] float32, added to token t: row t % rows.
        dtype: T.

    Returns:
        x = source + addend, float32; LayerNorm(x) without affine, of `dtype`; sums of x over chunks of `ROWS` tokens,
        [batch, cdiv(tokens, ROWS), channels] float32.
    """
    _check_sum(source, addend, dtype)
    if not by_kernel(source):
        by_reference("normalise")
        return reference.embed(source, addend, dtype, ROWS)
    x, normal, sums = torch.empty_like(source), torch.empty_like(source, dtype=dtype), _sums(source)
    _launch(source, addend, x, normal, sums)
    return x, normal, sums


@embed.register_fake
def _(source: Tensor, addend: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(source), torch.empty_like(source, dtype=dtype), _sums(source)


@torch.library.custom_op("mova::embed_", mutates_args=("x",))
def embed_(x: Tensor, addend: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`embed` with x in place of source: x becomes the sum; returns its LayerNorm and its partial sums."""
    _check_sum(x, addend, dtype)
    if not by_kernel(x):
        by_reference("normalise")
        total, normal, sums = reference.embed(x, addend, dtype, ROWS)
        x.copy_(total)
        return normal, sums
    normal, sums = torch.empty_like(x, dtype=dtype), _sums(x)
    _launch(x, addend, x, normal, sums)
    return normal, sums


@embed_.register_fake
def _(x: Tensor, addend: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=dtype), _sums(x)


def _sums(x: Tensor) -> Tensor:
    batch, tokens, channels = x.shape
    return x.new_empty(batch, -(-tokens // ROWS), channels, dtype=torch.float32)


def _check(source: Tensor, dtype: torch.dtype) -> tuple[int, ...]:
    check_device(source=source)
    check_contiguous(source=source)
    check_dtype("source", source, torch.float32)
    if dtype not in ACTIVATIONS:
        raise KernelError(f"dtype: {dtype}, needed one of {', '.join(map(str, ACTIVATIONS))}")
    batch, tokens, channels = check_shape("source", source, batch=None, tokens=None, channels=None)
    if not channels:
        raise KernelError(f"source: shape {list(source.shape)}, needed at least one channel")
    return batch, tokens, channels


def _check_sum(source: Tensor, addend: Tensor, dtype: torch.dtype) -> None:
    *_, channels = _check(source, dtype)
    check_device(source=source, addend=addend)
    check_contiguous(addend=addend)
    check_dtype("addend", addend, torch.float32)
    rows, _ = check_shape("addend", addend, rows=None, channels=channels)
    if not rows:
        raise KernelError(f"addend: shape {list(addend.shape)}, needed at least one row")


def _launch(source: Tensor, addend: Tensor | None, x: Tensor, normal: Tensor, sums: Tensor | None) -> None:
    from mova_kernels.rows import kernel  # noqa: PLC0415  # needs Triton

    batch, tokens, channels = source.shape
    unused = source
    launch(
        kernel.normalise,
        (-(-tokens // ROWS), batch),
        source,
        unused if addend is None else addend,
        x,
        normal,
        unused if sums is None else sums,
        tokens,
        1 if addend is None else addend.shape[0],
        C=channels,
        BLOCK_C=power(channels),
        ROWS=ROWS,
        ADD=addend is not None,
        SUMS=sums is not None,
        num_warps=8,
    )
