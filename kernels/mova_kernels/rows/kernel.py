"""Kernels over rows of channels; memory-bound: one pass over memory, float32 inside.

`T` is the type of activations: bfloat16, float16 or float32. Blocks and ROWS are powers of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mova_kernels.rows.activation import gelu, silu
from mova_kernels.rows.norm import columns_inside, standardised
from mova_kernels.rows.tile import flat_tile


@triton.jit
def normalise(
    source,
    addend,
    x,
    normal,
    sums,
    tokens,
    addend_rows,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ROWS: tl.constexpr,
    ADD: tl.constexpr,
    SUMS: tl.constexpr,
):
    """v = source (+ addend); x = v; normal = LayerNorm(v) without affine; sums of v. Grid (S = cdiv(tokens, ROWS), B).

    source, x: [B, tokens, C] float32, may be the same; x is written if ADD. addend: [addend_rows, C] float32, token t
    gets row t % addend_rows. normal: [B, tokens, C] T. sums: [B, S, C] float32, each chunk's sum over ROWS tokens.
    """
    chunk = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    token = chunk * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK_C)[None, :]
    columns = columns_inside(BLOCK_C, C)
    inside = (token < tokens) & columns
    offset = (image * tokens + token) * C + column

    value = tl.load(source + offset, mask=inside, other=0.0)
    if ADD:
        value += tl.load(addend + (token % addend_rows) * C + column, mask=inside, other=0.0)
    tl.store(normal + offset, standardised(value, columns, C).to(normal.dtype.element_ty), mask=inside)
    if ADD:
        # After the norm: threads may share an element, and none may read what another one has added to.
        tl.store(x + offset, value, mask=inside)
    if SUMS:
        total = tl.sum(value, axis=0, keep_dims=True)
        tl.store(sums + (image * tl.num_programs(0) + chunk) * C + column, total, mask=columns)


@triton.jit
def swiglu(hidden, bias, out, F: tl.constexpr, FP: tl.constexpr, BLOCK: tl.constexpr):
    """LayerNorm(silu(a + b₁)·(b + b₂)) without affine. Grid (N,).

    hidden: [N, 2·FP] T: a and b, F columns each and padding to FP, whatever it holds; bias: [2·FP] float32, likewise.
    out: [N, FP] T, its padding 0. BLOCK is at least FP.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)[None, :]
    padded = columns_inside(BLOCK, FP)  # loads take the padding along: F is not a multiple of their width
    first = hidden + row * (2 * FP) + column
    a = tl.load(first, mask=padded, other=0.0).to(tl.float32) + tl.load(bias + column, mask=padded, other=0.0)
    b = tl.load(first + FP, mask=padded, other=0.0).to(tl.float32) + tl.load(bias + FP + column, mask=padded, other=0.0)
    inside = columns_inside(BLOCK, F)
    value = standardised(tl.where(inside, silu(a) * b, 0.0), inside, F)
    tl.store(out + row * FP + column, value.to(out.dtype.element_ty), mask=padded)


@triton.jit
def layer_norm(
    x,
    weight,
    bias,
    residual,
    out,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SILU: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """LayerNorm(x), then SiLU if SILU, then + residual if RESIDUAL. Grid (N,).

    x, residual, out: [N, C] T; weight, bias: [C] float32.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_C)[None, :]
    inside = columns_inside(BLOCK_C, C)
    offset = row * C + column
    value = standardised(tl.load(x + offset, mask=inside, other=0.0).to(tl.float32), inside, C)
    value = value * tl.load(weight + column, mask=inside, other=0.0) + tl.load(bias + column, mask=inside, other=0.0)
    if SILU:
        value = silu(value)
    if RESIDUAL:
        value += tl.load(residual + offset, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + offset, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def convert(source, target, count, BLOCK: tl.constexpr):
    """target = source in the type of target; count elements each. Grid (cdiv(count, BLOCK),)."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    element = first + tl.arange(0, BLOCK)
    if first + BLOCK <= count:  # unmasked, so that accesses are wide whatever `count` is
        tl.store(target + element, tl.load(source + element).to(target.dtype.element_ty))
    else:
        inside = element < count
        tl.store(target + element, tl.load(source + element, mask=inside).to(target.dtype.element_ty), mask=inside)


@triton.jit
def bias_act(x, bias, out, count, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr):
    """x + bias, through GELU if GELU. Grid (cdiv(count, BLOCK),).

    x, out: count elements in rows of COLUMNS, of the same type, may be the same; bias: [COLUMNS] float32.
    """
    _, column, element, inside = flat_tile(count, COLUMNS, BLOCK)
    value = tl.load(x + element, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + column)
    if GELU:
        value = gelu(value)
    tl.store(out + element, value.to(out.dtype.element_ty), mask=inside)
