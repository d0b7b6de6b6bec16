"""The tables of docs/benchmarks.md, from what `mova bench --json` wrote.

    mova bench mova-8b --only text --precision bf16 … --json bench-mova-8b-0-text-MACHINE.json
    mova bench mova-8b --only base,… --precision bf16 --against torch --json bench-mova-8b-1-bf16-MACHINE.json
    mova bench mova-8b --only base,… --precision fp32 --against torch --json bench-mova-8b-2-fp32-MACHINE.json
    mova bench mova-8b --precision bf16,int4 --json bench-mova-8b-3-routes-MACHINE.json
    mova bench towers --precision bf16 --json bench-mova-8b-4-towers-MACHINE.json   # without a language model
    python benchmarks/full_size.py   # when these files lie in benchmarks/results/

Every component on each backend, beside torch in the same precision and run; what loading costs, and memory; whole
requests by the experts they need. A contender that was in several runs is told of as the first of them found it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import with_table

from mova_runtime.bundle.manifest import LANGUAGE_MODEL

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
SCRIPT = Path(__file__).name
LABELS = ("ort fp32", "openvino fp32", "torch fp32", "openvino bf16", "torch bf16", "ort int4")
OURS, THEIRS = "openvino bf16", "torch bf16"

Found = Mapping[str, Any]


def joined(runs: Sequence[Found]) -> Found:
    """Several runs on one machine as one: contenders and ratios of each component, and the widest run's requests."""
    widest = max(runs, key=lambda run: len(run["components"]))  # has the order
    components: dict[str, dict[str, Any]] = {name: {} for name in widest["components"]}
    for run in runs:
        for name, found in run["components"].items():
            one = components[name] = components.get(name) or {**found, "contenders": [], "ratios": {}}
            known = {contender["label"] for contender in one["contenders"]}
            one["contenders"] += [contender for contender in found["contenders"] if contender["label"] not in known]
            for label, ratios in found["ratios"].items():
                one["ratios"][label] = {**ratios, **one["ratios"].get(label, {})}
            one["operations"] = one["operations"] or found["operations"]
    requests = max(runs, key=lambda run: (bool(run["routes"]), len(run["components"])))
    everything = [
        {**run["everything"], "language_model": LANGUAGE_MODEL in run["components"]}
        for run in runs
        if run["everything"]
    ]
    return {"components": components, "routes": requests["routes"], "everything": everything}


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
    yield (
        "| experts | visual tokens: fresh, s | resident, s | answer begins: fresh, s | resident, s | "
        "second question, s | tokens a second | loading, and hidden of it, s | peak, GiB |"
    )
    yield "|---" * 9 + "|"
    for route in results["routes"]:
        hidden, memory = route["hidden"] or {}, route["memory"]
        begins = [route[key] or {} for key in ("first_visual_token", "first_answer_token")]
        times = [_seconds(found.get(when)) for found in begins for when in ("fresh", "resident")]
        times += [_seconds(route[key]) for key in ("second_question", "tokens_per_second")]
        loading = f"{_seconds(hidden.get('loading'))}, {_seconds(hidden.get('hidden'))}"
        peak = "–" if memory is None else f"{memory['peak'] / 2**30:.1f}"
        yield f"| {', '.join(route['experts']) or 'none'} | {' | '.join(times)} | {loading} | {peak} |"
    for whole in results["everything"]:
        everything, share = whole["memory"]["peak"] / 2**30, whole["one_expert_share"]
        told = "" if share is None else f"; a request with one expert, on average: **{share:.2f}** of that"
        how = "" if whole["measured"] else " (the sum of what components hold: there was no room for it)"
        yield ""
        spoken = "with" if whole["language_model"] else "without"
        yield f"Everything loaded at once, {spoken} a language model: {everything:.1f} GiB{how}{told}."


def _loading(one: Found) -> str:
    return f"{_seconds(one.get('load_cold'))} / {_seconds(one.get('load_warm'))}; {_gibibytes(one.get('memory'))}"


def _gibibytes(memory: Found | None) -> str:
    return "–" if memory is None else f"{memory['loaded'] / 2**30:.1f} / {memory['peak'] / 2**30:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def kept() -> Found:
    """The results that lie beside the scripts."""
    files = sorted(RESULTS.glob("bench-mova-8b-*.json"))
    return joined([json.loads(file.read_text(encoding="utf-8")) for file in files])


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), SCRIPT, tables(kept())), encoding="utf-8")
    print(f"written: {PAGE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
