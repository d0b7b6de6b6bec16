"""What every norm here is made of."""

from __future__ import annotations

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-5)


@triton.jit
def columns_inside(BLOCK_C: tl.constexpr, C: tl.constexpr):
    """[1, BLOCK_C]: whether a column is one of C; known while compiling where the block has no others."""
    return tl.full([1, BLOCK_C], True, tl.int1) if BLOCK_C == C else tl.arange(0, BLOCK_C)[None, :] < C


@triton.jit
def standardised(value, inside, C: tl.constexpr):
    """(v - mean) / sqrt(variance + ε) over the second axis of [rows, columns]; `value` is 0 where not `inside`.

    The variance is taken from squared deviations, in a second pass over registers: E[v²] - E[v]² cancels.
    """
    mean = tl.sum(value, axis=1, keep_dims=True) / C
    deviation = tl.where(inside, value - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1, keep_dims=True) / C
    return deviation * tl.rsqrt(variance + EPSILON)
