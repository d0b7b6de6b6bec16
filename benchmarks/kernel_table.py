"""Every kernel of a full-size adapter, compiled for all GPUs: registers, spills, shared memory, and how long it took.

    python benchmarks/kernel_table.py [--target SM]...

Needs no GPU. The numbers are the assembler's, and are the same on every machine; the seconds are this machine's. Writes
`benchmarks/results/kernels.json`, and from it the table of `docs/kernels.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pages import with_table

from mova_export.bench.facts import cores, facts, load
from mova_export.kernels.workers import Workers
from mova_kernels.aot import Compiled
from mova_kernels.targets import TARGETS, Target
from mova_kernels.variants import AdapterShape, variants

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "kernels.json"
PAGE = ROOT / "docs" / "kernels.md"
SCRIPT = Path(__file__).name

SHAPE = AdapterShape(
    channels=1024,
    text_channels=1024,
    hidden=4096,
    grid=48,
    blocks=3,
    experts=7,
    top_k=3,
    feed_forward=2730,
    squeezed=256,
)
"""MoVA-8B's."""

DTYPES = ("bf16", "fp16")

Kernels = dict[str, dict[str, Any]]


def main() -> int:
    """Compile, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=TARGETS, help="these only, and nothing is written")
    given = parser.parse_args()
    if (busy := load()) > cores():
        print(f"others keep this machine busy (load {busy:.1f}, {cores()} cores)", file=sys.stderr)
    results = facts(cores())
    results["precision"] = ", ".join(DTYPES)
    results["versions"]["triton"] = metadata.version("triton")
    results["shape"] = vars(SHAPE)
    results["targets"] = {}
    for name in given.target or TARGETS:
        target = TARGETS[name]
        results["targets"][name] = found = {dtype: _compiled(target, dtype) for dtype in DTYPES}
        for dtype, one in found.items():
            print(f"{target!s:<24}{dtype}{one['seconds']:7.1f} s{one['bytes'] / 1024:8.1f} KiB", flush=True)
    if given.target:
        print(table(results))
        return 0
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), SCRIPT, table(results)), encoding="utf-8")
    print(f"written: {RESULTS}, {PAGE}", file=sys.stderr)
    return 0


def table(results: Mapping[str, Any], dtype: str = DTYPES[0]) -> str:
    """The kernels of a result, a row each: registers, shared memory in KiB, and what is spilled, on every target."""
    targets: dict[str, dict[str, Any]] = results["targets"]
    lines = [f"| kernel | {' | '.join(targets)} |", "|---" * (len(targets) + 1) + "|"]
    for name in next(iter(targets.values()))[dtype]["kernels"]:
        cells = [_cell(found[dtype]["kernels"][name]) for found in targets.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _compiled(target: Target, dtype: str) -> dict[str, Any]:
    """All kernels for a target, by as many processes as there are cores."""
    wanted = variants(SHAPE, dtype, target)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Workers(Path(folder), [(target, one) for one in wanted]) as workers:
        made = {one.name: one for _, one in workers.compiled()}
        seconds = time.perf_counter() - started
    return {
        "toolkit": next(iter(made.values())).toolkit,
        "seconds": round(seconds, 2),
        "bytes": sum(len(one.cubin) for one in made.values()),
        "kernels": {one.name: _facts(made[one.name]) for one in wanted},
    }


def _facts(kernel: Compiled) -> dict[str, Any]:
    names = ("registers", "spills", "shared", "warps", "constants")
    return {name: getattr(kernel, name) for name in names} | {"bytes": len(kernel.cubin)}


def _cell(kernel: Mapping[str, Any]) -> str:
    shared, spills = kernel["shared"] / 1024, kernel["spills"]
    return f"{kernel['registers']} · {shared:.0f}" + (f" (spills {spills} B)" if spills else "")


if __name__ == "__main__":
    sys.exit(main())
