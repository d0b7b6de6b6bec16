"""How far an engine's output is from torch's, as a whole and where it is worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mova_runtime.bundle.manifest import Parity


@dataclass(frozen=True)
class Difference:
    """One output x against the expected y, accumulated in float64.

    cosine: x·y / (‖x‖₂ ‖y‖₂); 1 where both are zero.
    relative_l2: ‖x - y‖₂ / ‖y‖₂.
    max_abs: max |x - y|, found at index `worst`.
    worst_row: the largest ‖xᵢ - yᵢ‖₂ of a row (the last axis), over the root mean square of ‖yᵢ‖₂. A fault in one token
        of thousands moves the other figures little; this one it moves to 1.
    NaN in x makes every figure NaN; another shape makes them the worst there is.
    """

    output: str
    cosine: float
    relative_l2: float
    max_abs: float
    worst: tuple[int, ...]
    worst_row: float

    def rounded(self) -> Parity:
        """For the manifest. Two digits: more would be noise, and make two exports of a checkpoint differ."""
        loss = float(f"{1 - self.cosine:.0e}")
        return Parity(self.output, _two_digits(self.relative_l2), _two_digits(self.max_abs), round(1 - loss, 9))


def compare(output: str, found: np.ndarray, expected: np.ndarray) -> Difference:
    """The difference of two arrays, which should have the same shape."""
    if found.shape != expected.shape:
        return Difference(output, -1.0, float("inf"), float("inf"), (), float("inf"))
    x, y = found.astype(np.float64), expected.astype(np.float64)
    difference = np.abs(x - y)
    row_norms, expected_norms = (np.linalg.norm(np.atleast_1d(array), axis=-1) for array in (difference, y))
    return Difference(
        output=output,
        cosine=_ratio(float(np.vdot(x, y)), float(np.linalg.norm(x)) * float(np.linalg.norm(y)), 1.0),
        relative_l2=_ratio(float(np.linalg.norm(difference)), float(np.linalg.norm(y))),
        max_abs=float(difference.max(initial=0.0)),
        worst=tuple(int(i) for i in np.unravel_index(difference.argmax(), difference.shape)) if x.size else (),
        worst_row=_ratio(float(row_norms.max(initial=0.0)), _root_mean_square(expected_norms)),
    )


def _root_mean_square(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(array**2))) if array.size else 0.0


def _ratio(value: float, norm: float, of_zeros: float = 0.0) -> float:
    """value / norm; where the norm is zero, the value itself, or `of_zeros` where that is zero too."""
    if norm == 0:
        return value or of_zeros
    return value / norm


def _two_digits(number: float) -> float:
    return float(f"{number:.1e}")
