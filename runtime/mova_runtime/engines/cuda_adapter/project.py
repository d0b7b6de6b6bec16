"""The adapter's end: average with the base features, a RegNet stage, pooling, a stage, two layers to visual tokens.

A stage begins with the map at `at.normal`; its steps write to `at.head.left` and `at.head.right` in turn, and it ends
in `right`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mova_runtime.engines.cuda_adapter.layout import Layout
from mova_runtime.engines.cuda_adapter.sizes import Sizes, cdiv
from mova_runtime.engines.cuda_adapter.work import Work


@dataclass(frozen=True)
class End:
    """Queues the steps after the last block. For its fields see `forward`."""

    work: Work
    sizes: Sizes
    at: Layout
    weights: Mapping[str, int]

    def average(self) -> None:
        """Half of residual stream, the last block's missing bias, and base features."""
        self._flat(
            "average",
            self.at.batch * self.sizes.tokens * self.sizes.shape.channels,
            x=self.at.x,
            addend=self.weights[f"blocks.{self.sizes.shape.blocks - 1}.mlp_out_bias"],
            base=self.at.base,
            out=self.at.normal,
        )

    def stage(self, number: int) -> None:
        """1×1, depthwise 3×3, squeeze-excite, 1×1, added to the map it began with; 0 before pooling, 1 after."""
        shape, head = self.sizes.shape, self.at.head
        side = shape.grid >> number
        tokens, channels = side**2, shape.channels
        rows = self.at.batch * tokens
        weight = {name: self.weights[f"stages.{number}.{name}"] for name in _STAGE}

        self.work.matmul(self.at.normal, weight["conv1"], head.left, (rows, channels, channels))
        self._norm("norm_silu", rows, weight["norm1_weight"], weight["norm1_bias"])
        chunks = cdiv(tokens, self.sizes.map_chunk)
        self.work.launch(
            "depthwise_norm",
            (chunks, self.at.batch),
            x=head.right,
            weight=weight["depthwise"],
            norm_weight=weight["norm2_weight"],
            norm_bias=weight["norm2_bias"],
            out=head.left,
            sums=self.at.sums,
            side=side,
        )
        self.work.launch(
            "squeeze",
            (self.sizes.squeeze_slices, self.at.batch),
            rows=self.at.sums,
            text=self.at.text,  # of which it reads nothing
            weight=weight["squeeze"],
            partial=self.at.partial,
            count=chunks,
            scale=1 / tokens,
        )
        self.work.launch(
            "excite",
            (cdiv(channels, self.work.constant("excite", "BLOCK_N")), self.at.batch),
            partial=self.at.partial,
            bias1=weight["squeeze_bias"],
            weight2=weight["excite"],
            bias2=weight["excite_bias"],
            out=head.scale,
        )
        self._flat("scale_channels", rows * channels, x=head.left, scale=head.scale, out=head.right, tokens=tokens)
        self.work.matmul(head.right, weight["conv3"], head.left, (rows, channels, channels))
        self._norm("norm_residual", rows, weight["norm3_weight"], weight["norm3_bias"])

    def pool(self) -> None:
        """Average 2×2: from the first stage's end to the second's beginning."""
        count = self.at.batch * self.sizes.visual_tokens * self.sizes.shape.channels
        self._flat("pool", count, x=self.at.head.right, out=self.at.normal, side=self.sizes.shape.grid)

    def widen(self) -> None:
        """Two layers with GELU between, to the language model's width; the last in float32."""
        rows, hidden, head = self.at.batch * self.sizes.visual_tokens, self.sizes.shape.hidden, self.at.head
        self.work.matmul(head.right, self.weights["head.0"], head.wide, (rows, hidden, self.sizes.shape.channels))
        self._flat("bias_gelu", rows * hidden, x=head.wide, bias=self.weights["head.0_bias"], out=head.wide)
        self.work.matmul(head.wide, self.weights["head.2"], head.visual, (rows, hidden, hidden), float32=True)
        self._flat("bias", rows * hidden, x=head.visual, bias=self.weights["head.2_bias"], out=head.visual)

    def _norm(self, kernel: str, rows: int, weight: int, bias: int) -> None:
        """Queue a LayerNorm from `left` to `right`; one that adds a residual adds the map the stage began with."""
        head = self.at.head
        self.work.launch(
            kernel, (rows,), x=head.left, weight=weight, bias=bias, residual=self.at.normal, out=head.right
        )

    def _flat(self, kernel: str, count: int, **arguments: int) -> None:
        """Queue a kernel over `count` elements."""
        self.work.launch(kernel, (cdiv(count, self.work.constant(kernel, "BLOCK")),), count=count, **arguments)


_STAGE = (
    "conv1",
    "norm1_weight",
    "norm1_bias",
    "depthwise",
    "norm2_weight",
    "norm2_bias",
    "squeeze",
    "squeeze_bias",
    "excite",
    "excite_bias",
    "conv3",
    "norm3_weight",
    "norm3_bias",
)
