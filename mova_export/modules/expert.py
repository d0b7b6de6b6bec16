"""An expert as the adapter sees it: its feature, and that feature as keys and values of every adapter block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mova_export.modules.adapter.attention import KeyValue
from mova_export.modules.align import align
from mova_export.modules.typed import ModuleListOf


class Expert(nn.Module):
    """A tower and its part of the adapter; the same interface whatever the tower."""

    def __init__(self, tower: nn.Module, blocks: list[KeyValue], grid: int, aligned_features: bool) -> None:
        super().__init__()
        self.tower = tower
        self.blocks = ModuleListOf[KeyValue](blocks)
        self.grid = grid
        self.aligned_features = aligned_features

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode.

        Args:
            image: the tower's input, [batch, 3, side, side] or [batch, max_patches, 2 + 3·patch²].

        Returns:
            features [batch, n, expert channels] (the published code keeps DINOv2's after alignment, the others'
            before), keys (rotated) and values [batch, blocks, grid², channels].
        """
        features = self.tower(image)
        aligned = align(features, self.grid)
        keys, values = zip(*(block(aligned) for block in self.blocks), strict=True)
        return (
            aligned if self.aligned_features else features,
            torch.stack(keys, dim=1),
            torch.stack(values, dim=1),
        )
