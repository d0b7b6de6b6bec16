"""The router's words as experts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mova_runtime.bundle.manifest import Expert
from mova_runtime.errors import ExpertError

_PIECES = 3


def parse(text: str, experts: Sequence[Expert]) -> tuple[str, ...]:
    """The experts whose letter occurs in the first three comma-separated pieces, in the experts' order.

    Any text is an answer: "none", nothing at all or no letters select nobody, and one piece may name several
    experts. The adapter's gate weighs at most `top_k` of them.
    """
    pieces = ",".join(text.split(",")[:_PIECES])
    return tuple(expert.name for expert in experts if expert.letter in pieces)


def is_settled(text: str, experts: Sequence[Expert]) -> bool:
    """Whether nothing that follows `text` can change what `parse` makes of it.

    Its three pieces are complete, or every expert is named.
    """
    return text.count(",") >= _PIECES or len(parse(text, experts)) == len(experts)


def check(names: Sequence[str], experts: Sequence[Expert]) -> tuple[str, ...]:
    """A caller's choice in the experts' order.

    Raises:
        ExpertError: a name is unknown, or stands twice.
    """
    known = [expert.name for expert in experts]
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ExpertError(f"experts are a sequence of names, not {names!r}")
    names = tuple(names)
    for name in names:
        if name not in known:
            raise ExpertError(f"unknown expert {name!r}; one of {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ExpertError(f"an expert stands twice in {', '.join(names)}")
    return tuple(name for name in known if name in names)
