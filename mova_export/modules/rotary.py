"""Rotary tables as checkpoints store them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """A stored table of cosines and sines, [tokens, head_dim] each."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, tokens: int, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("freqs_cos", torch.empty(tokens, head_dim))
        self.register_buffer("freqs_sin", torch.empty(tokens, head_dim))
