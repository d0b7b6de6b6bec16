"""Non-overlapping windows of a token map, and the block of SAM and ViTDet encoders that attends in them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.modules.norm import VIT_EPSILON


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


class WindowBlock(nn.Module):
    """A pre-norm transformer block that attends in windows of `side`, or to the whole map with `side` None."""

    def __init__(self, width: int, side: int | None, attn: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.window = side
        self.norm1 = nn.LayerNorm(width, eps=VIT_EPSILON)
        self.attn = attn
        self.norm2 = nn.LayerNorm(width, eps=VIT_EPSILON)
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] to the same."""
        normalised = self.norm1(x)
        if self.window is None:
            attended = self.attn(normalised)
        else:
            windows = self.attn(partition(normalised, self.window))
            attended = merge(windows, self.window, x.shape[1], x.shape[2])
        x = x + attended
        return x + self.mlp(self.norm2(x))
