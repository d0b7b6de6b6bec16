"""The published pipeline's way from an image and a question to visual tokens, in eager torch.

Every tower stays in memory, and the adapter runs twice, its text encoder with it: without experts for the router, with
the chosen ones for the answer. An expert that was not chosen has zeros for its feature and for what it adds; both are
carried through the sums, but its tower and its attention do not run, as in the published code for one image. What that
code writes out as two products and a softmax is torch's fused attention here, the quicker of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mova_export.checkpoint.layout import EXPERTS
from mova_export.checkpoint.source import Source
from mova_export.modules.adapter.adapter import MovAdapter
from mova_export.modules.adapter.attention import HEAD_DIM, CrossAttention, rotate_heads
from mova_export.modules.adapter.block import AdapterBlock
from mova_export.modules.align import align
from mova_export.modules.expert import Expert


@dataclass(frozen=True)
class Passes:
    """Visual tokens [1, T, H] of both passes: without experts, which the router sees pooled, and with them."""

    routing: Tensor
    visual: Tensor


class Published:
    """All towers, the text encoder and the adapter of a model, in one precision."""

    def __init__(self, source: Source, dtype: torch.dtype, say: Callable[[str], None] = lambda _: None) -> None:
        """Load everything; float32 weights are there for one component at a time.

        Args:
            source: where the weights come from.
            dtype: of weights and activations.
            say: is told what is loaded.
        """

        def load(component: str) -> torch.nn.Module:
            say(component)
            return source.load(component).to(dtype)

        self.dtype = dtype
        self.base, self.text = load("base"), load("text")
        self.experts = {name: cast(Expert, load(name)) for name in EXPERTS}
        self.adapter = cast(MovAdapter, load("adapter"))
        self._grid = self.adapter.config.grid

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor], ids: Tensor, mask: Tensor, chosen: Collection[str]) -> Passes:
        """Both passes.

        Args:
            inputs: the image for "base" and for each chosen expert, [1, ...] float32 as that tower takes it.
            ids, mask: [1, n] int64, the question for the text encoder.
            chosen: names of experts.
        """
        base = self.base(inputs["base"].to(self.dtype))
        routing = self._fuse(base, {}, ids, mask)
        features = {}
        for name in chosen:
            features[name] = self.experts[name].tower(inputs[name].to(self.dtype))
        return Passes(routing, self._fuse(base, features, ids, mask))

    def _fuse(self, base: Tensor, features: Mapping[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
        """The adapter, from base features [1, L, C] and those of the chosen experts [1, n, Cₑ]."""
        widths = [base.shape[-1], *(self._width(name) for name in EXPERTS)]
        nothing = [base.new_zeros(*base.shape[:-1], width) for width in widths[1:]]
        parts = [
            align(features[name], self._grid) if name in features else zeros
            for name, zeros in zip(EXPERTS, nothing, strict=True)
        ]
        # Side by side in one tensor, which is how the towers hand them to the adapter.
        aligned = dict(zip(EXPERTS, torch.cat((base, *parts), dim=-1).split(widths, dim=-1)[1:], strict=True))
        selected = base.new_tensor([[float(name in features) for name in EXPERTS]])
        text = self.text(ids, mask)
        x = base + self.adapter.pos_embed
        for number, block in enumerate(self.adapter.blocks):
            weights = block.weights(x, text, selected).to(x.dtype)
            added = [
                self._contribution(block, number, name, x, aligned[name]) if name in features else torch.zeros_like(x)
                for name in EXPERTS
            ]
            x = x + (torch.stack(added, dim=1) * weights[:, :, None, None]).sum(dim=1)
            own, normalised = block.self_attn, block.norm3(x)
            keys = rotate_heads(own.k_proj(normalised), own.rope)
            x = x + _attend(own, normalised, keys, own.v_proj(normalised))
            x = x + block.mlp(block.norm4(x))
        return self.adapter.project(x, base)

    def _contribution(self, block: AdapterBlock, number: int, name: str, x: Tensor, feature: Tensor) -> Tensor:
        """What one expert has to add to x [1, L, C] in a block, before it is weighed."""
        expert = EXPERTS.index(name)
        keys, values = self.experts[name].blocks[number](feature)
        return _attend(block.cross_attn[expert], block.norm1[expert](x), keys, values)

    def _width(self, name: str) -> int:
        """Channels of an expert's feature."""
        return self.experts[name].blocks[0].k_proj.in_features


def _attend(attention: CrossAttention, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of x to keys (rotated) and values, with its norm and projection; every argument [1, tokens, C]."""
    rows = (rotate_heads(attention.q_proj(x), attention.rope), keys, values)
    query, key, value = (row.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for row in rows)
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return cast(Tensor, attention.proj(attention.inner_attn_ln(attended)))
