"""Random weights that are a function of a tensor's name and a seed, so that anyone can make the same checkpoint."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

_POSITIONS = ("pos_embed", "rel_pos", "embeddings")
_ROTARY_BASE = 10000
_CODETR_PRETRAINED_SIDE = 16
_AT_ONCE = 1 << 18


def random_tensor(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """A weight, float32: matrices keep the scale of what passes through them, norms are near 1, the rest near 0.

    Args:
        name: the published name; decides the kind, and with `seed` every number.
        shape: of the tensor.
        seed: of the checkpoint.
    """
    if "freqs_" in name:
        return _rotary_table(name, shape)
    generator = np.random.RandomState((zlib.crc32(name.encode()) + seed) & 0x7FFFFFFF)
    noise = generator.standard_normal(tuple(shape)).astype(np.float32)
    is_patch_projection = "patch_embed" in name and "proj" in name
    if len(shape) >= 2 and (is_patch_projection or not any(part in name for part in _POSITIONS)):
        fan_in = math.prod(shape[1:])
        return np.asarray(noise / np.float32(np.sqrt(fan_in)))
    if len(shape) == 1 and name.endswith("weight"):
        return (1 + 0.1 * noise).astype(np.float32)
    return (0.05 * noise).astype(np.float32)


def random_language_tensor(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """A weight of a published language model: of the scales that `random_tensor` gives, and other numbers.

    Billions are made, so each is the sum of two uniform ones of 16 bits, eight times as fast as a normal one, and like
    it in all that rounding and products depend on: mean, deviation, and extremes 2.4 deviations away.
    """
    bits = np.random.SFC64([zlib.crc32(name.encode()), seed])
    weight = np.empty(math.prod(shape), np.float32)
    is_norm = len(shape) == 1 and name.endswith("weight")
    deviation = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1 if is_norm else 0.05
    for start in range(0, weight.size, _AT_ONCE):
        part = weight[start : start + _AT_ONCE]
        halves = bits.random_raw(-(-part.size // 2)).astype("<u8", copy=False).view("<i2")[: 2 * part.size]
        np.add(halves[::2], halves[1::2], out=part, dtype=np.float32)
        part *= np.float32(deviation * math.sqrt(6) / 2**16)
    if is_norm:
        weight += 1
    return weight.reshape(shape)


def _rotary_table(name: str, shape: Sequence[int]) -> np.ndarray:
    """Cosines or sines [tokens, head_dim] of a 2-D axial rotary embedding: rows in the first half, columns after.

    Positions run over the side the model was pretrained at: 16 for Co-DETR, the grid itself for the adapter.
    """
    tokens, head_dim = shape
    side, axis_dim = math.isqrt(tokens), head_dim // 2
    pretrained = _CODETR_PRETRAINED_SIDE if "vision_tower_3" in name else side
    position = np.arange(side, dtype=np.float32) / side * pretrained
    frequency = 1.0 / (_ROTARY_BASE ** (np.arange(0, axis_dim, 2, dtype=np.float32) / axis_dim))
    angle = np.outer(position, frequency).repeat(2, axis=1)
    rows = np.repeat(angle[:, None], side, axis=1)
    columns = np.repeat(angle[None], side, axis=0)
    table = np.concatenate((rows, columns), axis=-1).reshape(tokens, head_dim)
    return (np.cos(table) if "cos" in name else np.sin(table)).astype(np.float32)
