"""SAM's encoder rewritten for a graph: no matrix of biases on the whole map, and no work for what pads the windows.

The published form adds a bias q·R_row + q·R_column to every score: in a layer that attends to the whole map, at full
size, 16 matrices of 4096×4096. Both terms depend on the key through its row and its column alone, so they are part of
the product of a longer query and key,

    q' = (q/√d, q·R_row, q·R_column),   k' = (k, one-hot of the key's row, one-hot of its column),

and attention is plain: a backend that never writes its scores down has no bias to write down either. In windows of
14×14 the bias is small, backends add it in passing, and the longer product would cost more.

Windows are cut after the product that makes query, key and value, and put back before the one that follows. What hangs
over the map's edges is zero before the first product, hence the bias after it: one token of zeros stands for it all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mova_export.graphs.windows import Windows
from mova_export.modules.sam import RelativeAttention, SamEncoder
from mova_export.modules.window import WindowBlock


class FoldedAttention(nn.Module):
    """`RelativeAttention` over a map of tokens, in windows or whole, partition and merging included."""

    rows: Tensor
    columns: Tensor
    places: Tensor

    def __init__(self, attn: RelativeAttention, grid: int, window: int | None) -> None:
        """`window`: the windows' side; None attends to the whole map."""
        super().__init__()
        self.heads = attn.heads
        self.side = window or grid
        self.qkv, self.proj = attn.qkv, attn.proj
        self.windows = Windows(grid, window) if window else None
        self.rows = nn.Parameter(attn.rel_pos_h[attn.distance], requires_grad=False)
        self.columns = nn.Parameter(attn.rel_pos_w[attn.distance], requires_grad=False)
        if window is None:
            one = torch.eye(grid, device="cpu")
            places = torch.cat((one.repeat_interleave(grid, 0), one.repeat(grid, 1)), dim=1)
            self.register_buffer("places", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, grid², width] to the same."""
        if self.windows is None:
            return self.proj(self._attend(self.qkv(x)))
        if self.windows.padded:
            x = torch.cat((x, torch.zeros_like(x[:, :1])), dim=1)
        return self.proj(self.windows.merge(self._attend(self.windows.partition(self.qkv(x)))))

    def _attend(self, qkv: Tensor) -> Tensor:
        """[batch, side², 3·width] to [batch, side², width]."""
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        on_map = query.unflatten(2, (self.side, self.side))
        by_row = torch.einsum("bnhwc,hkc->bnhwk", on_map, self.rows)
        by_column = torch.einsum("bnhwc,wkc->bnhwk", on_map, self.columns)
        query = query * query.shape[-1] ** -0.5
        if self.windows is None:
            query = torch.cat((query, by_row.flatten(2, 3), by_column.flatten(2, 3)), dim=-1)
            key = torch.cat((key, self.places.expand(*key.shape[:2], -1, -1)), dim=-1)
            scores = query @ key.transpose(-2, -1)
        else:
            bias = by_row[..., :, None] + by_column[..., None, :]
            scores = query @ key.transpose(-2, -1) + bias.flatten(4).flatten(2, 3)
        weights = scores.softmax(dim=-1)
        return (weights @ value).transpose(1, 2).flatten(2)


class FoldedBlock(nn.Module):
    """A block of the encoder over tokens [batch, grid², width]."""

    def __init__(self, block: WindowBlock, grid: int) -> None:
        super().__init__()
        assert isinstance(block.attn, RelativeAttention)
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.attn = FoldedAttention(block.attn, grid, block.window)

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SamGraph(nn.Module):
    """Same argument and result as `SamEncoder`."""

    def __init__(self, encoder: SamEncoder) -> None:
        super().__init__()
        self.grid = encoder.config.grid
        self.patch_embed, self.pos_embed, self.neck = encoder.patch_embed, encoder.pos_embed, encoder.neck
        self.net_2 = encoder.net_2 if encoder.config.stride_channels is not None else nn.Identity()
        self.blocks = nn.ModuleList(FoldedBlock(block, self.grid) for block in encoder.blocks)

    def forward(self, pixels: Tensor) -> Tensor:
        """See `SamEncoder.forward`."""
        x = (self.patch_embed(pixels) + self.pos_embed).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        x = x.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        return self.net_2(self.neck(x)).flatten(2).transpose(1, 2)
