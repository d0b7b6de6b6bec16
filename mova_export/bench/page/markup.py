"""HTML and SVG in which every text is escaped unless it was made here."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | Iterable["Content"] | None

_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What no document may hold, or no file: control characters, and halves of characters that JSON lets through."""

_EMPTY = frozenset(("meta", "rect", "line"))
"""Elements without content. They are closed, so that the page is XML, too."""


def tag(name: str, *content: Content, **attributes: str | float | None) -> Markup:
    """An element.

    Args:
        name: of the element.
        content: texts, which are escaped, elements, and sequences of both; None is nothing.
        attributes: `class_` is class, `stroke_width` stroke-width; None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_safe(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*content)}</{name}>")


def joined(*content: Content) -> Markup:
    """Contents one after the other."""
    return Markup("".join(_escaped(part) for part in content))


def _escaped(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Markup):
        return content
    return _safe(content) if isinstance(content, str) else joined(*content)


def _safe(text: str) -> str:
    return html.escape(_UNFIT.sub("\N{REPLACEMENT CHARACTER}", text))


def _number(value: str | float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
