"""What loading costs and what hides it: latency cold, warm and resident, swaps, prefetch, second questions.

    python benchmarks/serving.py BUNDLE [--part NAME] [--backend NAME] [--threads N] [--name NAME]

BUNDLE is of full size, such as what `mova export --preset mova-8b --random-weights` writes, or any other. Every figure
comes from a process of its own. Cold: the component's files are not in the system's page cache; warm: they are;
resident: the engine is loaded and has run. Engines were checked on this machine before, so that no check is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import mova_runtime as mova
from mova_export.bench.facts import cores, facts, load, process_memory, short_name
from mova_export.bench.page_cache import forget
from mova_export.bench.subject import probe_inputs
from mova_export.bench.timing import Contender, Spread, interleave, ratios
from mova_export.demo.checkpoint import IMAGE
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.engines import ort
from mova_runtime.engines.backends import make
from mova_runtime.engines.choice import choose
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.memory import Limits
from mova_runtime.engines.pages import read_in
from mova_runtime.engines.pool import EnginePool
from mova_runtime.engines.prefetch import THREAD
from mova_runtime.trace import Recorder, Trace, loading

RESULTS = Path(__file__).resolve().parent / "results"
QUESTIONS = ("Which bar is the tallest, and what is its value?", "Who drew this chart, and when?")
TOGETHER = ("biomedclip", "deplot")
"""Two experts of one size, to run at the same time."""
SWAPPED = ("sam", "dinov2")
"""Two large ones that take turns in memory."""
CHOSEN = ("dinov2", "deplot")
"""Experts of the requests."""
SLOW = ("codetr", "sam", "vary")
"""Minutes a run at full size: what they do cold is measured without one."""
REPEATS = 5
NOT_ENGINES = ("load", "check", "wait")

Found = dict[str, Any]


def files_of(bundle: Bundle, component: str) -> list[Path]:
    """What a component's engine is read from."""
    return [bundle.path(file) for artifact in bundle.component(component).artifacts for file in artifact.files]


def bring(files: Iterable[Path]) -> None:
    """Bring files into the page cache."""
    for file in files:
        read_in(file)


def pool_of(bundle: Bundle, backend: str, threads: int, limits: Limits = Limits()) -> tuple[EnginePool, Loader]:
    """A pool as the runtime has it."""
    loader = Loader(bundle, (choose(bundle, backend),), threads)
    return EnginePool(tuple(bundle.manifest.components), loader, limits), loader


def latency(bundle: Bundle, backend: str, threads: int, component: str, runs: int) -> Found:
    """Seconds of the load, of the first run, and of the next; MiB that the engine holds between runs, and its peak."""
    inputs, choice = probe_inputs(bundle, component), choose(bundle, backend)
    loader = make(choice, threads)
    loader.need(bundle, component)
    loader.start()  # imports the library, as the first engine of a process does
    before = process_memory("VmRSS")
    start = perf_counter()
    engine = loader.load(bundle, component)
    times = [perf_counter() - start]
    for _ in range(runs):
        start = perf_counter()
        engine.keep(inputs)
        times.append(perf_counter() - start)
    return {
        **dict(zip(("load", "first_run", "resident_run"), times, strict=False)),
        "mib": process_memory("VmRSS") - before,
        "mib_peak": process_memory("VmHWM") - before,
    }


def swap(bundle: Bundle, backend: str, threads: int, rounds: int) -> Found:
    """Seconds until an engine is there that pushes another one out, files in the page cache; and of its first run."""
    roomy, loader = pool_of(bundle, backend, threads)
    for name in SWAPPED:
        with roomy.lease(name, Trace()):  # measured now, if it never was
            pass
    roomy.close()
    needs = [loader.need(name).peak for name in SWAPPED]
    pool, _ = pool_of(bundle, backend, threads, Limits(host=max(need.host for need in needs)))
    inputs = {name: probe_inputs(bundle, name) for name in SWAPPED}
    found: Found = {name: {"swap": [], "first_run": []} for name in SWAPPED}
    for number in range(rounds + 1):
        for name in SWAPPED:
            bring(files_of(bundle, name))
            start = perf_counter()
            with pool.lease(name, Trace()) as engine:
                leased = perf_counter()
                if number:  # before, it had nobody to push out
                    found[name]["swap"].append(leased - start)
                if number == rounds:
                    engine.keep(inputs[name])
                    found[name]["first_run"].append(perf_counter() - leased)
    assert pool.totals().evictions > 2 * rounds, "they had to take turns"
    pool.close()
    return found


def ahead(bundle: Bundle, backend: str, threads: int, prefetch: bool, cold: bool) -> Found:
    """One request of a fresh runtime: milliseconds that loading took, and that were waited for."""
    for name in bundle.manifest.components:
        (forget if cold else bring)(files_of(bundle, name))
    with mova.open(bundle.root, backend=backend, threads=threads, prefetch=prefetch) as runtime:
        return one_request(runtime, 0)


def questions(bundle: Bundle, backend: str, threads: int) -> Found:
    """Two questions about one image; the first with engines that have run before on another."""
    with mova.open(bundle.root, backend=backend, threads=threads) as runtime:
        runtime.encode(np.zeros((64, 64, 3), np.uint8), "Warm?", CHOSEN)
        return {"first": one_request(runtime, 0), "second": one_request(runtime, 1)}


def overhead(bundle: Bundle, backend: str, threads: int, repeats: int) -> Found:
    """What a request with resident engines takes beside them, and what of that is the pool's: leases and the trace."""
    with mova.open(bundle.root, backend=backend, threads=threads, feature_cache=0) as runtime:
        one_request(runtime, 0)
        found = [one_request(runtime, number % 2) for number in range(repeats)]
        start, leases = perf_counter(), 1000
        for _ in range(leases):
            with runtime._pool.lease("base", Trace(runtime._recorder)):
                pass
        a_lease = (perf_counter() - start) / leases
    stages = median(len(one["stages"]) for one in found)
    pool = a_lease * stages + tracing()["microseconds_a_stage"] / 1e6 * stages
    return {
        "ms": [one["ms"] for one in found],
        "share_beside_stages": [1 - one["stages_ms"] / one["ms"] for one in found],
        "microseconds_a_lease": a_lease * 1e6,
        "share_of_pool_and_trace": [pool * 1e3 / one["stages_ms"] for one in found],
    }


def one_request(runtime: mova.Runtime, number: int) -> Found:
    """Encode the image with the chosen experts: milliseconds in all, of its stages, and of loading."""
    before = sum(event["ph"] != "M" for event in runtime.trace()["traceEvents"])
    source = IMAGE.read_bytes()
    start = perf_counter()
    runtime.encode(source, QUESTIONS[number], CHOSEN)
    seconds = perf_counter() - start
    events = runtime.trace()["traceEvents"]
    threads = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    stages = [
        {"name": event["name"], "ms": event["dur"] / 1e3, "thread": threads[event["tid"]]}
        for event in [one for one in events if one["ph"] != "M"][before:]
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
    inputs = {name: probe_inputs(bundle, name) for name in TOGETHER}
    with pool.lease_all(TOGETHER, Trace()) as engines, ThreadPoolExecutor(len(TOGETHER)) as workers:

        def run(name: str) -> None:
            engines[name].run(inputs[name])

        times = interleave(
            {
                "one after another": Contender(lambda _: [run(name) for name in TOGETHER]),
                "at the same time": Contender(lambda _: list(workers.map(run, TOGETHER))),
            },
            REPEATS,
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
        ort.prepacks = lambda component, precision: True
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


def all_parts(given: argparse.Namespace) -> None:
    """Every part that was asked for."""
    bundle, found = Bundle.open(given.bundle), dict[str, Any]()
    towers = [name for name in bundle.manifest.components if name != LANGUAGE_MODEL]

    def note(part: str, label: str, result: Found) -> None:
        found.setdefault(part, {})[label] = result
        write(given, found)  # what there is so far
        print(f"{part:10} {label:28} {brief(result)}", flush=True)

    def asked(part: str) -> bool:
        return given.part in (None, part)

    if asked("latency"):
        for name in towers:
            measure(given, "latency", name, 0)  # its files are hashed now, if they never were
            forget(files_of(bundle, name))
            note("latency", f"{name} cold", measure(given, "latency", name, int(name not in SLOW)))
            bring(files_of(bundle, name))
            note("latency", f"{name} warm", measure(given, "latency", name, 2))
    if asked("swap"):
        note("swap", "mapped weights", measure(given, "swap", REPEATS))
        if given.backend == "ort":
            note("swap", "packed weights", measure(given, "swap", 1, prepack=True))
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
    all_parts(given)
    return 0


def write(given: argparse.Namespace, found: Found) -> None:
    """Keep what was found, beside other parts that were found before."""
    file = RESULTS / f"serving-{given.name}-{given.backend}-{short_name()}.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    results = {**before, **facts(given.threads), "backend": given.backend, "experts": CHOSEN, **found}
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
