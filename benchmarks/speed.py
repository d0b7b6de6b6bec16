"""Ours against the same modules in eager torch, side by side in one process, float32, as many threads each.

    python benchmarks/speed.py [--work DIR] [--only tiny|clip-l] [--threads N] [--repeats N] [--case TEXT]

Outputs are compared first; a contender that computes something else is not timed, and the run fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import NAMES
from decode import decode_cases
from encode import OURS, encode_cases
from memory import adapter_memory
from startup import startup
from subject import SELECTED, Subject

from mova_export.bench.facts import cores, facts, load, short_name
from mova_export.bench.timing import Contender, Spread, interleave, ratios
from mova_runtime.parity.compare import compare

RESULTS = Path(__file__).resolve().parent / "results"
REPEATS = {"tiny": 30, "clip-l": 5}
TOLERANCE = 1e-4


class DifferenceError(Exception):
    """A contender's output is not ours."""


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep checkpoints and bundles here, and use those that are there")
    parser.add_argument("--only", choices=NAMES, action="append", help="one checkpoint; may be given again")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, help="timed runs of each contender; 30 for tiny, 5 for clip-l")
    parser.add_argument("--case", default="", help="only cases whose name contains this; nothing is written then")
    given = parser.parse_args()
    if (busy := load()) > cores():
        _say(f"others keep this machine busy (load {busy:.1f}, {cores()} cores): times will mean little")
    results: dict[str, Any] = {**facts(given.threads), "subjects": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.only or NAMES:
            subject = Subject(name, given.work or Path(temporary), given.threads, _say)
            try:
                found = _measure(subject, given.repeats or REPEATS[name], given.case)
            except DifferenceError as error:
                print(f"{name}: {error}; nothing is reported", file=sys.stderr)
                return 1
            if not given.case:
                results["subjects"][name] = found | _once_per_subject(subject, given.threads)
                _write(results)
            del subject
    return 0


def _measure(subject: Subject, repeats: int, wanted: str) -> dict[str, Any]:
    print(f"\n{subject.name}: milliseconds, median (p10 to p90) of {repeats}; ratio ours/torch, median of pairs")
    cases = {}
    for name, contenders in chain(encode_cases(subject), decode_cases(subject)):
        if wanted not in name:
            continue
        _check(name, contenders)
        times = interleave(contenders, repeats)
        spreads = {contender: Spread.of(sample) for contender, sample in times.items()}
        against = {other: Spread.of(ratios(times[OURS], times[other])) for other in times if other != OURS}
        print(_row(name, spreads, against), flush=True)
        cases[name] = {
            "seconds": {contender: asdict(spread) for contender, spread in spreads.items()},
            "ratio_of_ours_to": {other: asdict(spread) for other, spread in against.items()},
        }
    return {"cases": cases}


def _check(case: str, contenders: dict[str, Contender]) -> None:
    expected = contenders[OURS]()
    for name, contender in contenders.items():
        for output, found in contender().items():
            if np.issubdtype(found.dtype, np.integer):
                if not np.array_equal(found, expected[output]):
                    raise DifferenceError(f"{case}: {name} gave other {output}")
            elif not (error := compare(output, found, expected[output]).relative_l2) <= TOLERANCE:
                raise DifferenceError(f"{case}: {output} of {name} differs from ours by {error:.1e}")


def _once_per_subject(subject: Subject, threads: int) -> dict[str, Any]:
    memory = adapter_memory(subject.bundle_path.parent, len(SELECTED), threads)
    for name, mib in memory.items():
        print(f"  memory, adapter with {len(SELECTED)} pairs, {name:7} peak {mib['peak']:6.0f} MiB")
    waits = startup(subject.bundle_path)
    for name, spread in waits.items():
        print(f"  {name:24} {_milliseconds(spread)}")
    return {
        "adapter_memory_mib": memory,
        "startup_seconds": {name: asdict(spread) for name, spread in waits.items()},
    }


def _row(name: str, spreads: dict[str, Spread], against: dict[str, Spread]) -> str:
    times = "  ".join(f"{contender} {_milliseconds(spread)}" for contender, spread in spreads.items())
    return f"  {name:24} {times}  ratio {' and '.join(f'{spread.median:.2f}' for spread in against.values())}"


def _milliseconds(spread: Spread) -> str:
    return f"{spread.median * 1e3:8.2f} ({spread.p10 * 1e3:.2f} to {spread.p90 * 1e3:.2f})"


def _write(results: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"speed-{short_name()}.json"
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    _say(f"written: {file}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
