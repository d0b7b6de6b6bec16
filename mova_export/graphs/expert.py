"""An expert rewritten for a graph: keys and values of all blocks are made on the smaller of two maps, in place.

The model (modules/expert.py) resizes a feature to the adapter's grid and then, a block at a time, norms and projects
it. Both the resizing, bilinear with weights that sum to 1, and the projection are linear, and the norm between them is
linear but for a factor a token:

    LayerNorm(A·f)·Wᵀ = (A·(f - mean f))·(γW)ᵀ / σ + β·Wᵀ,   σ² = var(A·f) + ε

where A acts on tokens and the rest on channels. So a map smaller than the grid is projected before it is resized:
BiomedCLIP's 196 tokens instead of 2304. The mean is taken off first, in which a narrow type would lose the rest.

A is the same on rows and columns, two products with one small matrix M [grid, side]. They leave channels last, where
keys and values are wanted; an operator that resizes images would have them transposed twice at full size, which takes
longer than resizing (BiomedCLIP on 2 cores: 50 instead of 70 ms from map to keys and values). Rotation leaves the
heads where they are for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.graphs.sam import SamGraph
from mova_export.modules.adapter.attention import HEAD_DIM
from mova_export.modules.align import align
from mova_export.modules.expert import Expert
from mova_export.modules.rotary import Rotary
from mova_export.modules.sam import SamEncoder
from mova_kernels.combine.reference import EPSILON


class ExpertGraph(nn.Module):
    """Same argument and results as `Expert`."""

    def __init__(self, expert: Expert) -> None:
        super().__init__()
        self.tower = SamGraph(expert.tower) if isinstance(expert.tower, SamEncoder) else expert.tower
        self.grid = expert.grid
        self.aligned_features = expert.aligned_features
        self.blocks = len(expert.blocks)
        self.rope = expert.blocks[0].rope
        if any(not torch.equal(block.rope.freqs_cos, self.rope.freqs_cos) for block in expert.blocks):
            raise ValueError("the expert's rotary tables differ from block to block")
        self.keys = _Projection([block.norm for block in expert.blocks], [block.k_proj for block in expert.blocks])
        self.values = _Projection([block.norm for block in expert.blocks], [block.v_proj for block in expert.blocks])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Expert.forward`."""
        features = self.tower(image)
        aligned = align(features, self.grid)
        scale = (aligned.var(dim=-1, correction=0, keepdim=True)[:, None] + EPSILON).rsqrt()
        small = features if features.shape[1] < aligned.shape[1] else aligned
        centred = small - small.mean(dim=-1, keepdim=True)
        values = self._on_grid(self.values(centred)) * scale + self.values.shift
        return aligned if self.aligned_features else features, self._rotated(self.keys(centred), scale), values

    def _rotated(self, keys: Tensor, scale: Tensor) -> Tensor:
        """Keys on the grid, turned by their tokens' angles as `rotate_heads` does, with every head where it is.

        Pairs of channels are turned by 90° on the smaller map, and brought to the grid beside the others.
        """
        straight = self._on_grid(keys) * scale + self.keys.shift
        turned = self._on_grid(_turned(keys, self.rope)) * scale + _turned(self.keys.shift, self.rope)
        cosine, sine = self.rope.freqs_cos[:, None], self.rope.freqs_sin[:, None]
        return (_by_head(straight) * cosine + _by_head(turned) * sine).flatten(-2)

    def _on_grid(self, x: Tensor) -> Tensor:
        """[batch, blocks, n, channels] to [batch, blocks, grid², channels]."""
        side = math.isqrt(x.shape[2])
        if side == self.grid:
            return x
        across = torch.tensor(_interpolation(side, self.grid), dtype=x.dtype)
        rows = (across @ x.unflatten(2, (side, side)).flatten(3)).unflatten(3, (side, -1))
        return (across @ rows).flatten(2, 3)


class _Projection(nn.Module):
    """What every block's norm and matrix make of a map, but for the norm's mean and variance."""

    shift: Tensor

    def __init__(self, norms: Sequence[nn.LayerNorm], matrices: Sequence[nn.Linear]) -> None:
        super().__init__()
        pairs = list(zip(norms, matrices, strict=True))
        self.blocks = len(pairs)
        folded = torch.cat([matrix.weight * norm.weight for norm, matrix in pairs])
        self.weight = nn.Parameter(folded, requires_grad=False)
        shift = torch.stack([matrix.weight @ norm.bias for norm, matrix in pairs])
        self.shift = nn.Parameter(shift[:, None], requires_grad=False)  # [blocks, 1, channels]: of every token

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n, expert channels] to [batch, blocks, n, channels]."""
        return F.linear(x, self.weight).unflatten(2, (self.blocks, -1)).transpose(1, 2)


def _by_head(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, HEAD_DIM))


def _turned(x: Tensor, rope: Rotary) -> Tensor:
    """[..., channels] to the same, every pair by 90°: see `Rotary.forward`."""
    return (_by_head(x) @ rope.quarter_turn).flatten(-2)


def _interpolation(side: int, grid: int) -> list[list[float]]:
    """The matrix [grid, side] that resizes a line as `align` does: bilinearly, with half-pixel centres.

    Of plain numbers, which a traced graph holds as a constant.
    """
    matrix = [[0.0] * side for _ in range(grid)]
    for row, weights in enumerate(matrix):
        centre = max((row + 0.5) * side / grid - 0.5, 0)
        before = math.floor(centre)
        weights[before] += 1 - (centre - before)
        weights[min(before + 1, side - 1)] += centre - before
    return matrix
