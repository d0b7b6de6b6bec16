"""Non-overlapping windows of a token map, as SAM and ViTDet encoders attend in them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def partition(x: Tensor, window: int) -> Tensor:
    """[batch, height, width, channels] to [batch·windows, window, window, channels], zero-padded right and below."""
    _, height, width, channels = x.shape
    below, right = -height % window, -width % window
    if below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // window, (width + right) // window
    x = x.reshape(-1, rows, window, columns, window, channels)
    return x.transpose(2, 3).reshape(-1, window, window, channels)


def merge(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `partition`: back to [batch, height, width, channels], padding dropped."""
    rows, columns = -(-height // window), -(-width // window)
    x = windows.reshape(-1, rows, columns, window, window, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, rows * window, columns * window, windows.shape[-1])
    return x[:, :height, :width] if rows * window > height or columns * window > width else x
