"""Bring an expert's feature map to the base encoder's grid."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def align(feature: Tensor, grid: int) -> Tensor:
    """Resize a square token map bilinearly (float32, half-pixel centres) to grid×grid where its size differs.

    Args:
        feature: [batch, n, channels], n a square number.
        grid: side of the wanted map.

    Returns:
        [batch, grid², channels].
    """
    batch, tokens, channels = feature.shape
    if tokens == grid * grid:
        return feature
    side = math.isqrt(tokens)
    image = feature.transpose(1, 2).reshape(batch, channels, side, side).float()
    resized = F.interpolate(image, size=(grid, grid), mode="bilinear", align_corners=False)
    return resized.to(feature.dtype).flatten(2).transpose(1, 2)
