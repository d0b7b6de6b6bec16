"""SAM's image encoder (Kirillov et al., arXiv 2304.02643), and Vary's, which ends in a strided convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.modules.norm import VIT_EPSILON, LayerNorm2d
from mova_export.modules.typed import ModuleListOf
from mova_export.modules.window import WindowBlock


@dataclass(frozen=True)
class SamConfig:
    """Sizes of a SAM encoder; `windows` holds each block's window side, the grid's own for global attention."""

    width: int
    hidden: int
    heads: int
    patch: int
    grid: int
    windows: tuple[int, ...]
    out_channels: int
    stride_channels: int | None = None

    @property
    def image_side(self) -> int:
        """Side of the input image in pixels."""
        return self.grid * self.patch


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return self.lin2(F.gelu(self.lin1(x)))


class RelativeAttention(nn.Module):
    """Attention over a side×side map with decomposed relative positions (MViTv2, arXiv 2112.01526, eq. 4)."""

    distance: Tensor

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.empty(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.empty(2 * side - 1, width // heads))
        # On the CPU even where the parameters are on the meta device: an index, not a weight.
        position = torch.arange(side, device="cpu")
        self.register_buffer("distance", position[:, None] - position[None] + side - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, side, side, width] to the same."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)

        map_query = query.unflatten(2, (height, width))
        by_row = torch.einsum("bnhwc,hkc->bnhwk", map_query, self.rel_pos_h[self.distance])
        by_column = torch.einsum("bnhwc,wkc->bnhwk", map_query, self.rel_pos_w[self.distance])
        bias = by_row[..., :, None] + by_column[..., None, :]

        weights = (scores + bias.reshape(scores.shape)).softmax(dim=-1)
        out = (weights @ value).transpose(1, 2).reshape(batch, height, width, channels)
        return self.proj(out)


class PatchEmbed(nn.Module):
    """Patches to tokens, channels last."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, side, side] to [batch, side/patch, side/patch, width]."""
        return self.proj(pixels).permute(0, 2, 3, 1)


def _block(config: SamConfig, side: int) -> WindowBlock:
    attn = RelativeAttention(config.width, config.heads, side)
    return WindowBlock(config.width, side if side < config.grid else None, attn, Mlp(config.width, config.hidden))


class SamEncoder(nn.Module):
    """Pixels to tokens: SAM's neck output, or with `stride_channels` that of Vary's stride-2 convolution."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.patch, config.width)
        self.pos_embed = nn.Parameter(torch.empty(1, config.grid, config.grid, config.width))
        self.blocks = ModuleListOf[WindowBlock](_block(config, side) for side in config.windows)
        self.neck = nn.Sequential(
            nn.Conv2d(config.width, config.out_channels, 1, bias=False),
            LayerNorm2d(config.out_channels, eps=VIT_EPSILON),
            nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1, bias=False),
            LayerNorm2d(config.out_channels, eps=VIT_EPSILON),
        )
        if config.stride_channels is not None:
            self.net_2 = nn.Conv2d(config.out_channels, config.stride_channels, 3, stride=2, padding=1, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, side, side] to [batch, tokens, channels]."""
        x = self.patch_embed(pixels) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.neck(x.permute(0, 3, 1, 2))
        if self.config.stride_channels is not None:
            x = self.net_2(x)
        return x.flatten(2).transpose(1, 2)
