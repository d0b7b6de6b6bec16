"""A matrix product and the LayerNorm before it, as one matrix and one bias.

LN(a)·Wᵀ + b = n(a)·(W·diag(s))ᵀ + (W·t + b), where n is LN without its scale s and shift t. Products are taken in
float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from mova_export.errors import ExportError
from mova_export.kernels.parameters import Read

DTYPES: dict[str, np.dtype] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
"""numpy's, by the name a packed tensor has for it."""


@dataclass(frozen=True)
class Linear:
    """A product with W [output, input].

    bias: [output]; scale, shift: [input], of the norm before it; each may be absent. padded: W's shape with zeros below
    and beside it.
    """

    weight: Read
    bias: Read | None = None
    scale: Read | None = None
    shift: Read | None = None
    padded: tuple[int, int] | None = None

    def matrix(self) -> np.ndarray:
        """W·diag(s) [output, input] float64, padded."""
        weight = _wide(self.weight)
        folded = weight * _wide(self.scale) if self.scale else weight
        return _padded(folded, self.padded) if self.padded else folded

    def offset(self) -> np.ndarray:
        """W·t + b [output] float64, padded; there is a bias or a shift."""
        total = _wide(self.weight) @ _wide(self.shift) if self.shift else np.float64(0)
        total = total + _wide(self.bias) if self.bias else total
        return _padded(total, self.padded[:1]) if self.padded else total


def rounded(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Values in a type of DTYPES, contiguous; `name` is for the message.

    Raises:
        ExportError: the type can't hold one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        exact = _sticky(values) if dtype == "bf16" and values.dtype == np.float64 else values
        array = np.ascontiguousarray(exact, dtype=DTYPES[dtype])
    if not np.isfinite(array).all():
        raise ExportError(f"the adapter's {name!r} has values that {dtype} can't hold; try another --precision")
    return array


def column_sums(linear: Linear, dtype: str, name: str) -> np.ndarray:
    """Sums over the inputs of the matrix as rounded, [output] float64: by them a mean leaves a product afterwards."""
    sums: np.ndarray = rounded(linear.matrix(), dtype, name).astype(np.float64).sum(axis=1)
    return sums


def _sticky(values: np.ndarray) -> np.ndarray:
    """float64 as float32, rounded to odd: what is rounded to bfloat16 next is rounded as if it were the first time.

    Such a conversion goes through float32, and nearest of nearest is not nearest (Boldo, Melquiond, 2008).
    """
    single = values.astype(np.float32)
    single = np.where(np.abs(single) > np.abs(values), np.nextafter(single, np.float32(0)), single)
    odd: np.ndarray = (single.view(np.uint32) | (single != values)).view(np.float32)
    return odd


def _wide(read: Read) -> np.ndarray:
    return read().astype(np.float64)


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.pad(array, [(0, size - had) for size, had in zip(shape, array.shape, strict=True)])
