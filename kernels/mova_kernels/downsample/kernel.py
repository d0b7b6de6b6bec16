"""Kernels of the adapter's end, on maps [B, G, G, C] with channels last; memory-bound, float32 inside.

`T` is the type of activations: bfloat16, float16 or float32. Blocks and ROWS are powers of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mova_kernels.rows.activation import silu
from mova_kernels.rows.norm import columns_inside, standardised
from mova_kernels.rows.tile import flat_tile


@triton.jit
def average(x, addend, base, out, count, C: tl.constexpr, BLOCK: tl.constexpr):
    """(x + addend + base) / 2. Grid (cdiv(count, BLOCK),).

    x, base: [N, C] float32; addend: [C] float32; out: [N, C] T; count = N·C.
    """
    _, column, element, inside = flat_tile(count, C, BLOCK)
    total = tl.load(x + element, mask=inside, other=0.0) + tl.load(base + element, mask=inside, other=0.0)
    tl.store(out + element, (0.5 * (total + tl.load(addend + column))).to(out.dtype.element_ty), mask=inside)


@triton.jit
def depthwise_norm(
    x,
    weight,
    norm_weight,
    norm_bias,
    out,
    sums,
    side,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ROWS: tl.constexpr,
):
    """3×3 depthwise convolution (padding 1), LayerNorm over channels, SiLU. Grid (S = cdiv(side², ROWS), B).

    x, out: [B, side, side, C] T; weight: [9, C] float32, taps row by row; norm_weight, norm_bias: [C] float32.
    sums: [B, S, C] float32, of what was stored in out, over each chunk of ROWS positions.
    """
    chunk = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    tokens = side * side
    token = chunk * ROWS + tl.arange(0, ROWS)[:, None]
    y = token // side
    z = token % side
    column = tl.arange(0, BLOCK_C)[None, :]
    columns = columns_inside(BLOCK_C, C)
    offset = (image * tokens + token) * C + column

    value = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for tap in tl.static_range(9):
        down = tap // 3 - 1
        right = tap % 3 - 1
        inside = (y + down >= 0) & (y + down < side) & (z + right >= 0) & (z + right < side)
        neighbour = tl.load(x + offset + (down * side + right) * C, mask=inside & columns, other=0.0)
        value += neighbour.to(tl.float32) * tl.load(weight + tap * C + column, mask=columns, other=0.0)

    value = standardised(value, columns, C)
    value *= tl.load(norm_weight + column, mask=columns, other=0.0)
    value = silu(value + tl.load(norm_bias + column, mask=columns, other=0.0))
    inside = token < tokens
    stored = value.to(out.dtype.element_ty)
    tl.store(out + offset, stored, mask=inside & columns)
    total = tl.sum(tl.where(inside, stored.to(tl.float32), 0.0), axis=0, keep_dims=True)
    tl.store(sums + (image * tl.num_programs(0) + chunk) * C + column, total, mask=columns)


@triton.jit
def excite(
    partial,
    bias1,
    weight2,
    bias2,
    out,
    SLICES: tl.constexpr,
    HID: tl.constexpr,
    C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """sigmoid(silu(Σ partial + bias1)·weight2 + bias2). Grid (cdiv(C, BLOCK_N), B).

    partial: [B, SLICES, HID] float32; bias1: [HID] float32; weight2: [HID, C] T, input by output; bias2: [C] float32.
    out: [B, C] float32.
    """
    image = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.load(bias2 + channel, mask=channel < C, other=0.0)
    for start in range(0, HID, BLOCK_H):
        unit = start + tl.arange(0, BLOCK_H)
        hidden = tl.load(bias1 + unit, mask=unit < HID, other=0.0)
        for part in range(SLICES):
            hidden += tl.load(partial + (image * SLICES + part) * HID + unit, mask=unit < HID, other=0.0)
        inside = (unit < HID)[:, None] & (channel < C)[None, :]
        weight = tl.load(weight2 + unit[:, None] * C + channel[None, :], mask=inside, other=0.0)
        total += tl.sum(silu(hidden)[:, None] * weight.to(tl.float32), axis=0)
    tl.store(out + image * C + channel, 1.0 / (1.0 + tl.exp(-total)), mask=channel < C)


@triton.jit
def scale_channels(x, scale, out, count, tokens, C: tl.constexpr, BLOCK: tl.constexpr):
    """x·scale. Grid (cdiv(count, BLOCK),).

    x, out: [B, tokens, C] T, may be the same; scale: [B, C] float32; count = B·tokens·C.
    """
    row, column, element, inside = flat_tile(count, C, BLOCK)
    factor = tl.load(scale + (row // tokens) * C + column, mask=inside, other=0.0)
    value = tl.load(x + element, mask=inside, other=0.0).to(tl.float32) * factor
    tl.store(out + element, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def pool(x, out, count, side, C: tl.constexpr, BLOCK: tl.constexpr):
    """2×2 average. Grid (cdiv(count, BLOCK),).

    x: [B, side, side, C] T, side even; out: [B, side/2, side/2, C] T; count: elements of out.
    """
    row, column, element, inside = flat_tile(count, C, BLOCK)
    half = side // 2
    # Rows of all images follow each other in both, twice as many in x.
    corner = x + (2 * side * (row // half) + 2 * (row % half)).to(tl.int64) * C + column
    total = tl.load(corner, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(corner + C, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(corner + side * C, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(corner + (side + 1) * C, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + element, (0.25 * total).to(out.dtype.element_ty), mask=inside)
