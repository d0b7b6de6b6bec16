"""From values to places on a picture as wide as the page lets it be: places are per cent of its width."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, log10

from mova_export.bench.page.format import Unit, unit_for

_LEAST = 1e-6
"""Of the smallest unit: what is less is nothing."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """From zero to `most`, evenly."""

    most: float
    units: tuple[Unit, ...]

    @classmethod
    def of(cls, values: Iterable[float | None], units: tuple[Unit, ...]) -> Scale:
        """One on which all values have a place; of nothing, or zeros, one that is never empty."""
        most = max((value for value in values if value is not None), default=0.0)
        return cls(most if most > _LEAST * units[-1].size else units[-1].size, units)

    def place(self, value: float) -> float:
        """Per cent of the width, within the picture whatever the value."""
        return 100 * min(max(value / self.most, 0.0), 1.0)

    def ticks(self, about: int) -> list[tuple[float, str]]:
        """Round values from zero on, at most `about` after it, and how they are written: the last one has the unit."""
        unit = unit_for(self.most, self.units)
        whole = self.most / unit.size
        rough = whole / about
        power = 10.0 ** floor(log10(rough))
        step = next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))
        count = floor(whole / step + 1e-9)
        places = [(index * step * unit.size, f"{index * step:,.10g}") for index in range(count + 1)]
        last, name = places.pop()
        return [*places, (last, f"{name} {unit.name}".rstrip())]
