"""What the boundary to C costs: features that are kept, asked for from C and from Python, in turns.

python benchmarks/embedding.py BUNDLE [--encoder base] [--calls 300] [--rounds 9] [--out FILE]

Both sides ask for the features of the same pixels, after a first call that computed them, so that a call is a hash of
the pixels, a look into the cache and a copy of the features. Python's call is given a `Frame`, which reads pixels where
they are as C's call does, and, for comparison, the array itself, which it copies. Each round is a fresh process of
either side, and the order changes from round to round; a round's figure is its calls' median. First, features are
compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mova_embed.build import build
from mova_embed.compiler import compiler
from mova_export.bench.facts import describe, facts, load, short_name
from mova_export.bench.timing import Spread
from mova_runtime import ParityError
from mova_runtime.bundle import Bundle

RESULTS = Path(__file__).parent / "results"
SOURCE = Path(__file__).parent / "embedding_calls.c"
SIZES = ((640, 480), (1920, 1080))
"""Width and height of frames."""

BOUND_MS, BOUND_SHARE = 0.2, 0.02
"""What a call from C may take more than Python's: the larger one counts."""

CALLS = """
import sys, time
import numpy as np
import mova_runtime
from mova_runtime.images import Frame
bundle, encoder, pixels, width, height, calls, out, kind = sys.argv[1:]
array = np.fromfile(pixels, np.uint8).reshape(int(height), int(width), 3)
with mova_runtime.open(bundle, trace_events=0) as runtime:
    def call():
        return runtime.features(Frame(array) if kind == "frame" else array, encoder)
    call().tofile(out)
    for _ in range(int(calls)):
        start = time.perf_counter_ns()
        found = call()
        del found
        print(time.perf_counter_ns() - start)
"""


def compiled(folder: Path) -> Path:
    """The program that calls from C, against a library of its own."""
    built, program = build(folder / "libmova"), folder / "calls"
    library = built.out
    flags = ["-std=c11", "-O2", f"-I{library / 'include'}", f"-L{library / 'lib'}", f"-Wl,-rpath,{library / 'lib'}"]
    subprocess.run([*compiler(), *flags, str(SOURCE), "-lmova", "-o", str(program)], check=True)
    return program


def nanoseconds(command: list[str]) -> list[int]:
    """What a process prints."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [int(line) for line in done.stdout.split()]


def measure(given: argparse.Namespace, folder: Path, program: Path, width: int, height: int) -> dict[str, object]:
    """Milliseconds of each side for frames of one size.

    Raises:
        ParityError: features differ.
    """
    pixels = folder / "pixels"
    np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8).tofile(pixels)
    sides = {
        "C": [str(program)],
        "Python": [sys.executable, "-c", CALLS],
        "Python, copied": [sys.executable, "-c", CALLS],
    }
    kinds = {"Python": ["frame"], "Python, copied": ["array"]}
    medians: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(given.rounds):
        for side in sorted(sides, reverse=turn % 2 == 1):
            out = folder / f"{side}.features"
            arguments = [given.bundle, given.encoder, pixels, width, height, given.calls, out, *kinds.get(side, [])]
            times = nanoseconds([*sides[side], *map(str, arguments)])
            medians[side].append(statistics.median(times) / 1e6)
    if len({(folder / f"{side}.features").read_bytes() for side in sides}) != 1:
        raise ParityError(f"features of {width} x {height} pixels differ between C and Python")
    spreads = {side: Spread.of(found) for side, found in medians.items()}
    more = spreads["C"].median - spreads["Python"].median
    bound = max(BOUND_MS, BOUND_SHARE * spreads["Python"].median)
    return {
        "pixels": [width, height],
        "milliseconds": {side: asdict(spread) for side, spread in spreads.items()},
        "more_in_c": more,
        "bound": bound,
        "holds": more <= bound,
    }


def main() -> int:
    """Measure, print, write; 1 where C takes more than the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--encoder", default="base")
    parser.add_argument("--calls", type=int, default=300, help="in each round, after the first")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / f"embedding-{short_name()}.json")
    given = parser.parse_args()
    given.bundle = given.bundle.resolve()
    about = {**facts(1), "bundle": describe(Bundle.open(given.bundle)), "encoder": given.encoder, "calls": given.calls}
    os.environ["OMP_NUM_THREADS"] = "1"  # as `facts` say, in every process
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = compiled(folder)
        try:
            found = [measure(given, folder, program, *size) for size in SIZES]
        except ParityError as error:
            print(f"embedding: {error}", file=sys.stderr)
            return 1
    for one in found:
        print(json.dumps(one))
    given.out.write_text(
        json.dumps({**about, "sizes": found, "load_at_end": load()}, indent=1) + "\n", encoding="utf-8"
    )
    return 0 if all(one["holds"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
