"""Arguments of the kernels that fuse: attention, gate, combination, squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mova_kernels.variants import HEAD_DIM
from on_gpu.drawing import BATCH, PAIR_EXPERT, PAIR_IMAGE, Arguments, Drawing, cdiv


class FusedArguments(Drawing):
    """A method a variant."""

    def cross_attention(self, constants: Mapping[str, int]) -> Arguments:
        pairs, tokens, c = len(PAIR_IMAGE), self.shape.tokens, self.shape.channels
        keys, values = (self.narrow(pairs, self.shape.blocks, tokens, c) for _ in range(2))
        query = self.narrow(pairs, tokens, c)
        block = self.shape.blocks - 1
        views = {"query": query, "key": keys[:, block], "value": values[:, block]}
        bias = self.draw(self.shape.experts, c)
        return self._attention(constants, views, bias, self.integers(*PAIR_EXPERT), self.shape.blocks * tokens * c, c)

    def self_attention(self, constants: Mapping[str, int]) -> Arguments:
        tokens, c = self.shape.tokens, self.shape.channels
        qkv = self.narrow(BATCH, tokens, 3 * c)
        views = {name: qkv[..., at * c :] for at, name in enumerate(("query", "key", "value"))}
        return self._attention(
            constants, views, self.draw(1, 3 * c), self.integers(*[0] * BATCH), tokens * 3 * c, 3 * c
        )

    def _attention(
        self, constants: Mapping[str, int], views: dict[str, Tensor], bias: Tensor, rows: Tensor, pair: int, row: int
    ) -> Arguments:
        tokens, c = self.shape.tokens, self.shape.channels
        pairs, heads = len(rows), c // HEAD_DIM
        angles = self.draw(tokens, HEAD_DIM // 2)
        return (cdiv(tokens, constants["BLOCK_M"]), pairs * heads), {
            **views,
            "out": self.empty(pairs, tokens, c),
            "moments": self.empty(pairs, heads, tokens, 2, dtype=torch.float32),
            "bias": bias,
            "pair_row": rows,
            "cosine": angles.cos(),
            "sine": angles.sin(),
            "tokens": tokens,
            "keys": tokens,
            "query_pair": views["query"].stride(0),
            "query_row": row,
            "key_pair": pair,
            "key_row": row,
        }

    def gate_partial(self, constants: Mapping[str, int]) -> Arguments:
        text, c, hidden = constants["CT"], constants["C"], constants["HID"]
        slices = cdiv(text, constants["BLOCK_K"]) + cdiv(c, constants["BLOCK_K"])
        count = cdiv(self.shape.tokens, 8)
        return (slices, BATCH), {
            "rows": self.draw(BATCH, count, c),
            "text": self.draw(BATCH, max(text, 1)),
            "weight": self.narrow(text + c, hidden, scale=(text + c) ** -0.5),
            "partial": self.empty(BATCH, slices, hidden, dtype=torch.float32),
            "count": count,
            "scale": 1 / self.shape.tokens,
        }

    squeeze = gate_partial

    def gate_weights(self, constants: Mapping[str, int]) -> Arguments:
        hidden, experts = constants["HID"], constants["EXPERTS"]
        selected = torch.zeros(BATCH, experts, dtype=torch.int32, device=self.device)
        selected[list(PAIR_IMAGE), list(PAIR_EXPERT)] = 1
        return (BATCH,), {
            "partial": self.draw(BATCH, constants["SLICES"], hidden, scale=constants["SLICES"] ** -0.5),
            "bias1": self.draw(hidden),
            "weight2": self.narrow(experts, hidden, scale=hidden**-0.5),
            "bias2": self.draw(experts),
            "selected": selected,
            "out": self.empty(BATCH, experts, dtype=torch.float32),
        }

    def combine(self, constants: Mapping[str, int]) -> Arguments:
        pairs, tokens, c, experts = len(PAIR_IMAGE), self.shape.tokens, self.shape.channels, self.shape.experts
        attended = self.narrow(pairs, tokens, c)
        by_head = attended.float().unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
        moments = torch.stack((by_head.mean(-1), by_head.var(-1, correction=0) * HEAD_DIM), dim=-1)
        weight = self.narrow(experts, c, c, scale=c**-0.5)
        return (cdiv(tokens, constants["BLOCK_M"]) * cdiv(c, constants["BLOCK_N"]), BATCH), {
            "attended": attended,
            "moments": moments.contiguous(),
            "weight": weight,
            "column_sums": weight.float().sum(-1),
            "bias": self.draw(experts, c),
            "gates": self.draw(BATCH, experts),
            "pair_image": self.integers(*PAIR_IMAGE),
            "pair_expert": self.integers(*PAIR_EXPERT),
            "x": self.draw(BATCH, tokens, c),
            "pairs": pairs,
            "tokens": tokens,
            "gate_row": experts,
        }

    def excite(self, constants: Mapping[str, int]) -> Arguments:
        slices, squeezed, c = constants["SLICES"], constants["HID"], constants["C"]
        return (cdiv(c, constants["BLOCK_N"]), BATCH), {
            "partial": self.draw(BATCH, slices, squeezed, scale=slices**-0.5),
            "bias1": self.draw(squeezed),
            "weight2": self.narrow(squeezed, c, scale=squeezed**-0.5),
            "bias2": self.draw(c),
            "out": self.empty(BATCH, c, dtype=torch.float32),
        }
