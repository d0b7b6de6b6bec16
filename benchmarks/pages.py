"""Tables that scripts write into pages, between marks that name the script."""

from __future__ import annotations

END = "<!-- until here -->"


def mark(script: str) -> str:
    """What stands before a script's table; `END` stands behind it."""
    return f"<!-- written by benchmarks/{script} -->\n"


def with_table(page: str, script: str, table: str) -> str:
    """A page with the table between a script's marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.partition(mark(script))
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the table of benchmarks/{script}")
    return f"{before}{begin}{table}{end}{after}"
