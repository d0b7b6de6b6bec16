"""LayerNorm over the channels of a map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

VIT_EPSILON = 1e-6
"""Of the norms in SAM's, Co-DETR's and timm's vision transformers."""


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [batch, channels, height, width]."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as `x`."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)
