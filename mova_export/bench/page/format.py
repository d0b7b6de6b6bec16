"""Numbers with a precision and a unit that suit them."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, isfinite, log10

DASH = "–"


@dataclass(frozen=True)
class Unit:
    """A name, and how much one of it is."""

    name: str
    size: float


SECONDS = (Unit("s", 1.0), Unit("ms", 1e-3))
BYTES = (Unit("GiB", 2.0**30), Unit("MiB", 2.0**20), Unit("KiB", 2.0**10), Unit("B", 1.0))
RATE = (Unit("TFLOP/s", 1e12), Unit("GFLOP/s", 1e9), Unit("MFLOP/s", 1e6))
OPERATIONS = (Unit("TFLOP", 1e12), Unit("GFLOP", 1e9), Unit("MFLOP", 1e6))
SHARE = (Unit("%", 1e-2),)
COUNT = (Unit("billion", 1e9), Unit("million", 1e6), Unit("", 1.0))
JOULES = (Unit("J", 1.0), Unit("mJ", 1e-3))
WATTS = (Unit("W", 1.0),)
RATIO = (Unit("", 1.0),)


def unit_for(value: float, units: tuple[Unit, ...]) -> Unit:
    """The largest unit of which a value is at least one when it is written; the smallest for what is less."""
    return next((unit for unit in units if float(f"{abs(value) / unit.size:.2e}") >= 1), units[-1])


def quantity(value: float | None, units: tuple[Unit, ...]) -> str:
    """A value in three digits with its unit; a dash where there is none."""
    if value is None:
        return DASH
    unit = unit_for(value, units)
    return f"{digits(value / unit.size)} {unit.name}".rstrip()


def digits(value: float) -> str:
    """A number in three digits, or more where it has them before the point."""
    if value == 0 or not isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.2e}") if abs(value) < 1000 else round(value)
    return f"{rounded:,.{max(2 - floor(log10(abs(rounded))), 0)}f}"


def count(value: float | None) -> str:
    """How many of something that comes whole."""
    return DASH if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Milliseconds below one second."""
    return quantity(value, SECONDS)


def size(value: float | None) -> str:
    """Bytes in binary units."""
    return quantity(value, BYTES)


def spread(low: float | None, high: float | None, units: tuple[Unit, ...]) -> str:
    """From the one to the other, in the unit of the larger."""
    if low is None or high is None:
        return DASH
    unit = unit_for(high, units)
    return f"{digits(low / unit.size)}–{digits(high / unit.size)} {unit.name}".rstrip()


def enumerated(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
