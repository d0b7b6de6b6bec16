"""Co-DETR's ViT (Zong et al., arXiv 2211.12860): EVA-02 blocks in windows and on the whole map, with a neck."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.modules.norm import VIT_EPSILON, LayerNorm2d
from mova_export.modules.rotary import Rotary
from mova_export.modules.sam import PatchEmbed
from mova_export.modules.swiglu import SwiGlu
from mova_export.modules.window import WindowBlock
from mova_kernels.cross_attention.reference import attention

OUTPUT_SIDE = 37
"""The neck's map is resized to 37×37, whatever the input."""


@dataclass(frozen=True)
class CodetrConfig:
    """Sizes; `windows` holds each block's window side, the grid's own for global attention."""

    width: int
    hidden: int
    heads: int
    patch: int
    grid: int
    position_grid: int
    windows: tuple[int, ...]
    out_channels: int

    @property
    def image_side(self) -> int:
        """Side of the image the encoder works on, in pixels; its input is resized to that."""
        return self.grid * self.patch


class RotaryAttention(nn.Module):
    """Attention with rotary embedding on query and key; biases on query and value only."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.empty(width))
        self.v_bias = nn.Parameter(torch.empty(width))
        self.rope = Rotary(side * side, width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] to the same."""
        tokens = x.flatten(1, 2)
        query = F.linear(tokens, self.q_proj.weight, self.q_bias)
        value = F.linear(tokens, self.v_proj.weight, self.v_bias)
        query, key = self._rotate(query), self._rotate(self.k_proj(tokens))
        return self.proj(attention(query, key, value, self.heads)).reshape(x.shape)

    def _rotate(self, x: Tensor) -> Tensor:
        by_head = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        rotated: Tensor = self.rope(by_head)
        return rotated.transpose(1, 2).flatten(2)


def _block(config: CodetrConfig, side: int) -> WindowBlock:
    attn = RotaryAttention(config.width, config.heads, side)
    return WindowBlock(
        config.width, side if side < config.grid else None, attn, SwiGlu(config.width, config.hidden, VIT_EPSILON)
    )


class CodetrEncoder(nn.Module):
    """Pixels to 37×37 tokens."""

    def __init__(self, config: CodetrConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.patch, config.width)
        self.pos_embed = nn.Parameter(torch.empty(1, config.position_grid**2 + 1, config.width))
        self.blocks = nn.ModuleList(_block(config, side) for side in config.windows)
        self.out_norm = nn.LayerNorm(config.width)
        self.neck = nn.Sequential(
            nn.Conv2d(config.width, config.out_channels, 1, bias=False),
            LayerNorm2d(config.out_channels, eps=VIT_EPSILON),
            nn.GELU(),
            nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1, bias=False),
            LayerNorm2d(config.out_channels, eps=VIT_EPSILON),
        )

    def positions(self) -> Tensor:
        """The position table without its CLS entry, [1, grid, grid, width]."""
        side = self.config.position_grid
        table = self.pos_embed[:, 1:].unflatten(1, (side, side))
        if side == self.config.grid:
            return table
        size = (self.config.grid, self.config.grid)
        table = F.interpolate(table.permute(0, 3, 1, 2), size=size, mode="bicubic", align_corners=False)
        return table.permute(0, 2, 3, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, height, width] to [batch, 37², channels]."""
        side = self.config.image_side
        x = self.patch_embed(F.interpolate(pixels, size=(side, side), mode="nearest")) + self.positions()
        for block in self.blocks:
            x = block(x)
        x = self.neck(self.out_norm(x).permute(0, 3, 1, 2))
        x = F.interpolate(x, size=(OUTPUT_SIDE, OUTPUT_SIDE), mode="bilinear", align_corners=False)
        return x.flatten(2).transpose(1, 2)
