"""The kernels with the arguments that TensorRT passes to a plugin: inputs, whole numbers, outputs, in this order.

Contiguous tensors only. A grid has at least one block in each direction, so a launch for no pairs does nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mova_kernels.combine import kernel as _combine
from mova_kernels.cross_attention import kernel as _cross_attention
from mova_kernels.gate import kernel as _gate

_attend = _cross_attention.cross_attention
_sum = _combine.combine
_partial = _gate.gate_partial
_weigh = _gate.gate_weights


@triton.jit
def attention_plugin(
    query,
    key,
    value,
    bias,
    pair_row,
    cosine,
    sine,
    pairs,
    tokens,
    keys,
    out,
    moments,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BIASES: tl.constexpr,
    ROTATE_KEYS: tl.constexpr,
    MOMENTS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """`cross_attention` of contiguous queries, keys and values."""
    row = HEADS * HEAD_DIM
    if tl.program_id(1) < pairs * HEADS:
        _attend(
            query,
            key,
            value,
            out,
            moments,
            bias,
            pair_row,
            cosine,
            sine,
            tokens,
            keys,
            tokens * row,
            row,
            keys * row,
            row,
            HEADS,
            HEAD_DIM,
            BLOCK_M,
            BLOCK_N,
            BIASES,
            ROTATE_KEYS,
            MOMENTS,
            EVEN,
        )


@triton.jit
def combine_plugin(
    attended,
    moments,
    weight,
    column_sums,
    bias,
    gates,
    pair_image,
    pair_expert,
    x,
    pairs,
    tokens,
    gate_row,
    out,
    C: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,
):
    """`combine` into an output of its own: each program copies its tile of x there, and adds to that."""
    COLUMN_BLOCKS: tl.constexpr = (C + BLOCK_N - 1) // BLOCK_N
    row = tl.program_id(0) // COLUMN_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    column = tl.program_id(0) % COLUMN_BLOCKS * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    offset = (tl.program_id(1).to(tl.int64) * tokens + row) * C + column
    inside = (row < tokens) & (column < C)
    tl.store(out + offset, tl.load(x + offset, mask=inside), mask=inside)
    tl.debug_barrier()  # what one thread stored, another reads
    _sum(
        attended,
        moments,
        weight,
        column_sums,
        bias,
        gates,
        pair_image,
        pair_expert,
        out,
        pairs,
        tokens,
        gate_row,
        C,
        HEADS,
        BLOCK_HEADS,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
        EVEN,
    )


@triton.jit
def gate_partial_plugin(
    rows,
    text,
    weight,
    count,
    partial,
    CT: tl.constexpr,
    C: tl.constexpr,
    HID: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """`gate_partial` of the mean of `count` rows."""
    _partial(rows, text, weight, partial, count, 1.0 / count, CT, C, HID, BLOCK_K, BLOCK_R, BLOCK_H)


@triton.jit
def gate_weights_plugin(
    partial,
    bias1,
    weight2,
    bias2,
    selected,
    out,
    SLICES: tl.constexpr,
    HID: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """`gate_weights`."""
    _weigh(partial, bias1, weight2, bias2, selected, out, SLICES, HID, EXPERTS, TOP_K, BLOCK_H, BLOCK_E)
