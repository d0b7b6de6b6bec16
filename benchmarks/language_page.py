"""The tables of docs/language.md, from what `language.py` and `edge.py` wrote.

    python benchmarks/language.py
    python benchmarks/edge.py BUNDLE --work DIR
    python benchmarks/language_page.py

Each precision beside the quicker of torch's caches in the same run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import edge
from pages import with_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "language.md"
SCRIPT = Path(__file__).name

Found = Mapping[str, Any]


def tables(results: Found) -> str:
    """Speed, then what a longer context costs; whichever was measured."""
    parts = {"speed": _speed, "context": _context}
    return "\n".join(
        "".join(f"{row}\n" for row in make(results[part])) for part, make in parts.items() if part in results
    )


def _speed(found: Found) -> Iterator[str]:
    reads, speaks = f"reads {found['prefill_tokens']} tokens", f"speaks {found['new_tokens']} after {found['context']}"
    heads = ("on disk, MiB", "in memory, MiB", f"{reads}, tokens/s", "of torch's time", f"{speaks}, tokens/s")
    yield f"| | {' | '.join(heads)} | of torch's time |"
    yield "|---" * 7 + "|"
    for name, one in found["contenders"].items():
        cells = [_mebibytes(one.get("disk_bytes")), _mebibytes(one["held"])]
        for step in ("prefill", "decode"):
            ratio = _ratio(found, step, name)
            told = f"**{ratio['median']:.2f}** ({ratio['p10']:.2f} to {ratio['p90']:.2f})" if ratio else "–"
            cells += [f"{one[step]['tokens_per_second']:.1f}", told]
        yield f"| {name} | {' | '.join(cells)} |"


def _ratio(found: Found, step: str, name: str) -> Found | None:
    """Against the quicker of torch's caches in this step."""
    against = found["ratios"][step].get(name)
    if not against:
        return None
    quickest = min(against, key=lambda other: found["contenders"][other][step]["seconds"]["median"])
    ratio: Found = against[quickest]
    return ratio


def _context(found: Found) -> Iterator[str]:
    lengths = [str(length) for length in found["contexts"]]
    first, last = lengths[0], lengths[-1]
    yield f"| ms a token after | {' | '.join(lengths)} | longer from {first} to {last} | beyond reading the cache |"
    yield "|---" * (len(lengths) + 3) + "|"
    for name, one in found["contenders"].items():
        steps = [f"{one['seconds_per_token'][length]['median'] * 1e3:.1f}" for length in lengths]
        grown = f"{one['growth']['median']:+.1%}"
        beyond = one["growth_beyond_reading"]
        yield (
            f"| {name} | {' | '.join(steps)} | {grown} | "
            f"**{beyond['median']:+.1%}** ({beyond['p10']:+.1%} to {beyond['p90']:+.1%}) |"
        )
    reading = [f"{_reading(found)[length] * 1e3:.1f}" for length in lengths]
    yield f"| reading the float32 cache | {' | '.join(reading)} | | |"


def _reading(found: Found) -> Found:
    """Of the widest cache that was measured."""
    widest = max(found["contenders"].values(), key=lambda one: one["cache_bytes_per_token"])
    reading: Found = widest["reading_seconds"]
    return reading


def _mebibytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 2**20:,.0f}"


def written(page: str) -> str:
    """The page with the tables of the results that are kept."""
    made = {SCRIPT: ("language-*.json", tables), "edge.py": ("edge-*.json", edge.table)}
    for script, (pattern, make) in made.items():
        (file,) = RESULTS.glob(pattern)
        page = with_table(page, script, make(json.loads(file.read_text(encoding="utf-8"))))
    return page


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
