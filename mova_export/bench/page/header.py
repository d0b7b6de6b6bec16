"""What was measured, where, and with what: without it the numbers mean nothing."""

from __future__ import annotations

from mova_export.bench.page.format import COUNT, count, quantity, size
from mova_export.bench.page.markup import Content, Markup, tag
from mova_export.bench.page.read import Results, named, number, text, texts

_SHOWN = 16
"""Characters of a hash: enough to tell bundles apart."""


def header(results: Results) -> Markup:
    """The page's title and the facts under it."""
    name = text(results, "bundle", "name") or "a bundle"
    facts = [
        ("machine", _machine(results)),
        ("GPU", _gpu(results)),
        ("bundle", _bundle(results)),
        ("versions", ", ".join(f"{key} {value}" for key, value in named(results, "versions").items() if value)),
        ("commit", text(results, "commit")),
        ("measured", _measured(results)),
        ("options", _options(results)),
        ("command", _code(text(results, "command"))),
    ]
    listed = [(tag("dt", title), tag("dd", fact)) for title, fact in facts if fact]
    return tag("header", tag("h1", f"{name} on {text(results, 'machine', 'cpu') or 'a machine'}"), tag("dl", listed))


def _machine(results: Results) -> str:
    cores, memory = number(results, "machine", "cores"), number(results, "machine", "memory_bytes")
    facts = [
        text(results, "machine", "cpu"),
        f"{count(cores)} {'core' if cores == 1 else 'cores'}" if cores else None,
        size(memory) if memory else None,
        text(results, "machine", "system"),
    ]
    return ", ".join(filter(None, facts))


def _gpu(results: Results) -> str:
    memory = number(results, "machine", "gpu", "memory_bytes")
    facts = [text(results, "machine", "gpu", key) for key in ("name", "capability", "driver")]
    return ", ".join(filter(None, [*facts, size(memory) if memory else None]))


def _bundle(results: Results) -> Content:
    parameters, parts = (number(results, "bundle", key) for key in ("parameters", "components"))
    facts = [
        text(results, "bundle", "origin"),
        f"{count(parts)} components" if parts else None,
        f"{quantity(parameters, COUNT)} parameters" if parameters else None,
    ]
    sha256 = text(results, "bundle", "sha256")
    told = ", ".join(filter(None, facts))
    return [told, [" · manifest ", tag("code", sha256[:_SHOWN], title=sha256)]] if sha256 else told


def _measured(results: Results) -> str:
    start, end = (number(results, "load", key) for key in ("start", "end"))
    load = f"load average {start or 0:.2f} before and {end or 0:.2f} after" if (start, end) != (None, None) else None
    return ", ".join(filter(None, (text(results, "date"), load)))


def _options(results: Results) -> str:
    found = []
    for name, value in named(results, "options").items():
        told = ", ".join(texts(value)) if isinstance(value, list | tuple) else text(value)
        if told:
            found.append(f"{name} {told}")
    return " · ".join(found)


def _code(command: str | None) -> Content:
    return tag("code", command) if command else None
