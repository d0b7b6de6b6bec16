"""What components take together, by what each of them took alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mova_export.bench.figures import Figures, Measured
from mova_export.bench.routes import Served


def together(measured: Mapping[str, Measured], names: Iterable[str], by: Served) -> int:
    """Bytes that components hold, and that the run which takes most takes beside; what was not measured counts nothing.

    Args:
        measured: by component.
        names: of those that are loaded at once.
        by: what serves them.
    """
    found = [one for one in (_figures(measured, name, by) for name in names) if one and one.memory]
    held = sum(_kind(one, "loaded") for one in found)
    return held + max((one.peak - _kind(one, "loaded") for one in found), default=0)


def _figures(measured: Mapping[str, Measured], name: str, by: Served) -> Figures | None:
    return measured[name].contenders.get(by.by(name).label) if name in measured else None


def _kind(figures: Figures, name: str) -> int:
    return sum(kind[name] for kind in (figures.memory, figures.device_memory) if kind)
