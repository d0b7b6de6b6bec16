"""A Jetson's own power sensors, as the kernel shows them. It has met no Jetson yet.

Up to two INA3221 chips measure three rails each. Each chip has a folder under /sys/class/hwmon with `name`,
and for rail n `inn_label`, `inn_input` in millivolts and `currn_input` in milliamperes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HWMON = Path("/sys/class/hwmon")

WHOLE = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that feed the whole module. Where there is none, as on AGX modules, the rails are taken to lie beside each
other, and added up."""

_UNUSED = "NC"
"""Label of an input that is not connected."""


@dataclass(frozen=True)
class _Rail:
    label: str
    volts: Path
    amperes: Path

    def watts(self) -> float | None:
        """What it carries now; None where it can't be read."""
        try:
            millivolts, milliamperes = (int(file.read_text(encoding="ascii")) for file in (self.volts, self.amperes))
        except (OSError, ValueError):
            return None
        return millivolts * milliamperes / 1e6


class JetsonSource:
    """What the module draws: CPU and memory, too. A Jetson has no counter of energy, so power is sampled."""

    def __init__(self, rails: list[_Rail]) -> None:
        whole = [rail for rail in rails if rail.label in WHOLE]
        self._rails = whole[:1] or rails

    @property
    def rails(self) -> tuple[str, ...]:
        """Labels of what is added up."""
        return tuple(rail.label for rail in self._rails)

    def joules(self) -> float | None:
        """There is no counter."""
        return None

    def watts(self) -> float | None:
        """Of the module; None as soon as one of its rails can't be read, for the others are less than it."""
        found = [rail.watts() for rail in self._rails]
        told = [watts for watts in found if watts is not None]
        return sum(told) if told and len(told) == len(found) else None

    def clocks(self) -> dict[str, float]:
        """The sensors know none."""
        return {}


def jetson_source(root: Path = HWMON) -> JetsonSource | None:
    """The sensors under a folder; None where there are none, or they can't be read.

    Args:
        root: of the kernel's hardware monitors.
    """
    rails = []
    for chip in sorted(root.glob("hwmon*")):
        if _text(chip / "name") != "ina3221":
            continue
        for file in sorted(chip.glob("in*_label")):
            number = file.name.removeprefix("in").removesuffix("_label")
            label, amperes = _text(file), chip / f"curr{number}_input"
            if label and label != _UNUSED and amperes.exists():  # a fourth input is the sum of the others, in volts
                rails.append(_Rail(label, chip / f"in{number}_input", amperes))
    source = JetsonSource(rails)
    return None if source.watts() is None else source


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
