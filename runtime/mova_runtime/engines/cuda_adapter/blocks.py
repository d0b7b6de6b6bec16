"""A block of the adapter: gate, attention to experts, self-attention, feed-forward; the residual stream is `at.x`.

The matrices that follow a LayerNorm hold its scale, and biases its shift, so one normalised copy of the tokens serves
all. A feed-forward layer's last bias is added by whoever reads the residual stream next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mova_runtime.engines.cuda_adapter.layout import ADDRESS, FLOAT32, Attention, Layout
from mova_runtime.engines.cuda_adapter.sizes import Sizes, cdiv
from mova_runtime.engines.cuda_adapter.work import Work


@dataclass(frozen=True)
class Block:
    """Queues the steps of one block. For its fields see `forward`; `number` counts blocks from 0."""

    work: Work
    sizes: Sizes
    at: Layout
    weights: Mapping[str, int]
    number: int

    def embed(self) -> None:
        """x, its LayerNorm, and its sums over tokens; the first block adds positions to the base features."""
        first = self.number == 0
        self.work.launch(
            "embed",
            (self.sizes.token_chunks, self.at.batch),
            source=self.at.base if first else self.at.x,
            addend=self.weights["pos_embed"] if first else self.weights[f"blocks.{self.number - 1}.mlp_out_bias"],
            x=self.at.x,
            normal=self.at.normal,
            sums=self.at.sums,
            tokens=self.sizes.tokens,
            addend_rows=self.sizes.tokens if first else 1,
        )

    def weigh(self) -> None:
        """The gate's weight of every expert for every image."""
        self.work.launch(
            "gate_partial",
            (self.sizes.gate_slices, self.at.batch),
            rows=self.at.sums,
            text=self.at.text,
            weight=self._weight("gate1"),
            partial=self.at.partial,
            count=self.sizes.token_chunks,
            scale=1 / self.sizes.tokens,
        )
        self.work.launch(
            "gate_weights",
            (self.at.batch,),
            partial=self.at.partial,
            bias1=self._weight("gate1_bias"),
            weight2=self._weight("gate2"),
            bias2=self._weight("gate2_bias"),
            selected=self.at.tables.selected,
            out=self._gates,
        )

    def attend_to_experts(self) -> None:
        """x += Σ over an image's pairs of the gate's weight · projected attention to the expert's keys and values."""
        tokens, channels = self.sizes.tokens, self.sizes.shape.channels
        at, tables = self.at.experts, self.at.tables
        matrices = tables.matrices + self.number * self.at.pairs * ADDRESS
        self.work.matmul_pairs(tables.normals, matrices, tables.queries, (tokens, channels, channels), self.at.pairs)
        cache = self.number * tokens * channels * self.sizes.item
        self._attend(
            "cross_attention",
            at,
            self.at.pairs,
            query=at.projected,
            key=self.at.keys + cache,
            value=self.at.values + cache,
            bias=self._weight("query_bias"),
            pair_row=tables.pair_expert,
            query_pair=tokens * channels,
            query_row=channels,
            key_pair=self.sizes.shape.blocks * tokens * channels,
            key_row=channels,
        )
        self._combine(
            at,
            "projection",
            gates=self._gates,
            pair_image=tables.pair_image,
            pair_expert=tables.pair_expert,
            pairs=self.at.pairs,
            gate_row=self.sizes.shape.experts,
        )

    def attend_to_itself(self) -> None:
        """x += projected attention of every image to its own tokens: a pair an image, of weight 1."""
        tokens, channels = self.sizes.tokens, self.sizes.shape.channels
        at, tables = self.at.itself, self.at.tables
        self._normalise()
        rows = self.at.batch * tokens
        self.work.matmul(self.at.normal, self._weight("qkv"), at.projected, (rows, 3 * channels, channels))
        self._attend(
            "self_attention",
            at,
            self.at.batch,
            query=at.projected,
            key=at.projected + channels * self.sizes.item,
            value=at.projected + 2 * channels * self.sizes.item,
            bias=self._weight("qkv_bias"),
            pair_row=tables.zeros,
            query_pair=3 * tokens * channels,
            query_row=3 * channels,
            key_pair=3 * tokens * channels,
            key_row=3 * channels,
        )
        self._combine(
            at,
            "self_projection",
            gates=tables.ones,
            pair_image=tables.itself,
            pair_expert=tables.zeros,
            pairs=self.at.batch,
            gate_row=1,
        )

    def feed_forward(self) -> None:
        """x += SwiGLU of its LayerNorm, the last bias excepted."""
        rows, channels, padded = self.at.batch * self.sizes.tokens, self.sizes.shape.channels, self.sizes.padded
        at = self.at.feed_forward
        self._normalise()
        self.work.matmul(self.at.normal, self._weight("mlp_in"), at.hidden, (rows, 2 * padded, channels))
        self.work.launch("swiglu", (rows,), hidden=at.hidden, bias=self._weight("mlp_in_bias"), out=at.activated)
        self.work.matmul(
            at.activated, self._weight("mlp_out"), self.at.x, (rows, channels, padded), float32=True, add=True
        )

    def _normalise(self) -> None:
        chunk = self.work.constant("normalise", "ROWS")
        self.work.launch(
            "normalise",
            (cdiv(self.sizes.tokens, chunk), self.at.batch),
            source=self.at.x,
            addend=self.at.x,
            x=self.at.x,
            normal=self.at.normal,
            sums=self.at.sums,
            tokens=self.sizes.tokens,
            addend_rows=1,
        )

    def _attend(self, kernel: str, at: Attention, pairs: int, **arguments: int) -> None:
        """Queue attention of so many pairs, and what each head's LayerNorm needs to know of it."""
        self.work.launch(
            kernel,
            (cdiv(self.sizes.tokens, self.work.constant(kernel, "BLOCK_M")), pairs * self.sizes.heads),
            out=at.attended,
            moments=at.moments,
            cosine=self.weights["cosine"],
            sine=self.weights["sine"],
            tokens=self.sizes.tokens,
            keys=self.sizes.tokens,
            **arguments,
        )

    def _combine(self, at: Attention, projection: str, **arguments: int) -> None:
        """Queue x += Σ weight · (LayerNorm(attended)·projectionᵀ + bias)."""
        m, n = (self.work.constant("combine", name) for name in ("BLOCK_M", "BLOCK_N"))
        self.work.launch(
            "combine",
            (cdiv(self.sizes.tokens, m) * cdiv(self.sizes.shape.channels, n), self.at.batch),
            attended=at.attended,
            moments=at.moments,
            weight=self._weight(projection),
            column_sums=self._weight(f"{projection}_sums"),
            bias=self._weight(f"{projection}_bias"),
            x=self.at.x,
            tokens=self.sizes.tokens,
            **arguments,
        )

    def _weight(self, name: str) -> int:
        return self.weights[f"blocks.{self.number}.{name}"]

    @property
    def _gates(self) -> int:
        return self.at.gates + self.number * self.at.batch * self.sizes.shape.experts * FLOAT32
