"""The gate in two launches: slices of the first layer by many programs, then everything else by one program an image.

The first layer's matrix is all there is to read, so its rows are spread over the GPU; what each program finds is added
up in a fixed order, which keeps results the same from run to run.
"""

from __future__ import annotations

import triton
import triton.language as tl

MASKED = tl.constexpr(-1e6)
"""As in the reference."""

SQRT_HALF = tl.constexpr(0.7071067811865476)


@triton.jit
def gate_partial(
    rows,
    text,
    weight,
    partial,
    count,
    scale,
    CT: tl.constexpr,
    C: tl.constexpr,
    HID: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """[text, scale·Σ rows]·weight over BLOCK_K inputs. Grid (S = cdiv(CT, BLOCK_K) + cdiv(C, BLOCK_K), images).

    rows: [images, count, C] float32: tokens, or sums over some of them. text: [images, CT] float32, unused if CT is 0.
    weight: [CT + C, HID] T, input by output. partial: [images, S, HID] float32. BLOCK_R: rows added at a time.
    """
    TEXT_SLICES: tl.constexpr = (CT + BLOCK_K - 1) // BLOCK_K
    part = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    if part < TEXT_SLICES:
        source = part * BLOCK_K + tl.arange(0, BLOCK_K)
        inside = source < CT
        x = tl.load(text + image * CT + source, mask=inside, other=0.0)
        weight_row = source
    else:
        source = (part - TEXT_SLICES) * BLOCK_K + tl.arange(0, BLOCK_K)
        inside = source < C
        sums = tl.zeros([BLOCK_R, BLOCK_K], tl.float32)
        for first in range(0, count, BLOCK_R):
            row = first + tl.arange(0, BLOCK_R)[:, None]
            there = (row < count) & inside[None, :]
            sums += tl.load(rows + (image * count + row) * C + source[None, :], mask=there, other=0.0)
        x = tl.sum(sums, axis=0) * scale
        weight_row = CT + source

    partial += (image * tl.num_programs(0) + part) * HID
    for first in range(0, HID, BLOCK_H):
        column = first + tl.arange(0, BLOCK_H)
        there = inside[:, None] & (column < HID)[None, :]
        w = tl.load(weight + weight_row[:, None] * HID + column[None, :], mask=there, other=0.0).to(tl.float32)
        tl.store(partial + column, tl.sum(x[:, None] * w, axis=0), mask=column < HID)


@triton.jit
def gate_weights(
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
    """GELU, second layer, mask, softmax, top-k, renormalise. Grid (images,).

    partial: [images, SLICES, HID] float32. bias1: [HID] float32. weight2: [EXPERTS, HID] T. bias2: [EXPERTS] float32.
    selected: [images, EXPERTS] int32 in {0, 1}. out: [images, EXPERTS] float32. Of equal weights the one of lower index
    counts as the larger. BLOCK_E: a power of two, at least EXPERTS.
    """
    image = tl.program_id(0).to(tl.int64)
    expert = tl.arange(0, BLOCK_E)
    real = expert < EXPERTS

    logits = tl.load(bias2 + expert, mask=real, other=0.0)
    for first in range(0, HID, BLOCK_H):
        column = first + tl.arange(0, BLOCK_H)
        there = column < HID
        hidden = tl.load(bias1 + column, mask=there, other=0.0)
        for part in tl.static_range(SLICES):
            hidden += tl.load(partial + (image * SLICES + part) * HID + column, mask=there, other=0.0)
        hidden = 0.5 * hidden * (1.0 + tl.erf(hidden * SQRT_HALF))
        w = tl.load(weight2 + expert[:, None] * HID + column[None, :], mask=real[:, None] & there[None, :], other=0.0)
        logits += tl.sum(w.to(tl.float32) * hidden[None, :], axis=1)

    chosen = tl.load(selected + image * EXPERTS + expert, mask=real, other=0).to(tl.float32)
    logits = tl.where(real, logits + (1.0 - chosen) * MASKED, float("-inf"))
    weights = tl.exp(logits - tl.max(logits, axis=0))
    weights = weights / tl.sum(weights, axis=0)

    mine, other = weights[:, None], weights[None, :]
    earlier = expert[None, :] < expert[:, None]
    ahead = (other > mine) | ((other == mine) & earlier)
    kept = tl.where(tl.sum(ahead.to(tl.int32), axis=1) < TOP_K, weights, 0.0)
    weights = kept / tl.sum(kept, axis=0) * tl.max(chosen, axis=0)
    tl.store(out + image * EXPERTS + expert, weights, mask=real)
