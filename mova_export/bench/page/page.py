"""The page, from its head to its foot."""

from __future__ import annotations

from pathlib import Path

from mova_export.bench.page import components, routes, table
from mova_export.bench.page.colours import patterns
from mova_export.bench.page.header import header
from mova_export.bench.page.markup import Markup, joined, tag
from mova_export.bench.page.read import Results, number, text
from mova_export.bench.page.summary import summary
from mova_export.bench.page.timeline import timeline

_STYLE = Path(__file__).with_name("page.css")

_NOTHING_BESIDE = "default-src 'none'; style-src 'unsafe-inline'"
"""No browser may fetch anything for this page."""

_PARTS = (
    summary,
    components.overview,
    components.latency,
    table.ratios,
    components.memory,
    components.loading,
    routes.times,
    timeline,
    routes.hidden,
    components.share,
    table.numbers,
)


def render(results: Results) -> str:
    """Results of `mova bench` as a whole HTML page.

    Whatever is missing, null or of another type than it should be is shown as a dash; a part of which nothing is
    known is left out. Every text is escaped.

    Args:
        results: what `mova bench --json` writes; times in seconds, sizes in bytes.
    """
    parts = [part for part in (draw(results) for draw in _PARTS) if part]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_NOTHING_BESIDE),
        tag("title", f"mova bench: {text(results, 'bundle', 'name') or 'results'}"),
        tag("style", Markup(_STYLE.read_text(encoding="utf-8"))),
    )
    version = number(results, "version")
    foot = tag("footer", "Written by mova bench", f", format {version:.0f}" if version is not None else None, ".")
    body = tag("body", patterns(), header(results), tag("main", parts), foot)
    return joined(Markup("<!doctype html>\n"), tag("html", head, body, lang="en"), "\n")
