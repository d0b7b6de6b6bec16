"""One block of the adapter: gate, fuse, attend, feed forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mova_export.modules.adapter.attention import CrossAttention, SelfAttention
from mova_export.modules.swiglu import SwiGlu
from mova_export.modules.typed import ModuleListOf
from mova_kernels.combine.reference import EPSILON, combine
from mova_kernels.gate.reference import gate


class AdapterBlock(nn.Module):
    """x ← x + Σ wₑ·CrossAttentionₑ(x); x ← x + SelfAttention(x); x ← x + SwiGLU(x)."""

    def __init__(self, channels: int, text_channels: int, experts: int, tokens: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.cross_attn = ModuleListOf[CrossAttention](CrossAttention(channels, tokens) for _ in range(experts))
        self.norm1 = ModuleListOf[nn.LayerNorm](nn.LayerNorm(channels, eps=EPSILON) for _ in range(experts))
        self.mlp = SwiGlu(channels, int(channels * 8 / 3), EPSILON)
        self.self_attn = SelfAttention(channels, tokens)
        self.norm3 = nn.LayerNorm(channels, eps=EPSILON)
        self.norm4 = nn.LayerNorm(channels, eps=EPSILON)
        self.gate = nn.Sequential(
            nn.Linear(text_channels + channels, channels), nn.GELU(), nn.Linear(channels, experts)
        )

    def weights(self, x: Tensor, text: Tensor, selected: Tensor) -> Tensor:
        """The gate: x [batch, tokens, channels], text [batch, hidden], selected [batch, experts] to weights like it."""
        return gate(self.gate(torch.cat((text, x.mean(dim=1)), dim=-1)), selected, self.top_k)

    def fuse(self, x: Tensor, keys: Tensor, values: Tensor, expert: int, weight: Tensor) -> Tensor:
        """Add nothing but the weighted contribution of one expert to one image.

        Args:
            x: [tokens, channels], the tokens every expert attends from.
            keys: [tokens, channels].
            values: [tokens, channels].
            expert: its index.
            weight: [], from the gate.

        Returns:
            [tokens, channels].
        """
        cross = self.cross_attn[expert]
        attended = cross.attend(self.norm1[expert](x)[None], keys[None], values[None])[0]
        norm, proj = cross.inner_attn_ln, cross.proj
        return combine(torch.zeros_like(x), attended, weight, norm.weight, norm.bias, proj.weight, proj.bias)

    def mix(self, x: Tensor) -> Tensor:
        """Self-attention and feed-forward on [batch, tokens, channels]."""
        x = x + self.self_attn(self.norm3(x))
        return x + self.mlp(self.norm4(x))
