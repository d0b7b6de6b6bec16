"""An expert rewritten for a graph: one product makes the keys and values of all blocks, on the smaller of two maps.

The model (modules/expert.py) resizes a feature to the adapter's grid and then, a block at a time, norms and projects
it. Both the resizing, bilinear with weights that sum to 1, and the projection are linear, and the norm between them is
linear but for a factor a token:

    LayerNorm(A·f)·Wᵀ = (A·(f - mean f))·(γW)ᵀ / σ + β·Wᵀ,   σ² = var(A·f) + ε

where A acts on tokens and the rest on channels. So a map smaller than the grid is projected before it is resized:
BiomedCLIP's 196 tokens instead of 2304. The mean is taken off first, in which a narrow type would lose the rest.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.graphs.sam import SamGraph
from mova_export.modules.adapter.attention import rotate_heads
from mova_export.modules.align import align, resize
from mova_export.modules.expert import Expert
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
        matrices = [(block.norm, (block.k_proj, block.v_proj)) for block in expert.blocks]
        folded = [matrix.weight * norm.weight for norm, pair in matrices for matrix in pair]
        shifts = [matrix.weight @ norm.bias for norm, pair in matrices for matrix in pair]
        self.keys_and_values = nn.Parameter(torch.cat(folded), requires_grad=False)
        shift = torch.stack(shifts).unflatten(0, (self.blocks, 2, 1))  # the same for every token
        self.shift = nn.Parameter(shift, requires_grad=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Expert.forward`."""
        features = self.tower(image)
        aligned = align(features, self.grid)
        variance = aligned.var(dim=-1, correction=0, keepdim=True)
        small = features if features.shape[1] < aligned.shape[1] else aligned
        product = F.linear(small - small.mean(dim=-1, keepdim=True), self.keys_and_values)
        by_block = self._on_grid(product.transpose(1, 2)).unflatten(1, (self.blocks, 2, -1)).transpose(-2, -1)
        projected = by_block * (variance[:, None, None] + EPSILON).rsqrt() + self.shift
        keys, values = projected.unbind(2)
        return aligned if self.aligned_features else features, rotate_heads(keys, self.rope), values

    def _on_grid(self, x: Tensor) -> Tensor:
        """[batch, channels, n] to [batch, channels, grid²]."""
        if x.shape[2] == self.grid**2:
            return x
        return resize(x.unflatten(2, (math.isqrt(x.shape[2]), -1)), self.grid).flatten(2)
