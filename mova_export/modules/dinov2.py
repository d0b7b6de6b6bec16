"""DINOv2 (Oquab et al., arXiv 2304.07193), from transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from mova_export.modules.clip import used_layers

MAX_SIDE = 518
"""Larger inputs are resized to the side the published models were trained at."""

_SCALE_OFFSET = 0.1
"""The published code asks for (side + 0.1)/old side when it resizes positions; the 0.1 shifts the samples."""


class Dinov2Encoder(nn.Module):
    """Pixels to the patch tokens of one hidden state (no final norm), aligned to the base grid by the caller."""

    def __init__(self, config: Dinov2Config, select_layer: int) -> None:
        super().__init__()
        self.model = Dinov2Model(config)
        self.select_layer = select_layer

    def drop_unused(self) -> None:
        """Leave out what no output depends on."""
        layers = self.model.encoder.layer
        self.model.encoder.layer = layers[: used_layers(len(layers), self.select_layer)]
        self.model.layernorm = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, side, side] to [batch, (min(side, 518)/patch)², width]."""
        if pixels.shape[-1] > MAX_SIDE:
            pixels = F.interpolate(pixels, size=(MAX_SIDE, MAX_SIDE), mode="bilinear", align_corners=False)
        hidden: Tensor = self.model.encoder(self.model.embeddings(pixels)).last_hidden_state
        return hidden[:, 1:]


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """A position table [1, 1 + side², width] resized bicubically (float32) to [1, 1 + grid², width], CLS kept."""
    side = math.isqrt(table.shape[1] - 1)
    if side == grid:
        return table
    square = table[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (grid + _SCALE_OFFSET) / side
    square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], square.flatten(2).transpose(1, 2).to(table.dtype)), dim=1)
