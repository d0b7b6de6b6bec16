"""Attention of pairs as a torch operator: checks, allocation, and the kernel's launch or its reference."""

from __future__ import annotations

import torch
from torch import Tensor

from mova_kernels.checks import ACTIVATIONS, check_contiguous, check_device, check_dtype, check_shape
from mova_kernels.cross_attention.reference import attend_pairs
from mova_kernels.errors import KernelError
from mova_kernels.launches import by_kernel, launch, reference
from mova_kernels.tiling import tiles

LARGEST_GRID = 65535
"""Programs along a CUDA grid's second axis."""


@torch.library.custom_op("mova::cross_attention", mutates_args=())
def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cosine: Tensor,
    sine: Tensor,
    heads: int,
    bias: Tensor | None = None,
    pair_row: Tensor | None = None,
    rotate_keys: bool = False,
    moments: bool = True,
) -> tuple[Tensor, Tensor]:
    """softmax(rot(q + b)·kᵀ/√d)·v of every pair and head, and the result's moments.

    Args:
        query: [pairs, tokens, channels] T: bfloat16, float16 or float32; any strides with channels side by side.
        key: [pairs, keys, channels] T, likewise, keys ≥ 1; rotated already unless `rotate_keys`.
        value: like `key`, of its strides.
        cosine: [positions, channels/heads/2] float32, one entry an interleaved pair; positions ≥ tokens and keys.
        sine: likewise.
        heads: a divisor of channels; channels/heads is 16, 32 or 64, which the tiles are made for.
        bias: [rows, channels] float32, added to the query before rotation; or with `rotate_keys` [rows, 3·channels], to
            query, key and value.
        pair_row: [pairs] int32, each pair's row of `bias`.
        rotate_keys: rotate the key as the query is.
        moments: whether the second result is wanted.

    Returns:
        [pairs, tokens, channels] T; and [pairs, heads, tokens, 2] float32, mean of a head's channels in that result and
        sum of their squared deviations, or [0].

    Raises:
        KernelError: an argument's dtype, shape, strides or device doesn't suit.
    """
    _check(query, key, value, cosine, sine, heads, bias, pair_row, rotate_keys)
    if not by_kernel(query):
        reference("cross_attention")
        out, both = attend_pairs(query, key, value, cosine, sine, heads, bias, pair_row, rotate_keys)
        return out, both if moments else both.new_empty(0)
    from mova_kernels.cross_attention import kernel  # noqa: PLC0415  # needs Triton

    pairs, tokens, channels = query.shape
    keys = key.shape[1]
    out, both = _allocate(query, heads, moments)
    tile = tiles(query).self_attention if rotate_keys else tiles(query).attention
    if tokens % tile.m and (tokens <= tile.m // 2 or tokens % (tile.m // 2) == 0) and tile.m > 64:
        tile = tile.half()
    launch(
        kernel.cross_attention,
        (-(-tokens // tile.m), pairs * heads),
        query,
        key,
        value,
        out,
        both,
        cosine if bias is None else bias,
        pair_row,
        cosine,
        sine,
        tokens,
        keys,
        query.stride(0),
        query.stride(1),
        key.stride(0),
        key.stride(1),
        HEADS=heads,
        HEAD_DIM=channels // heads,
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BIASES=0 if bias is None else bias.shape[1] // channels,
        ROTATE_KEYS=rotate_keys,
        MOMENTS=moments,
        EVEN=tokens % tile.m == 0 and keys % tile.n == 0,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out, both


@cross_attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cosine: Tensor,
    sine: Tensor,
    heads: int,
    bias: Tensor | None = None,
    pair_row: Tensor | None = None,
    rotate_keys: bool = False,
    moments: bool = True,
) -> tuple[Tensor, Tensor]:
    return _allocate(query, heads, moments)


def _allocate(query: Tensor, heads: int, moments: bool) -> tuple[Tensor, Tensor]:
    pairs, tokens, _ = query.shape
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    return out, out.new_empty((pairs, heads, tokens, 2) if moments else (0,), dtype=torch.float32)


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cosine: Tensor,
    sine: Tensor,
    heads: int,
    bias: Tensor | None,
    pair_row: Tensor | None,
    rotate_keys: bool,
) -> None:
    given = {"bias": bias, "pair_row": pair_row}
    check_device(
        query=query,
        key=key,
        value=value,
        cosine=cosine,
        sine=sine,
        **{name: tensor for name, tensor in given.items() if tensor is not None},
    )
    check_dtype("query", query, *ACTIVATIONS)
    pairs, tokens, channels = check_shape("query", query, pairs=None, tokens=None, channels=None)
    keys = check_shape("key", key, pairs=pairs, keys=None, channels=channels)[1]
    check_shape("value", value, pairs=pairs, keys=keys, channels=channels)
    check_dtype("key", key, query.dtype)
    check_dtype("value", value, query.dtype)
    if keys == 0:
        raise KernelError(f"key: shape {list(key.shape)}, needed at least one key")
    width = channels // heads if heads > 0 and channels % heads == 0 else 0
    if width not in (16, 32, 64):
        raise KernelError(f"heads: {heads} of {channels} channels, needed heads of 16, 32 or 64 channels")
    if pairs * heads > LARGEST_GRID:
        raise KernelError(f"query: {pairs} pairs of {heads} heads, needed at most {LARGEST_GRID} together")
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.stride(2) != 1 or tensor.shape[1] * tensor.stride(1) >= 2**31:
            needed = "channels side by side and a pair within 2^31 elements"
            raise KernelError(f"{name}: strides {list(tensor.stride())}, needed {needed}")
    if value.stride() != key.stride():
        raise KernelError(f"value: strides {list(value.stride())}, needed {list(key.stride())}, as key")
    for name, table in (("cosine", cosine), ("sine", sine)):
        check_dtype(name, table, torch.float32)
        check_contiguous(**{name: table})
        if check_shape(name, table, positions=None, pairs=width // 2)[0] < max(tokens, keys):
            raise KernelError(f"{name}: {table.shape[0]} positions, needed {max(tokens, keys)}")
    if bias is not None:
        _check_bias(bias, pair_row, pairs, channels, rotate_keys)


def _check_bias(bias: Tensor, pair_row: Tensor | None, pairs: int, channels: int, rotate_keys: bool) -> None:
    check_dtype("bias", bias, torch.float32)
    check_contiguous(bias=bias)
    check_shape(
        "bias", bias, rows=None, channels=3 * channels if rotate_keys and bias.shape[-1] != channels else channels
    )
    if pair_row is None:
        raise KernelError(f"pair_row: None, needed [pairs={pairs}] int32 with bias")
    check_dtype("pair_row", pair_row, torch.int32)
    check_contiguous(pair_row=pair_row)
    check_shape("pair_row", pair_row, pairs=pairs)
