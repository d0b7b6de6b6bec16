"""The whole adapter, image by image and expert by expert: the form that is easy to check against the paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mova_export.modules.adapter.block import AdapterBlock
from mova_export.modules.adapter.downsample import Downsample
from mova_export.modules.typed import ModuleListOf


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapter; `tokens` = grid²."""

    channels: int
    text_channels: int
    hidden: int
    grid: int
    blocks: int
    experts: int
    top_k: int

    @property
    def tokens(self) -> int:
        """Tokens of one image before pooling."""
        return self.grid * self.grid

    @property
    def visual_tokens(self) -> int:
        """Tokens of one image for the language model."""
        return (self.grid // 2) ** 2


class MovAdapter(nn.Module):
    """Base features, text features and any number of (image, expert) pairs to visual tokens."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_embed = nn.Parameter(torch.empty(1, config.tokens, config.channels))
        self.blocks = ModuleListOf[AdapterBlock](
            AdapterBlock(config.channels, config.text_channels, config.experts, config.tokens, config.top_k)
            for _ in range(config.blocks)
        )
        self.downsample = Downsample(config.channels)
        self.mlp = nn.Sequential(
            nn.Linear(config.channels, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.hidden)
        )

    def forward(
        self, base: Tensor, text: Tensor, keys: Tensor, values: Tensor, pair_image: Tensor, pair_expert: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            base: [batch, tokens, channels], the base encoder's features.
            text: [batch, text channels].
            keys: [pairs, blocks, tokens, channels], rotated.
            values: [pairs, blocks, tokens, channels].
            pair_image: [pairs] int64, the image of each pair.
            pair_expert: [pairs] int64, the expert of each pair; no pair twice.

        Returns:
            visual [batch, tokens/4, hidden] and gates [blocks, batch, experts].
        """
        selected = base.new_zeros(base.shape[0], self.config.experts)
        selected[pair_image, pair_expert] = 1
        pairs = list(zip(pair_image.tolist(), pair_expert.tolist(), strict=True))

        x = base + self.pos_embed
        gates = []
        for b, block in enumerate(self.blocks):
            weights = block.weights(x, text, selected)
            gates.append(weights)
            sums = [torch.zeros_like(image) for image in x]
            for p, (image, expert) in enumerate(pairs):
                sums[image] = sums[image] + block.fuse(
                    x[image], keys[p, b], values[p, b], expert, weights[image, expert]
                )
            x = block.mix(x + torch.stack(sums))
        return self.project(x, base), torch.stack(gates)

    def project(self, x: Tensor, base: Tensor) -> Tensor:
        """Average with the base features, pool, widen: [batch, tokens, channels] to [batch, tokens/4, hidden]."""
        grid = self.config.grid
        square = ((x + base) / 2).transpose(1, 2).unflatten(2, (grid, grid))
        pooled = self.downsample(square).flatten(2).transpose(1, 2)
        return self.mlp(pooled)
