"""A part of the page: a heading, what is shown, and the thing."""

from __future__ import annotations

from mova_export.bench.page.markup import Content, Markup, tag


def section(anchor: str, title: str, about: str, *content: Content) -> Markup:
    """A section that can be linked to by its anchor."""
    told = tag("p", about, class_="about") if about else None
    return tag("section", tag("h2", title), told, content, id=anchor)
