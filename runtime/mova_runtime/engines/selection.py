"""How backends are written: one for the bundle, and others for single components."""

from __future__ import annotations

from dataclasses import dataclass

from mova_runtime.errors import BackendError

EXAMPLE = "ort-cuda,adapter=cuda:bf16"


@dataclass(frozen=True)
class Own:
    """A backend that a component has of its own, and the precision if one was written."""

    component: str
    backend: str
    precision: str | None


def read(text: str) -> tuple[str, tuple[Own, ...]]:
    """The backend of a bundle, and those that components have of their own.

    Args:
        text: "BACKEND[,COMPONENT=BACKEND[:PRECISION]]…".

    Raises:
        BackendError: it is not written so, or a component stands twice.
    """
    first, *pieces = (piece.strip() for piece in str(text).split(","))
    own = tuple(_own(text, piece) for piece in pieces)
    names = [one.component for one in own]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BackendError(f"backend {text!r}: component {twice!r} stands twice")
    return first, own


def _own(text: str, piece: str) -> Own:
    component, _, named = piece.partition("=")
    backend, colon, precision = named.partition(":")
    if not component or not backend or (colon and not precision):
        raise BackendError(f"backend {text!r}: {piece!r} is not COMPONENT=BACKEND[:PRECISION], as in {EXAMPLE}")
    return Own(component.strip(), backend.strip(), precision.strip() or None)
