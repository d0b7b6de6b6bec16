"""Whether what a kernel computed is what a reference computes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BARS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}
"""Of ‖found - wanted‖ / ‖wanted‖, by type. float32: sums in another order, and as the matrix units add; what multiplied
in TF32 is above. Others: 2⁻¹² of a number for float16 and 2⁻⁹ for bfloat16 each time it is rounded, a few times over.
"""


@dataclass(frozen=True)
class Check:
    """One comparison: relative error ‖found - wanted‖ / ‖wanted‖, and what it may be."""

    name: str
    error: float
    bar: float

    @property
    def passed(self) -> bool:
        """The error is within the bar; NaN is not."""
        return self.error <= self.bar


def agree(name: str, found: Tensor, wanted: Tensor, dtype: torch.dtype, bar: float | None = None) -> Check:
    """Compare in float64; `dtype` is the narrowest that numbers are rounded to on the way, and decides the bar."""
    bar = BARS[dtype] if bar is None else bar
    if found.shape != wanted.shape:
        return Check(f"{name}: shape {list(found.shape)}, not {list(wanted.shape)}", float("nan"), bar)
    found, wanted = found.double(), wanted.double()
    difference, size = (found - wanted).norm().item(), wanted.norm().item()
    error = difference / size if size else (0.0 if difference == 0 else float("inf"))
    return Check(name, error, bar)


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """New tensors are full of NaN, so that what a kernel leaves out shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            if not torch.empty(1).isnan():
                raise RuntimeError("this torch does not fill new tensors")
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
