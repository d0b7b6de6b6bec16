"""A run's inputs: what they must be, and how they come to where a pass reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mova_runtime.bundle.kernels import AdapterShape
from mova_runtime.engines.cuda.array import DeviceArray, form
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.engines.cuda_adapter.layout import Layout
from mova_runtime.engines.cuda_adapter.sizes import Sizes, cdiv
from mova_runtime.engines.cuda_adapter.work import Work
from mova_runtime.engines.host import arrays
from mova_runtime.engines.protocol import Array, Inputs
from mova_runtime.errors import BackendError

POINTER_MULTIPLE = 16
"""Bytes: kernels read float32 arrays from where they are if they begin at a multiple."""

_DTYPES: dict[str, Any] = {
    "base": np.float32,
    "text": np.float32,
    "keys": np.float32,
    "values": np.float32,
    "pair_image": np.int64,
    "pair_expert": np.int64,
}


@dataclass(frozen=True)
class Pairs:
    """Which image and expert each pair is of, [P] int64 each, among `batch` images."""

    batch: int
    image: np.ndarray
    expert: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


def check(inputs: Inputs, shape: AdapterShape) -> Pairs:
    """What a run is over.

    Raises:
        BackendError: an input is missing or unknown, or has another dtype or shape than the adapter's graph; a pair
            is of an image or expert that is not there, or stands twice.
    """
    if wrong := sorted({*inputs} ^ {*_DTYPES}):
        raise BackendError(f"takes {', '.join(_DTYPES)}; missing or unknown: {', '.join(wrong)}")
    shapes = {name: _shape(name, inputs[name]) for name in _DTYPES}
    tokens, cache = (shape.grid**2, shape.channels), (shape.blocks, shape.grid**2, shape.channels)
    if len(shapes["base"]) != 3 or shapes["base"][1:] != tokens or not shapes["base"][0]:
        raise BackendError(f"input 'base' has the shape {list(shapes['base'])}, needed is [batch, {_joined(tokens)}]")
    if len(shapes["pair_image"]) != 1:
        raise BackendError(f"input 'pair_image' has the shape {list(shapes['pair_image'])}, needed is [pairs]")
    batch, pairs = shapes["base"][0], shapes["pair_image"][0]
    wanted = {
        "text": (batch, shape.text_channels),
        "keys": (pairs, *cache),
        "values": (pairs, *cache),
        "pair_expert": (pairs,),
    }
    for name, needed in wanted.items():
        if shapes[name] != needed:
            raise BackendError(f"input {name!r} has the shape {list(shapes[name])}, needed is [{_joined(needed)}]")
    found = arrays({name: inputs[name] for name in ("pair_image", "pair_expert")})
    image, expert = found["pair_image"], found["pair_expert"]
    for name, numbers, end in (("pair_image", image, batch), ("pair_expert", expert, shape.experts)):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < end:
            raise BackendError(f"input {name!r} holds {numbers.tolist()}, of 0 to {end - 1}")
    if len({*zip(image.tolist(), expert.tolist(), strict=True)}) < len(image):
        raise BackendError("a pair of image and expert stands twice")
    return Pairs(batch, image, expert)


def copy_in(
    device: Device, work: Work, sizes: Sizes, at: Layout, weights: Mapping[str, int], inputs: Inputs, pairs: Pairs
) -> None:
    """Queue what brings checked inputs to where a pass reads them; host arrays must live until the device is done.

    Raises:
        BackendError: CUDA fails.
    """
    tokens, channels = sizes.tokens, sizes.shape.channels
    _view(device, at.base, (at.batch, tokens, channels)).fill(inputs["base"])
    _view(device, at.text, (at.batch, sizes.shape.text_channels)).fill(inputs["text"])
    device.upload(at.tables.start, tables(sizes, at, weights, pairs))
    for name, target in (("keys", at.keys), ("values", at.values)):
        _convert(device, work, sizes, at, inputs[name], target)


def tables(sizes: Sizes, at: Layout, weights: Mapping[str, int], pairs: Pairs) -> np.ndarray:
    """The tables of a run as bytes, [at.tables.bytes]; see `layout.Tables`."""
    packed, where, shape = np.zeros(at.tables.bytes, np.uint8), at.tables, sizes.shape
    image = sizes.tokens * shape.channels * sizes.item
    matrix = shape.channels**2 * sizes.item
    selected = np.zeros((at.batch, shape.experts), np.int32)
    selected[pairs.image, pairs.expert] = 1
    queries = [weights[f"blocks.{number}.query"] for number in range(shape.blocks)]
    for address, values in (
        (where.pair_image, pairs.image.astype(np.int32)),
        (where.pair_expert, pairs.expert.astype(np.int32)),
        (where.selected, selected),
        (where.itself, np.arange(at.batch, dtype=np.int32)),
        (where.zeros, np.zeros(at.batch, np.int32)),
        (where.ones, np.ones(at.batch, np.float32)),
        (where.normals, at.normal + pairs.image * image),
        (where.queries, at.experts.projected + np.arange(len(pairs)) * image),
        (where.matrices, np.array(queries, np.int64)[:, None] + pairs.expert * matrix),
    ):
        offset = address - where.start
        packed[offset : offset + values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return packed


def _convert(device: Device, work: Work, sizes: Sizes, at: Layout, value: Array | Sequence[Array], target: int) -> None:
    """Queue keys or values to T, a pair at a time; those that lie elsewhere on the device are read where they are."""
    shape = (sizes.shape.blocks, sizes.tokens, sizes.shape.channels)
    count = shape[0] * shape[1] * shape[2]
    for pair in range(at.pairs):
        part = value[pair]
        if isinstance(part, DeviceArray) and part.pointer % POINTER_MULTIPLE == 0:
            source = part.pointer
        else:
            source = _view(device, at.staging, shape).fill(part).pointer
        work.launch(
            "convert",
            (cdiv(count, work.constant("convert", "BLOCK")),),
            source=source,
            target=target + pair * count * sizes.item,
            count=count,
        )


def _view(device: Device, address: int, shape: tuple[int, ...]) -> DeviceArray:
    """A float32 array in the run's own memory."""
    return DeviceArray(device, shape, np.float32, address, owner=None)


def _shape(name: str, value: Array | Sequence[Array]) -> tuple[int, ...]:
    shape, dtype = form(value)
    if dtype != _DTYPES[name]:
        raise BackendError(f"input {name!r} is {dtype}, needed is {np.dtype(_DTYPES[name])}")
    return shape


def _joined(lengths: tuple[int, ...]) -> str:
    return ", ".join(map(str, lengths))
