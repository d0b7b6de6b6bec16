"""Rotary embedding and attention, plainly: one operation a line, the softmax in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding with interleaved pairs: (x₂ᵢ, x₂ᵢ₊₁) is turned by the angle of its token and frequency.

    Args:
        x: [..., tokens, head_dim].
        cosine: [tokens, head_dim], both entries of a pair alike.
        sine: [tokens, head_dim], likewise.

    Returns:
        x·cos + (-x₂ᵢ₊₁, x₂ᵢ)·sin, shape and dtype of `x` (Su et al., arXiv 2104.09864, eq. 34; 2-D axial as in
        EVA-02, arXiv 2303.11331).
    """
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return x * cosine + turned * sine


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(q·kᵀ/√d)·v per head, softmax in float32.

    Args:
        query: [batch, queries, channels]; channels are `heads` blocks of d.
        key: [batch, keys, channels], already rotated where rotation is wanted.
        value: [batch, keys, channels].
        heads: number of heads, a divisor of channels.

    Returns:
        [batch, queries, channels], dtype of `query`.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights = scores.float().softmax(dim=-1).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2)


def attend_pairs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cosine: Tensor,
    sine: Tensor,
    heads: int,
    bias: Tensor | None = None,
    pair_row: Tensor | None = None,
    rotate_keys: bool = False,
) -> tuple[Tensor, Tensor]:
    """What the operator `mova::cross_attention` computes: biases, rotation, attention, moments of the result.

    Args:
        query: [pairs, tokens, channels].
        key: [pairs, keys, channels].
        value: [pairs, keys, channels].
        cosine: [positions, head_dim/2], one entry a pair of dimensions; positions are at least tokens and keys.
        sine: likewise.
        heads: number of heads.
        bias: [rows, channels] to the query, or [rows, 3·channels] to query, key and value, before rotation.
        pair_row: [pairs] integer, each pair's row of `bias`.
        rotate_keys: whether the key is still to be rotated.

    Returns:
        [pairs, tokens, channels] of the query's dtype, computed in float32; and `head_moments` of it.
    """
    q, k, v = query.float(), key.float(), value.float()
    if bias is not None and pair_row is not None:
        parts = bias.float()[pair_row.long()][:, None].split(query.shape[-1], dim=-1)
        q = q + parts[0]
        if len(parts) == 3:
            k, v = k + parts[1], v + parts[2]
    q = _rotate_heads(q, cosine, sine, heads)
    if rotate_keys:
        k = _rotate_heads(k, cosine, sine, heads)
    out = attention(q, k, v, heads).to(query.dtype)
    return out, head_moments(out, heads)


def head_moments(x: Tensor, heads: int) -> Tensor:
    """Mean of each head's channels and sum of their squared deviations.

    Args:
        x: [pairs, tokens, channels].
        heads: number of heads.

    Returns:
        [pairs, heads, tokens, 2] float32.
    """
    by_head = x.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    mean = by_head.mean(dim=-1, keepdim=True)
    return torch.cat((mean, (by_head - mean).square().sum(dim=-1, keepdim=True)), dim=-1)


def _rotate_heads(x: Tensor, cosine: Tensor, sine: Tensor, heads: int) -> Tensor:
    tokens = x.shape[1]
    tables = (table[:tokens].repeat_interleave(2, dim=1) for table in (cosine, sine))
    return rotate(x.unflatten(-1, (heads, -1)).transpose(1, 2), *tables).transpose(1, 2).flatten(2)
