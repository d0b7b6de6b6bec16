"""The pairs' LayerNorm, projection and gate weights, and their sum into the image's tokens, in one launch.

LayerNorm and projection change places: with n(a) = (a - mean)/σ, and the norm's scale and shift folded into weight and
bias, n(a)·Wᵀ = (a·Wᵀ - mean·Σ W)/σ. The product reads what attention stored, and no normalised copy is written.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mova_kernels.dot import dot

EPSILON = tl.constexpr(1e-5)
"""As in the reference."""


@triton.jit
def merged(moments, row, inside, tokens, C: tl.constexpr, HEADS: tl.constexpr, BLOCK_HEADS: tl.constexpr):
    """Mean and 1/σ over all channels of each row, from those of its heads (Chan, Golub, LeVeque, 1983).

    moments: of the pair, [HEADS, tokens, 2]; row, inside: [rows]. Rows that are not inside give 0 and 1/√ε.
    """
    HEAD_DIM: tl.constexpr = C // HEADS
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    there = (head < HEADS) & inside[None, :]
    both = (head * tokens + row[None, :])[:, :, None] * 2 + tl.arange(0, 2)[None, None, :]
    means, squares = tl.split(tl.load(moments + both, mask=there[:, :, None], other=0.0))
    mean = tl.sum(means, axis=0) / HEADS
    apart = tl.where(there, means - mean[None, :], 0.0)
    square = tl.sum(squares + HEAD_DIM * apart * apart, axis=0)
    return mean, tl.rsqrt(square / C + EPSILON)


@triton.jit
def combine(
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
    C: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,
):
    """x += Σ gate·(n(attended)·weightᵀ + bias) over an image's pairs.

    Grid (cdiv(tokens, BLOCK_M)·cdiv(C, BLOCK_N), images).

    attended: [pairs, tokens, C] T. moments: [pairs, HEADS, tokens, 2] float32, of its heads. weight: [experts, C, C] T,
    output by input. column_sums: [experts, C] float32, Σ over inputs of weight as stored. bias: [experts, C] float32.
    gates: [images, gate_row] float32, by expert; what weighs 0 is not read. pair_image, pair_expert: [pairs] int32. x:
    [images, tokens, C] float32. BLOCK_HEADS: a power of two, at least HEADS. EVEN: BLOCK_M divides tokens.
    """
    COLUMN_BLOCKS: tl.constexpr = (C + BLOCK_N - 1) // BLOCK_N
    image = tl.program_id(1)
    row = tl.program_id(0) // COLUMN_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) % COLUMN_BLOCKS * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    inside = row < tokens
    there = column < C
    pair_tokens = tl.cast(tokens, tl.int64)
    a_offset = row[:, None] * C + inner[None, :]
    w_offset = column[:, None] * C + inner[None, :]

    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    found = 0
    for pair in range(pairs):
        if tl.load(pair_image + pair) == image:
            expert = tl.load(pair_expert + pair)
            gate = tl.load(gates + image.to(tl.int64) * gate_row + expert)
            if gate != 0.0:
                found = 1
                head_moments = moments + pair * pair_tokens * (2 * HEADS)
                mean, inverse = merged(head_moments, row, inside, tokens, C, HEADS, BLOCK_HEADS)
                a_rows = attended + pair * pair_tokens * C
                w_rows = weight + expert.to(tl.int64) * (C * C)
                product = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
                for first in range(0, C, BLOCK_K):
                    inside_k = inner < C - first
                    if EVEN and C % BLOCK_K == 0:
                        a = tl.load(a_rows + first + a_offset)
                    else:
                        a = tl.load(a_rows + first + a_offset, mask=inside[:, None] & inside_k[None, :], other=0.0)
                    if C % BLOCK_N == 0 and C % BLOCK_K == 0:
                        w = tl.load(w_rows + first + w_offset)
                    else:
                        w = tl.load(w_rows + first + w_offset, mask=there[:, None] & inside_k[None, :], other=0.0)
                    product = dot(a, tl.trans(w), product)
                column_sum = tl.load(column_sums + expert * C + column, mask=there, other=0.0)
                shift = tl.load(bias + expert * C + column, mask=there, other=0.0)
                sums += (gate * inverse)[:, None] * (product - mean[:, None] * column_sum[None, :])
                sums += gate * shift[None, :]

    if found > 0:
        offset = image.to(tl.int64) * tokens * C + row[:, None] * C + column[None, :]
        if EVEN and C % BLOCK_N == 0:
            tl.store(x + offset, tl.load(x + offset) + sums)
        else:
            both = inside[:, None] & there[None, :]
            tl.store(x + offset, tl.load(x + offset, mask=both, other=0.0) + sums, mask=both)
