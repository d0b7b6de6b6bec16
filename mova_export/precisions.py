"""Which precisions a component is exported in: those of every component, or its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mova_export.errors import ExportError
from mova_runtime.bundle.manifest import PRECISIONS, Precision


def by_component(wanted: Sequence[str], components: Collection[str]) -> dict[str, list[Precision]]:
    """The precisions of each component, in order of preference.

    Args:
        wanted: a precision is of every component that has none of its own; "COMPONENT=PRECISION" is a component's own,
            and may be repeated. As in ("fp32", "llm=int4", "llm=int8").
        components: that are exported.

    Raises:
        ExportError: a precision is unknown or named twice, a component is not exported, or one has no precision.
    """
    every: list[str] = []
    own: dict[str, list[str]] = {}
    for text in wanted:
        name, equals, precision = text.partition("=")
        if not equals:
            every.append(text)
        elif name in components:
            own.setdefault(name, []).append(precision)
        else:
            raise ExportError(f"precision {text}: no component {name!r} is exported; there are {', '.join(components)}")
    _known(every)
    for names in own.values():
        _known(names)
    found = {name: _known(own.get(name, every)) for name in components}
    if nothing := [name for name, precisions in found.items() if not precisions]:
        raise ExportError(f"no precision is named for {', '.join(nothing)}; one or more of {', '.join(PRECISIONS)}")
    return found


def _known(names: Sequence[str]) -> list[Precision]:
    found: list[Precision] = [precision for name in names for precision in PRECISIONS if precision == name]
    if unknown := [name for name in names if name not in found]:
        raise ExportError(f"unknown precision {', '.join(unknown)}; one of {', '.join(PRECISIONS)}")
    if twice := [name for name in PRECISIONS if found.count(name) > 1]:
        raise ExportError(f"precision {', '.join(twice)} is named twice")
    return found
