"""Sizes of a pass: the adapter's, and how its kernels cut their work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mova_runtime.bundle.kernels import AdapterShape

HEAD_DIM = 64
PADDING = 64
"""SwiGLU's hidden columns are padded to a multiple of it."""

ITEM_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Of an element, by Triton's name of its type."""


@dataclass(frozen=True)
class Sizes:
    """Of an adapter and its kernels; axis names as in `mova_runtime.bundle.kernels.AdapterShape`.

    item: bytes of an element of T; token_chunk, map_chunk: tokens that `embed` and `depthwise_norm` sum up together;
    gate_slices, squeeze_slices: partial products of the two small networks' first layers.
    """

    shape: AdapterShape
    item: int
    token_chunk: int
    map_chunk: int
    gate_slices: int
    squeeze_slices: int

    @classmethod
    def of(cls, shape: AdapterShape, precision: str, constant: Callable[[str, str], int]) -> Sizes:
        """An adapter's; `constant` tells what a kernel was compiled with, as `Work.constant` does."""
        return cls(
            shape=shape,
            item=ITEM_BYTES[precision],
            token_chunk=constant("embed", "ROWS"),
            map_chunk=constant("depthwise_norm", "ROWS"),
            gate_slices=constant("gate_weights", "SLICES"),
            squeeze_slices=constant("excite", "SLICES"),
        )

    @property
    def tokens(self) -> int:
        """L, of one image."""
        return self.shape.grid**2

    @property
    def visual_tokens(self) -> int:
        """Tokens of one image after pooling."""
        return (self.shape.grid // 2) ** 2

    @property
    def heads(self) -> int:
        """H."""
        return self.shape.channels // HEAD_DIM

    @property
    def padded(self) -> int:
        """FP: SwiGLU's hidden columns with their padding."""
        return cdiv(self.shape.feed_forward, PADDING) * PADDING

    @property
    def token_chunks(self) -> int:
        """Partial sums of one image's tokens."""
        return cdiv(self.tokens, self.token_chunk)


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
