"""The tables of docs/benchmarks.md, from what `mova bench --json` wrote.

    mova bench mova-8b --against torch … --json benchmarks/results/bench-mova-8b-MACHINE.json
    python benchmarks/full_size.py

Every component in the quickest way of each backend, beside torch in one run; what loading costs, and memory; whole
requests by the experts they need.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import with_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
SCRIPT = Path(__file__).name
LABELS = ("ort fp32", "openvino fp32", "openvino bf16", "torch fp32", "torch bf16")
OURS, THEIRS = "openvino bf16", "torch bf16"

Found = Mapping[str, Any]


def tables(results: Found) -> str:
    """Times, then loading and memory, a component a row; then requests, a route a row."""
    components = results["components"]
    there = {one["label"] for found in components.values() for one in found["contenders"]}
    labels = [label for label in LABELS if label in there]
    return "\n".join([*_times(components, labels), "", *_memory(components, labels), *_routes(results)]) + "\n"


def _times(components: Mapping[str, Found], labels: Sequence[str]) -> Iterator[str]:
    yield f"| seconds | TFLOP | {' | '.join(labels)} | {OURS} / {THEIRS} | share of the matrix rate |"
    yield "|---" * (len(labels) + 4) + "|"
    for name, found in components.items():
        by = {one["label"]: one for one in found["contenders"]}
        times = [_seconds((by[label].get("run") or {}).get("median")) if label in by else "–" for label in labels]
        ratio = found["ratios"].get(OURS, {}).get(THEIRS)
        spread = f"**{ratio['median']:.2f}** ({ratio['p10']:.2f} to {ratio['p90']:.2f})" if ratio else "–"
        operations = found["operations"]
        share = by[OURS].get("share") if OURS in by else None
        cells = ["–" if operations is None else f"{operations / 1e12:.2f}", *times, spread]
        yield f"| {name} | {' | '.join(cells)} | {'–' if share is None else f'{share:.0%}'} |"


def _memory(components: Mapping[str, Found], labels: Sequence[str]) -> Iterator[str]:
    ours = [label for label in labels if not label.startswith("torch")]
    yield f"| load cold / warm, s; holds / peak, GiB | {' | '.join((*ours, THEIRS))} |"
    yield "|---" * (len(ours) + 2) + "|"
    for name, found in components.items():
        by = {one["label"]: one for one in found["contenders"]}
        cells = [_loading(by[label]) if label in by else "–" for label in ours]
        held = by[THEIRS].get("memory") if THEIRS in by else None
        yield f"| {name} | {' | '.join(cells)} | {_gibibytes(held)} |"


def _routes(results: Found) -> Iterator[str]:
    if not results["routes"]:
        return
    yield ""
    yield "| experts | fresh, s | resident, s | second question, s | loading, and hidden of it, s | peak, GiB |"
    yield "|---" * 6 + "|"
    for route in results["routes"]:
        first, hidden, memory = route["first_visual_token"] or {}, route["hidden"] or {}, route["memory"]
        times = [_seconds(first.get("fresh")), _seconds(first.get("resident")), _seconds(route["second_question"])]
        loading = f"{_seconds(hidden.get('loading'))}, {_seconds(hidden.get('hidden'))}"
        peak = "–" if memory is None else f"{memory['peak'] / 2**30:.1f}"
        yield f"| {', '.join(route['experts']) or 'none'} | {' | '.join(times)} | {loading} | {peak} |"
    if whole := results["everything"]:
        everything, share = whole["memory"]["peak"] / 2**30, whole["one_expert_share"]
        told = "" if share is None else f"; a request with one expert, on average: **{share:.2f}** of that"
        how = "" if whole["measured"] else " (the sum of what components hold: there was no room for it)"
        yield ""
        yield f"Everything loaded at once: {everything:.1f} GiB{how}{told}."


def _loading(one: Found) -> str:
    return f"{_seconds(one.get('load_cold'))} / {_seconds(one.get('load_warm'))}; {_gibibytes(one.get('memory'))}"


def _gibibytes(memory: Found | None) -> str:
    return "–" if memory is None else f"{memory['loaded'] / 2**30:.1f} / {memory['peak'] / 2**30:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main() -> int:
    """Write the page anew."""
    (file,) = sys.argv[1:] or [str(one) for one in RESULTS.glob("bench-mova-8b-*.json")]
    results = json.loads(Path(file).read_text(encoding="utf-8"))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), SCRIPT, tables(results)), encoding="utf-8")
    print(f"written: {PAGE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
