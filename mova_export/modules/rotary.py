"""Rotary embedding with tables as checkpoints store them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """A stored table of cosines and sines, [tokens, head_dim] each, and the rotation by them."""

    freqs_cos: Tensor
    freqs_sin: Tensor
    quarter_turn: Tensor

    def __init__(self, tokens: int, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("freqs_cos", torch.empty(tokens, head_dim))
        self.register_buffer("freqs_sin", torch.empty(tokens, head_dim))
        # On the CPU even where the parameters are on the meta device: a constant, not a weight.
        turn = torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]], device="cpu")] * (head_dim // 2))
        self.register_buffer("quarter_turn", turn, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn every pair (x₂ᵢ, x₂ᵢ₊₁) of a head's channels by its token's angle.

        The pairs turned by 90°, (-x₂ᵢ₊₁, x₂ᵢ), are a product with a matrix of 1 and -1, which is exact in every
        precision and leaves the channels where they are: to pick them apart and join them again takes four passes.

        Args:
            x: [..., tokens, head_dim].

        Returns:
            What `mova_kernels.cross_attention.reference.rotate` does; shape and dtype of `x`.
        """
        return x * self.freqs_cos + (x @ self.quarter_turn) * self.freqs_sin
