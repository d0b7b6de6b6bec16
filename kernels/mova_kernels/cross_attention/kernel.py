"""Attention of all pairs and heads in one launch: rotary embedding fused in, one pass over the keys.

Online softmax as in FlashAttention-2 (Dao, arXiv 2307.08691), in powers of two: the scale and log₂e are folded into the
query once. Scores, sums and the output stay float32 in registers; weights are rounded to the type of the values.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mova_kernels.dot import dot

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def rotated(x, cosine, sine, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Turn interleaved pairs: x [ROWS, HEAD_DIM], cosine and sine [ROWS, HEAD_DIM/2], one entry a pair; all float32."""
    even, odd = tl.split(tl.reshape(x, [ROWS, HEAD_DIM // 2, 2]))
    turned = tl.join(even * cosine - odd * sine, odd * cosine + even * sine)
    return tl.reshape(turned, [ROWS, HEAD_DIM])


@triton.jit
def cross_attention(
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
    query_pair,
    query_row,
    key_pair,
    key_row,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BIASES: tl.constexpr,
    ROTATE_KEYS: tl.constexpr,
    MOMENTS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """softmax(rot(q + b)·kᵀ/√d)·v for BLOCK_M queries of a pair's head. Grid (cdiv(tokens, BLOCK_M), pairs·HEADS).

    query: [pairs, tokens, channels] T, strides query_pair, query_row, 1. key, value: [pairs, keys, channels] T, strides
    key_pair, key_row, 1. out: [pairs, tokens, channels] T, contiguous. pair_row: [pairs] int32, the pair's row of bias.
    bias: float32; BIASES 0: unused; 1: [rows, channels], to q; 3: [rows, 3·channels], to q, k and v, which needs
    ROTATE_KEYS. cosine, sine: [max(tokens, keys), HEAD_DIM/2] float32; keys come rotated unless ROTATE_KEYS. moments:
    [pairs, HEADS, tokens, 2] float32, written if MOMENTS: mean of a head's channels as stored in out, and sum of their
    squared deviations. EVEN: BLOCK_M divides tokens and BLOCK_N keys.
    """
    CHANNELS: tl.constexpr = HEADS * HEAD_DIM
    HALF: tl.constexpr = HEAD_DIM // 2
    T: tl.constexpr = out.dtype.element_ty
    pair = (tl.program_id(1) // HEADS).to(tl.int64)
    head = tl.program_id(1) % HEADS
    first = tl.program_id(0) * BLOCK_M
    row = tl.arange(0, BLOCK_M)[:, None]
    column = tl.arange(0, BLOCK_N)
    dim = tl.arange(0, HEAD_DIM)[None, :]
    angle = tl.arange(0, HALF)[None, :]
    inside = first + row < tokens

    query += pair * query_pair + first * query_row + head * HEAD_DIM
    key += pair * key_pair + head * HEAD_DIM
    value += pair * key_pair + head * HEAD_DIM
    if BIASES > 0:
        bias += tl.load(pair_row + pair) * (BIASES * CHANNELS) + head * HEAD_DIM

    if EVEN:
        q = tl.load(query + row * query_row + dim)
        q_cosine = tl.load(cosine + (first + row) * HALF + angle)
        q_sine = tl.load(sine + (first + row) * HALF + angle)
    else:
        q = tl.load(query + row * query_row + dim, mask=inside, other=0.0)
        q_cosine = tl.load(cosine + (first + row) * HALF + angle, mask=inside, other=0.0)
        q_sine = tl.load(sine + (first + row) * HALF + angle, mask=inside, other=0.0)
    if BIASES > 0:
        q_bias = tl.load(bias + dim)
    # The condition always holds. Triton doesn't look behind it, and that is the purpose: operands of a product that are
    # seen to come through `join` are laid out for 8-bit numbers, and those seen to come from a load alone are computed
    # in every warp again instead of being shared between them.
    if first < tokens:
        q = q.to(tl.float32)
        if BIASES > 0:
            q += q_bias
        q = (rotated(q, q_cosine, q_sine, BLOCK_M, HEAD_DIM) * (HEAD_DIM**-0.5 * LOG2_E)).to(T)

    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    attended = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    for start in range(0, keys, BLOCK_N):
        offset = column[:, None] * key_row + dim
        turn = (start + column[:, None]) * HALF + angle
        there = start + column < keys
        if EVEN:
            k = tl.load(key + start * key_row + offset)
            v = tl.load(value + start * key_row + offset)
        else:
            k = tl.load(key + start * key_row + offset, mask=there[:, None], other=0.0)
            v = tl.load(value + start * key_row + offset, mask=there[:, None], other=0.0)
        if ROTATE_KEYS:
            if EVEN:
                k_cosine = tl.load(cosine + turn)
                k_sine = tl.load(sine + turn)
            else:
                k_cosine = tl.load(cosine + turn, mask=there[:, None], other=0.0)
                k_sine = tl.load(sine + turn, mask=there[:, None], other=0.0)
            if BIASES == 3:
                k_bias = tl.load(bias + CHANNELS + dim)
            if start < keys:  # likewise
                k = k.to(tl.float32)
                if BIASES == 3:
                    k += k_bias
                k = rotated(k, k_cosine, k_sine, BLOCK_N, HEAD_DIM).to(T)

        scores = dot(q, tl.trans(k), tl.zeros([BLOCK_M, BLOCK_N], tl.float32))
        if not EVEN:
            scores = tl.where(there[None, :], scores, float("-inf"))
        # Finite from the first block on: it has a key.
        larger = tl.maximum(largest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, axis=1)
        attended = dot(weights.to(T), v, attended * shrink[:, None])
        largest = larger

    attended *= (1.0 / total)[:, None]
    if BIASES == 3:
        # The weights sum to one: what is added to every value is added to their mean.
        attended += tl.load(bias + 2 * CHANNELS + dim)
    stored = attended.to(T)
    out += pair * tokens * CHANNELS + first * CHANNELS + head * HEAD_DIM
    if EVEN:
        tl.store(out + row * CHANNELS + dim, stored)
    else:
        tl.store(out + row * CHANNELS + dim, stored, mask=inside)
    if MOMENTS:
        x = stored.to(tl.float32)
        mean = tl.sum(x, axis=1) / HEAD_DIM
        deviation = x - mean[:, None]
        both = tl.join(mean, tl.sum(deviation * deviation, axis=1))
        moments += ((pair * HEADS + head) * tokens + first) * 2
        if EVEN:
            tl.store(moments + row * 2 + tl.arange(0, 2)[None, :], both)
        else:
            tl.store(moments + row * 2 + tl.arange(0, 2)[None, :], both, mask=inside)
