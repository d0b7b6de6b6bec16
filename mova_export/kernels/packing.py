"""What the kernels read, made of the adapter's parameters: each tensor's name, type, shape, and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mova_export.errors import ExportError
from mova_export.kernels.linear import Linear, column_sums, rounded
from mova_export.kernels.parameters import Parameters, Read
from mova_kernels.variants import HEAD_DIM, padded
from mova_runtime.bundle.kernels import AdapterShape
from mova_runtime.bundle.manifest import Precision

_PARTS = ("weight", "bias")


@dataclass(frozen=True)
class Packing:
    """A tensor to be packed; pieces: its values in order, cut along the first axis or axes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[np.ndarray]]

    def values(self) -> Iterator[np.ndarray]:
        """The pieces in the tensor's type, one at a time.

        Raises:
            ExportError: the type can't hold a value.
        """
        for piece in self.pieces():
            yield rounded(piece, self.dtype, self.name)


def plan(parameters: Parameters, shape: AdapterShape, precision: Precision) -> list[Packing]:
    """Every tensor that the kernels read, in the order of the file.

    Raises:
        ExportError: the graph lacks a parameter, or one has another shape than the adapter's sizes ask for.
    """
    return _Plan(parameters, shape, precision).tensors()


class _Plan:
    def __init__(self, parameters: Parameters, shape: AdapterShape, precision: Precision) -> None:
        self._read = parameters.reader
        self._size = shape
        self._precision = precision
        self._tensors: list[Packing] = []

    def tensors(self) -> list[Packing]:
        size, c = self._size, self._size.channels
        position = self._read("adapter.pos_embed", 1, size.grid**2, c)
        self._vector("pos_embed", position, size.grid**2, c)
        for name, table in (("cosine", "freqs_cos"), ("sine", "freqs_sin")):
            self._vector(name, self._rotary(table), size.grid**2, HEAD_DIM // 2)
        for block in range(size.blocks):
            self._experts(f"blocks.{block}.")
            self._gate(f"blocks.{block}.", f"blocks.{block}.block.gate.")
            self._mix(f"blocks.{block}.", f"blocks.{block}.block.")
        for stage, place in enumerate((0, 2)):
            self._stage(f"stages.{stage}.", f"adapter.downsample.{place}.b1.")
        for layer, width in ((0, c), (2, size.hidden)):
            weight, bias = self._linear(f"adapter.mlp.{layer}", size.hidden, width)
            self._matrices(f"head.{layer}", [Linear(weight, bias)], size.hidden, width)
        return self._tensors

    def _experts(self, name: str) -> None:
        """Query and output projection of the block's cross-attention, stacked over experts as in the graph."""
        e, c = self._size.experts, self._size.channels
        for packed, weight, norm, bias in (
            ("query", "query", "query", None),
            ("projection", "projection", "norm", "projection_bias"),
        ):
            matrices = self._read(name + weight, e, c, c)  # [expert, input, output]
            scale, shift = (self._read(f"{name}{norm}_{part}", e, c) for part in ("scale", "shift"))
            biases = self._read(name + bias, e, c) if bias else None
            linears = [
                Linear(
                    weight=_turned(_of(matrices, expert)),
                    bias=_of(biases, expert) if biases else None,
                    scale=_of(scale, expert),
                    shift=_of(shift, expert),
                )
                for expert in range(e)
            ]
            self._matrices(name + packed, linears, e, c, c, sums=bias is not None)

    def _gate(self, name: str, source: str) -> None:
        size, c = self._size, self._size.channels
        weight, bias = self._linear(f"{source}0", c, size.text_channels + c)
        self._transposed(f"{name}gate1", weight, bias, size.text_channels + c, c)
        weight, bias = self._linear(f"{source}2", size.experts, c)
        self._matrices(f"{name}gate2", [Linear(weight, bias)], size.experts, c)

    def _mix(self, name: str, source: str) -> None:
        """Self-attention and feed-forward of the block."""
        c, f = self._size.channels, self._size.feed_forward
        fp = padded(f)
        attention = f"{source}self_attn."
        scale, shift = self._norm(f"{source}norm3", c)
        qkv = [Linear(self._read(f"{attention}{part}_proj.weight", c, c), None, scale, shift) for part in "qkv"]
        self._matrices(f"{name}qkv", qkv, 3 * c, c, bias_shape=(1, 3 * c))
        norm = self._norm(f"{attention}inner_attn_ln", c)
        projection = Linear(*self._linear(f"{attention}proj", c, c), *norm)
        self._matrices(f"{name}self_projection", [projection], 1, c, c, sums=True)
        norm = self._norm(f"{source}norm4", c)
        halves = [Linear(*self._linear(f"{source}mlp.{part}", f, c), *norm, (fp, c)) for part in ("w1", "w2")]
        self._matrices(f"{name}mlp_in", halves, 2 * fp, c)
        norm = self._norm(f"{source}mlp.ffn_ln", f)
        out = Linear(*self._linear(f"{source}mlp.w3", c, f), *norm, (c, fp))
        self._matrices(f"{name}mlp_out", [out], c, fp)

    def _stage(self, name: str, source: str) -> None:
        c, squeezed = self._size.channels, self._size.squeezed
        for conv in (1, 3):
            weight = _flat(self._read(f"{source}conv{conv}.conv.weight", c, c, 1, 1), c, c)
            self._add(f"{name}conv{conv}", self._precision, (c, c), [weight])
        for norm in (1, 2, 3):
            for part, read in zip(_PARTS, self._norm(f"{source}conv{norm}.bn", c), strict=True):
                self._vector(f"{name}norm{norm}_{part}", read, c)
        taps = _turned(_flat(self._read(f"{source}conv2.conv.weight", c, 1, 3, 3), c, 9))
        self._vector(f"{name}depthwise", taps, 9, c)
        for packed, layer, rows, columns in (("squeeze", "fc1", squeezed, c), ("excite", "fc2", c, squeezed)):
            weight = _flat(self._read(f"{source}se.{layer}.weight", rows, columns, 1, 1), rows, columns)
            bias = self._read(f"{source}se.{layer}.bias", rows)
            self._transposed(f"{name}{packed}", weight, bias, columns, rows)

    def _linear(self, source: str, outputs: int, inputs: int) -> tuple[Read, Read]:
        return self._read(f"{source}.weight", outputs, inputs), self._read(f"{source}.bias", outputs)

    def _norm(self, source: str, width: int) -> tuple[Read, Read]:
        return self._read(f"{source}.weight", width), self._read(f"{source}.bias", width)

    def _rotary(self, table: str) -> Read:
        """One entry a pair of channels, of the table that all blocks share."""
        tokens = self._size.grid**2
        tables = [self._read(f"blocks.{b}.rope.{table}", tokens, HEAD_DIM) for b in range(self._size.blocks)]

        def read() -> np.ndarray:
            first = tables[0]()
            if not all(np.array_equal(first, other()) for other in tables[1:]):
                raise ExportError(f"the adapter's rotary tables {table} differ from block to block: kernels read one")
            if not np.array_equal(first[:, 0::2], first[:, 1::2]):
                raise ExportError(f"the adapter's rotary table {table} turns the two channels of a pair differently")
            return first[:, 0::2]

        return read

    def _matrices(
        self, name: str, linears: Sequence[Linear], *shape: int, sums: bool = False, bias_shape: tuple[int, ...] = ()
    ) -> None:
        """Matrices one below the other, and their biases; with `sums` also their column sums."""
        outer = shape[:-1]
        self._add(name, self._precision, shape, [linear.matrix for linear in linears])
        if sums:
            summed = [partial(column_sums, linear, self._precision, name) for linear in linears]
            self._add(f"{name}_sums", "fp32", outer, summed)
        self._add(f"{name}_bias", "fp32", bias_shape or outer, [linear.offset for linear in linears])

    def _transposed(self, name: str, weight: Read, bias: Read, *shape: int) -> None:
        """A matrix as [input, output], and its bias."""
        self._add(name, self._precision, shape, [_turned(weight)])
        self._vector(f"{name}_bias", bias, shape[-1])

    def _vector(self, name: str, read: Read, *shape: int) -> None:
        self._add(name, "fp32", shape, [read])

    def _add(self, name: str, dtype: str, shape: tuple[int, ...], reads: Sequence[Read]) -> None:
        self._tensors.append(Packing(name, dtype, shape, lambda: (read() for read in reads)))


def _of(stacked: Read, expert: int) -> Read:
    return lambda: stacked()[expert]


def _turned(matrix: Read) -> Read:
    return lambda: matrix().T


def _flat(kernel: Read, rows: int, columns: int) -> Read:
    """A convolution's weight as a matrix."""
    return lambda: kernel().reshape(rows, columns)
