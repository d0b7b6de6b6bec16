"""How far from float32 an engine may be, by precision: below the bar it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import Precision

if TYPE_CHECKING:
    from mova_runtime.parity.compare import Difference


@dataclass(frozen=True)
class Bar:
    """The least cosine, and the largest relative L2 error of an output and of one of its rows."""

    cosine: float
    relative_l2: float
    worst_row: float

    def passes(self, difference: Difference) -> bool:
        """Whether a difference is within; NaN is not."""
        return (
            difference.cosine >= self.cosine
            and difference.relative_l2 <= self.relative_l2
            and difference.worst_row <= self.worst_row
        )

    def __str__(self) -> str:
        return f"cosine ≥ {self.cosine}, relative L2 ≤ {self.relative_l2:g}, of a row ≤ {self.worst_row:g}"


BARS: dict[Precision, Bar] = {
    # Float32 engines differ from torch by the order of their sums: 1e-7 to 5e-6 on every component. A wrong operation
    # shows at 1e-2 and above.
    "fp32": Bar(0.9999999, 1e-4, 1e-3),
    # Eleven and eight bits of mantissa: 1e-3 and 1e-2 on every component. A cosine of 0.999 is a relative error of
    # √(2 (1 - 0.999)) = 0.045 between vectors of the same length.
    "fp16": Bar(0.999, 0.045, 0.25),
    "bf16": Bar(0.999, 0.045, 0.25),
    # Rounded weights.
    "int8": Bar(0.99, 0.142, 0.5),
    "int4": Bar(0.99, 0.142, 0.5),
}
