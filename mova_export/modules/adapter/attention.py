"""The adapter's attention, cut where an expert's contribution becomes independent of the question.

An expert's feature enters through its keys and values alone. They depend on the image only, so they belong to the
expert (`KeyValue`); query, norm and output projection belong to the adapter (`CrossAttention`).
"""

from __future__ import annotations

from torch import Tensor, nn

from mova_export.modules.rotary import Rotary
from mova_kernels.combine.reference import EPSILON
from mova_kernels.cross_attention.reference import attention

HEAD_DIM = 64


def rotate_heads(x: Tensor, rope: Rotary) -> Tensor:
    """Rotary embedding of every head: [..., tokens, channels] to the same."""
    by_head = x.unflatten(-1, (-1, HEAD_DIM)).transpose(-2, -3)
    rotated: Tensor = rope(by_head)
    return rotated.transpose(-2, -3).flatten(-2)


class KeyValue(nn.Module):
    """One block's norm and key/value matrices for one expert."""

    def __init__(self, expert_channels: int, channels: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(expert_channels, eps=EPSILON)
        self.k_proj = nn.Linear(expert_channels, channels, bias=False)
        self.v_proj = nn.Linear(expert_channels, channels, bias=False)
        self.rope = Rotary(tokens, HEAD_DIM)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, tokens, expert channels] to keys (rotated) and values, [batch, tokens, channels] each."""
        normalised = self.norm(feature)
        return rotate_heads(self.k_proj(normalised), self.rope), self.v_proj(normalised)


class CrossAttention(nn.Module):
    """What the adapter owns of one block's attention to one expert."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.inner_attn_ln = nn.LayerNorm(channels, eps=EPSILON)
        self.proj = nn.Linear(channels, channels)
        self.rope = Rotary(tokens, HEAD_DIM)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """All heads' output before norm and projection; every argument [batch, tokens, channels]."""
        query = rotate_heads(self.q_proj(x), self.rope)
        return attention(query, keys, values, query.shape[-1] // HEAD_DIM)


class SelfAttention(CrossAttention):
    """The same over the image's own tokens."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__(channels, tokens)
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, channels] to the same."""
        attended = self.attend(x, rotate_heads(self.k_proj(x), self.rope), self.v_proj(x))
        return self.proj(self.inner_attn_ln(attended))
