"""The adapter rewritten for a graph: all (image, expert) pairs at once, any number of them, zero included.

The model (modules/adapter) loops over images and experts; a graph can't. Here each pair gathers its expert's matrices
and its image's tokens, and a 0/1 matrix [batch, pairs] sums the pairs back into their images. A pair costs what one
expert costs; an expert that no image chose costs nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.modules.adapter.adapter import MovAdapter
from mova_export.modules.adapter.attention import HEAD_DIM, rotate_heads
from mova_export.modules.adapter.block import AdapterBlock
from mova_export.modules.typed import ModuleListOf
from mova_kernels.combine.reference import EPSILON
from mova_kernels.cross_attention.reference import attention


def _stack(tensors: list[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack(tensors), requires_grad=False)


def _of(stacked: Tensor, expert: Tensor) -> Tensor:
    """Each pair's entry of a parameter stacked over experts; becomes one Gather."""
    return stacked.index_select(0, expert)


class PairedBlock(nn.Module):
    """One adapter block whose experts' parameters are stacked along a leading axis, to be gathered by pair."""

    def __init__(self, block: AdapterBlock) -> None:
        super().__init__()
        self.block = block
        crosses = list(block.cross_attn)
        self.rope = block.self_attn.rope
        for cross in crosses:
            if not torch.equal(cross.rope.freqs_cos, self.rope.freqs_cos):
                raise ValueError("the adapter's rotary tables differ from expert to expert")
        self.query_scale = _stack([norm.weight for norm in block.norm1])
        self.query_shift = _stack([norm.bias for norm in block.norm1])
        self.query = _stack([cross.q_proj.weight.T for cross in crosses])
        self.norm_scale = _stack([cross.inner_attn_ln.weight for cross in crosses])
        self.norm_shift = _stack([cross.inner_attn_ln.bias for cross in crosses])
        self.projection = _stack([cross.proj.weight.T for cross in crosses])
        self.projection_bias = _stack([cross.proj.bias for cross in crosses])

    def fuse(self, x: Tensor, keys: Tensor, values: Tensor, weights: Tensor, belongs: Tensor, expert: Tensor) -> Tensor:
        """Add every pair's contribution to its image.

        Args:
            x: [batch, tokens, channels].
            keys: [pairs, tokens, channels].
            values: [pairs, tokens, channels].
            weights: [batch, pairs], the gate's weight where the pair is the image's, else 0.
            belongs: [batch, pairs], 1 where the pair is the image's.
            expert: [pairs] int64.

        Returns:
            [batch, tokens, channels].
        """
        # LayerNorm without its affine part depends on the image alone; the part that depends on the expert follows.
        plain = F.layer_norm(x, x.shape[-1:], eps=EPSILON)
        of_pair = torch.matmul(belongs.T, plain.flatten(1)).unflatten(1, plain.shape[1:])
        normalised = of_pair * _of(self.query_scale, expert)[:, None] + _of(self.query_shift, expert)[:, None]
        query = rotate_heads(torch.bmm(normalised, _of(self.query, expert)), self.rope)

        attended = attention(query, keys, values, query.shape[-1] // HEAD_DIM)
        attended = F.layer_norm(attended, attended.shape[-1:], eps=EPSILON)
        attended = attended * _of(self.norm_scale, expert)[:, None] + _of(self.norm_shift, expert)[:, None]
        out = torch.bmm(attended, _of(self.projection, expert)) + _of(self.projection_bias, expert)[:, None]

        return x + torch.matmul(weights, out.flatten(1)).unflatten(1, x.shape[1:])


class AdapterGraph(nn.Module):
    """The whole adapter over pairs; same arguments and results as `MovAdapter`."""

    def __init__(self, adapter: MovAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.blocks = ModuleListOf[PairedBlock](PairedBlock(block) for block in adapter.blocks)

    def forward(
        self, base: Tensor, text: Tensor, keys: Tensor, values: Tensor, pair_image: Tensor, pair_expert: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `MovAdapter.forward`."""
        images = torch.arange(base.shape[0], device=base.device)
        belongs = (images[:, None] == pair_image[None]).to(base.dtype)
        experts = torch.arange(self.adapter.config.experts, device=base.device)
        chose = (pair_expert[:, None] == experts[None]).to(base.dtype)
        selected = torch.matmul(belongs, chose)

        x = base + self.adapter.pos_embed
        gates = []
        for b, paired in enumerate(self.blocks):
            block = paired.block
            gate = block.weights(x, text, selected)
            gates.append(gate)
            weights = belongs * torch.matmul(gate, chose.T)
            x = paired.fuse(x, keys[:, b], values[:, b], weights, belongs, pair_expert)
            x = block.mix(x)
        return self.adapter.project(x, base), torch.stack(gates)
