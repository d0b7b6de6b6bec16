"""The gated feed-forward layer of Co-DETR's tower and the adapter (Shazeer, arXiv 2002.05202), with a norm inside."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SwiGlu(nn.Module):
    """SiLU(x·w1)·(x·w2), LayerNorm, w3."""

    def __init__(self, width: int, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(width, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=epsilon)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))
