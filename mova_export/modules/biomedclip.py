"""BiomedCLIP's vision tower (Zhang et al., arXiv 2303.00915): a plain ViT, under timm's parameter names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.modules.norm import VIT_EPSILON

HEAD_DIM = 64
"""Every published ViT of this family has heads of 64; tensor shapes alone don't tell."""


@dataclass(frozen=True)
class VitConfig:
    """Sizes of a plain vision transformer."""

    width: int
    hidden: int
    depth: int
    patch: int
    grid: int

    @property
    def image_side(self) -> int:
        """Side of the image the tower works on, in pixels; its input is resized to that."""
        return self.grid * self.patch


class Attention(nn.Module):
    """Multi-head attention with one matrix for query, key and value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_DIM
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, HEAD_DIM)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=VIT_EPSILON)
        self.attn = Attention(config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=VIT_EPSILON)
        self.mlp = Mlp(config.width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Patches to a sequence of tokens."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, side, side] to [batch, (side/patch)², width]."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class BiomedClipEncoder(nn.Module):
    """Pixels to tokens after the final norm, CLS dropped."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.empty(1, config.grid**2 + 1, config.width))
        self.patch_embed = PatchEmbed(config.patch, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=VIT_EPSILON)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, height, width] to [batch, grid², width]."""
        side = self.config.image_side
        pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        patches = self.patch_embed(pixels)
        x = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]
