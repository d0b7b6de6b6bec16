"""The packed weights in the GPU's memory: uploaded once, found by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mova_runtime.bundle.kernels import AdapterShape, AdapterWeights
from mova_runtime.engines.cuda.memory import ALIGNMENT, Buffer, Device
from mova_runtime.engines.cuda_adapter.sizes import HEAD_DIM, ITEM_BYTES, PADDING, cdiv
from mova_runtime.errors import IntegrityError

Expected: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""By tensor, its type as Triton writes it, and its shape."""


class Weights:
    """An adapter's weights, resident."""

    def __init__(self, device: Device, path: Path, record: AdapterWeights) -> None:
        """Upload a weights file, whose bytes are known to be what its record says.

        Raises:
            IntegrityError: its tensors are not those of an adapter of its shape.
            BackendError: there is no room.
        """
        check(record)
        data = np.memmap(path, np.uint8, "r")
        self._buffer = Buffer(device, data.nbytes)
        device.upload(self._buffer.pointer, data)
        device.synchronise()
        self.addresses = {name: self._buffer.pointer + tensor.offset for name, tensor in record.tensors.items()}
        """By name."""


def check(record: AdapterWeights) -> None:
    """See that a record lists an adapter's tensors, each within the file: kernels read whatever lies where it says.

    Raises:
        IntegrityError: it does not.
    """
    wanted = expected(record.shape, record.precision)
    if wrong := sorted({*record.tensors} ^ {*wanted}):
        raise IntegrityError(f"{record.file.path}: tensors missing or unknown: {', '.join(wrong)}")
    for name, (dtype, shape) in wanted.items():
        tensor = record.tensors[name]
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise IntegrityError(
                f"{record.file.path}: {name} is {tensor.dtype} {list(tensor.shape)}, needed is {dtype} {list(shape)}"
            )
        end = tensor.offset + ITEM_BYTES[dtype] * math.prod(shape)
        if tensor.offset % ALIGNMENT or not 0 <= tensor.offset <= end <= record.file.bytes:
            raise IntegrityError(f"{record.file.path}: {name} can't lie at byte {tensor.offset}")


def expected(shape: AdapterShape, precision: str) -> Expected:
    """The tensors of an adapter's weights; matrices in `precision`, everything else in float32."""
    t, f = precision, "fp32"
    c, tokens, hidden = shape.channels, shape.grid**2, shape.hidden
    found: Expected = {
        "pos_embed": (f, (tokens, c)),
        "cosine": (f, (tokens, HEAD_DIM // 2)),
        "sine": (f, (tokens, HEAD_DIM // 2)),
        "head.0": (t, (hidden, c)),
        "head.0_bias": (f, (hidden,)),
        "head.2": (t, (hidden, hidden)),
        "head.2_bias": (f, (hidden,)),
    }
    for number in range(shape.blocks):
        found |= {f"blocks.{number}.{name}": value for name, value in _block(shape, t, f).items()}
    for number in range(2):
        found |= {f"stages.{number}.{name}": value for name, value in _stage(shape, t, f).items()}
    return found


def _block(shape: AdapterShape, t: str, f: str) -> Expected:
    c, experts, padded = shape.channels, shape.experts, cdiv(shape.feed_forward, PADDING) * PADDING
    return {
        "query": (t, (experts, c, c)),
        "query_bias": (f, (experts, c)),
        "projection": (t, (experts, c, c)),
        "projection_sums": (f, (experts, c)),
        "projection_bias": (f, (experts, c)),
        "gate1": (t, (shape.text_channels + c, c)),
        "gate1_bias": (f, (c,)),
        "gate2": (t, (experts, c)),
        "gate2_bias": (f, (experts,)),
        "qkv": (t, (3 * c, c)),
        "qkv_bias": (f, (1, 3 * c)),
        "self_projection": (t, (1, c, c)),
        "self_projection_sums": (f, (1, c)),
        "self_projection_bias": (f, (1, c)),
        "mlp_in": (t, (2 * padded, c)),
        "mlp_in_bias": (f, (2 * padded,)),
        "mlp_out": (t, (c, padded)),
        "mlp_out_bias": (f, (c,)),
    }


def _stage(shape: AdapterShape, t: str, f: str) -> Expected:
    c, squeezed = shape.channels, shape.squeezed
    return {
        "conv1": (t, (c, c)),
        "norm1_weight": (f, (c,)),
        "norm1_bias": (f, (c,)),
        "depthwise": (f, (9, c)),
        "norm2_weight": (f, (c,)),
        "norm2_bias": (f, (c,)),
        "squeeze": (t, (c, squeezed)),
        "squeeze_bias": (f, (squeezed,)),
        "excite": (t, (squeezed, c)),
        "excite_bias": (f, (c,)),
        "conv3": (t, (c, c)),
        "norm3_weight": (f, (c,)),
        "norm3_bias": (f, (c,)),
    }
