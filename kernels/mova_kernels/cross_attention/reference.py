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
