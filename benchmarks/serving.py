"""What loading costs and what hides it: latency cold, warm and resident, swaps, prefetch, second questions.

    python benchmarks/serving.py BUNDLE [--part NAME] [--backend NAME] [--threads N] [--name NAME]

BUNDLE is of full size, such as what `mova export --preset mova-8b --random-weights` writes, or any other. Every figure
comes from a process of its own. Cold: the component's files are not in the system's page cache; warm: they are;
resident: the engine is loaded and has run. Engines were checked on this machine before, so that no check is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from machine import cores, facts, load, process_memory, short_name
from timing import Contender, Spread, interleave, ratios

import mova_runtime as mova
from mova_export.demo.checkpoint import IMAGE
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.engines.choice import choose
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.memory import Limits
from mova_runtime.engines.ort import OrtBackend
from mova_runtime.engines.pool import EnginePool
from mova_runtime.engines.prefetch import THREAD
from mova_runtime.trace import Recorder, Trace, loading

RESULTS = Path(__file__).resolve().parent / "results"
QUESTIONS = ("Which bar is the tallest, and what is its value?", "Who drew this chart, and when?")
TOGETHER = ("biomedclip", "deplot")
"""Two experts of one size, to run at the same time."""
CHOSEN = ("dinov2", "sam")
"""Experts of the requests, and those that take turns in memory."""
REPEATS = 5
NOT_ENGINES = ("load", "check", "wait")

Found = dict[str, Any]


def files_of(bundle: Bundle, component: str) -> list[Path]:
    """What a component's engine is read from."""
    return [bundle.path(file) for artifact in bundle.component(component).artifacts for file in artifact.files]


def forget(bundle: Bundle, component: str) -> None:
    """Take a component's files out of the page cache."""
    for file in files_of(bundle, component):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bring(bundle: Bundle, component: str) -> None:
    """Bring a component's files into the page cache."""
    for file in files_of(bundle, component):
        with file.open("rb", buffering=0) as opened:
            while opened.read(1 << 24):
                pass


def probe_of(bundle: Bundle, component: str) -> dict[str, np.ndarray]:
    """A component's inputs, of the shapes that requests have."""
    return {name: np.load(bundle.path(file)) for name, file in bundle.component(component).probe.inputs.items()}


def pool_of(bundle: Bundle, backend: str, threads: int, limits: Limits = Limits()) -> tuple[EnginePool, Loader]:
    """A pool as the runtime has it."""
    loader = Loader(bundle, (choose(bundle, backend),), threads)
    return EnginePool(tuple(bundle.manifest.components), loader, limits), loader


def latency(bundle: Bundle, backend: str, threads: int, component: str) -> Found:
    """Seconds of the load, of the first run, and of the next; MiB that the engine holds between runs, and its peak."""
    inputs, (pool, loader) = probe_of(bundle, component), pool_of(bundle, backend, threads)
    loader.need(component)  # imports the backend, as the first engine of a process does
    before, times = process_memory("VmRSS"), []
    for _ in range(3):
        start = perf_counter()
        with pool.lease(component, Trace()) as engine:
            leased = perf_counter()
            engine.run(inputs)
        times.append((leased - start, perf_counter() - leased))
    return {
        "load": times[0][0],
        "first_run": times[0][1],
        "resident_run": min(times[1][1], times[2][1]),
        "mib": process_memory("VmRSS") - before,
        "mib_peak": process_memory("VmHWM") - before,
    }


def swap(bundle: Bundle, backend: str, threads: int) -> Found:
    """Seconds until an engine is there that pushes another one out, files in the page cache; and of its first run."""
    one, other = CHOSEN
    roomy, loader = pool_of(bundle, backend, threads)
    needs = [loader.need(name).peak for name in CHOSEN]
    roomy.close()
    pool, _ = pool_of(bundle, backend, threads, Limits(host=max(need.host for need in needs)))
    inputs = {name: probe_of(bundle, name) for name in CHOSEN}
    times: dict[str, list[float]] = {name: [] for name in CHOSEN}
    runs: dict[str, list[float]] = {name: [] for name in CHOSEN}
    for number in range(REPEATS):
        for name in (one, other):
            bring(bundle, name)
            start = perf_counter()
            with pool.lease(name, Trace()) as engine:
                times[name].append(perf_counter() - start)
                if number in (0, REPEATS - 1):
                    engine.run(inputs[name])
                    runs[name].append(perf_counter() - start - times[name][-1])
    evictions = pool.totals().evictions
    pool.close()
    assert evictions >= 2 * (REPEATS - 1), "they had to take turns"
    return {name: {"swap": times[name][1:], "first_run": runs[name]} for name in CHOSEN}


def ahead(bundle: Bundle, backend: str, threads: int, prefetch: bool, cold: bool) -> Found:
    """One request of a fresh runtime: milliseconds that loading took, and that were waited for."""
    for name in bundle.manifest.components:
        (forget if cold else bring)(bundle, name)
    with mova.open(bundle.root, backend=backend, threads=threads, prefetch=prefetch) as runtime:
        return one_request(runtime, 0)


def questions(bundle: Bundle, backend: str, threads: int) -> Found:
    """Two questions about one image; the first with engines that have run before on another."""
    with mova.open(bundle.root, backend=backend, threads=threads) as runtime:
        runtime.encode(np.zeros((64, 64, 3), np.uint8), "Warm?", CHOSEN)
        return {"first": one_request(runtime, 0), "second": one_request(runtime, 1)}


def overhead(bundle: Bundle, backend: str, threads: int, repeats: int) -> Found:
    """What a request with resident engines takes beside them: 1 - (engines and preprocessing) / request."""
    with mova.open(bundle.root, backend=backend, threads=threads, feature_cache=0) as runtime:
        one_request(runtime, 0)
        found = [one_request(runtime, number % 2) for number in range(repeats)]
    return {"share": [1 - one["stages_ms"] / one["ms"] for one in found], "ms": [one["ms"] for one in found]}


def one_request(runtime: mova.Runtime, number: int) -> Found:
    """Encode the image with the chosen experts: milliseconds in all, of its stages, and of loading."""
    before = len(runtime.trace()["traceEvents"])
    source = IMAGE.read_bytes()
    start = perf_counter()
    runtime.encode(source, QUESTIONS[number], CHOSEN)
    seconds = perf_counter() - start
    events = runtime.trace()["traceEvents"]
    threads = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    stages = [
        {"name": event["name"], "ms": event["dur"] / 1e3, "thread": threads[event["tid"]]}
        for event in [one for one in events if one["ph"] != "M"][before - len(threads) :]
        if event["ph"] == "X"
    ]
    own = [stage for stage in stages if stage["name"].split()[0] not in NOT_ENGINES]
    return {
        "ms": seconds * 1e3,
        "stages_ms": sum(stage["ms"] for stage in own),
        "stages": [stage["name"] for stage in own],
        "loading": loading(stages, THREAD),
    }


def together(bundle: Bundle, backend: str, threads: int) -> Found:
    """Seconds of two experts' runs, one after another and at the same time, in turn."""
    pool, _ = pool_of(bundle, backend, threads)
    inputs = {name: probe_of(bundle, name) for name in TOGETHER}
    with pool.lease_all(TOGETHER, Trace()) as engines, ThreadPoolExecutor(len(TOGETHER)) as workers:

        def run(name: str) -> None:
            engines[name].run(inputs[name])

        times = interleave(
            {
                "one after another": Contender(lambda _: [run(name) for name in TOGETHER]),
                "at the same time": Contender(lambda _: list(workers.map(run, TOGETHER))),
            },
            2 * REPEATS,
        )
    at_once, in_turn = times["at the same time"], times["one after another"]
    return {"seconds": times, "ratio": asdict(Spread.of(ratios(at_once, in_turn)))}


def tracing() -> Found:
    """Microseconds that one stage of a trace costs."""
    trace, count = Trace(Recorder()), 20_000
    start = perf_counter()
    for _ in range(count):
        with trace.stage("stage", bytes=1):
            pass
    return {"microseconds_a_stage": (perf_counter() - start) / count * 1e6}


PARTS: dict[str, Callable[..., Found]] = {
    "latency": latency,
    "swap": swap,
    "ahead": ahead,
    "questions": questions,
    "overhead": overhead,
    "together": together,
    "tracing": lambda *_: tracing(),
}


def inside(given: argparse.Namespace) -> None:
    """One measurement, in this process."""
    if given.prepack:  # as ONNX Runtime does by default
        OrtBackend._prepacks = lambda self, component: True  # type: ignore[method-assign]
    extra = json.loads(given.inside)
    print(json.dumps(PARTS[given.part](Bundle.open(given.bundle), given.backend, given.threads, *extra)))


def measure(given: argparse.Namespace, part: str, *extra: Any, prepack: bool = False) -> Found:
    """The same in a process of its own."""
    command = [sys.executable, __file__, str(given.bundle), "--part", part, "--backend", given.backend]
    options = ["--threads", str(given.threads), "--inside", json.dumps(extra), *(["--prepack"] if prepack else [])]
    done = subprocess.run(command + options, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def all_parts(given: argparse.Namespace) -> Found:
    """Every part that was asked for."""
    bundle, found = Bundle.open(given.bundle), dict[str, Any]()
    towers = [name for name in bundle.manifest.components if name != LANGUAGE_MODEL]

    def note(part: str, label: str, result: Found) -> None:
        found.setdefault(part, {})[label] = result
        print(f"{part:10} {label:28} {brief(result)}", flush=True)

    def asked(part: str) -> bool:
        return given.part in (None, part)

    if asked("latency"):
        for name in towers:
            bring(bundle, name)
            measure(given, "latency", name)  # checked now, if it never was
            forget(bundle, name)
            note("latency", f"{name} cold", measure(given, "latency", name))
            note("latency", f"{name} warm", measure(given, "latency", name))
    if asked("swap"):
        note("swap", "mapped weights", measure(given, "swap"))
        if given.backend == "ort":
            note("swap", "packed weights", measure(given, "swap", prepack=True))
    if asked("ahead"):
        for cold in (False, True):
            for prefetch in (False, True):
                label = f"{'cold' if cold else 'warm'}, {'with' if prefetch else 'without'} prefetch"
                note("ahead", label, measure(given, "ahead", prefetch, cold))
    if asked("questions"):
        note("questions", "one image", measure(given, "questions"))
    if asked("overhead"):
        note("overhead", "resident", measure(given, "overhead", given.repeats))
    if asked("together"):
        note("together", " and ".join(TOGETHER), measure(given, "together"))
    if asked("tracing"):
        note("tracing", "one stage", measure(given, "tracing"))
    return found


def brief(result: Any) -> str:
    """A result on one line, samples by their medians."""
    if isinstance(result, dict):
        return ", ".join(f"{name} {brief(value)}" for name, value in result.items() if name != "stages")
    if isinstance(result, list):
        return brief(median(result)) if result else "-"
    return f"{result:.4g}" if isinstance(result, float) else str(result)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--part", choices=list(PARTS))
    parser.add_argument("--backend", default="ort")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=REPEATS, help="requests of `overhead`")
    parser.add_argument("--name", default="full-size", help="of the bundle, in the result's file name")
    parser.add_argument("--prepack", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        inside(given)
        return 0
    if (busy := load()) > cores():
        print(f"others keep this machine busy (load {busy:.1f}): times will mean little", file=sys.stderr)
    results = {**facts(given.threads), "backend": given.backend, "experts": CHOSEN, **all_parts(given)}
    if not given.part:
        file = RESULTS / f"serving-{given.name}-{given.backend}-{short_name()}.json"
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"written: {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
