"""Whether engines that are unloaded give their memory back: resident size after each of 50 times load, run, unload.

    python benchmarks/unloading.py BUNDLE [--backends NAME,…] [--only NAME,…] [--cycles N]

Every engine has a process of its own. The first cycles don't count: what a library sets up once is not the engine's.
Compared is the least of the second half with the least of the first, for OpenVINO frees some memory only a while after;
beside it the last with the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mova_export.bench.facts import facts, short_name
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.engines.choice import choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.needs.watch import resident
from mova_runtime.language.cache import cache_of
from mova_runtime.trace import Trace

RESULTS = Path(__file__).resolve().parent / "results"
WARM = 5
BACKENDS = ("ort", "openvino")


def live(folder: str, backend: str, component: str, cycles: int) -> None:
    """Print the bytes that are resident after each cycle."""
    bundle = Bundle.open(folder)
    loader = Loader(bundle, choose_in_order(bundle, backend, "fp32", components=[component]))
    probe = bundle.component(component).probe
    inputs = {name: load_array(bundle.path(file)) for name, file in probe.inputs.items()}
    held: list[Any] = []
    for cycle in range(WARM + cycles):
        engine = loader.load(component, Trace()).engine
        if component == LANGUAGE_MODEL:
            binding, x = engine.bind(), inputs["inputs_embeds"]
            cache = cache_of(engine, binding, bundle.manifest.language, (), x.shape[1])
            cache.read(x)
            held = [engine, binding, cache]
        else:
            engine.keep(inputs)
            held = [engine]
        engine.close()  # though it is referred to, and its binding
        if cycle >= WARM:
            print(resident(), flush=True)
    del held


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--only", default="")
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        backend, component, cycles = given.inside
        live(given.bundle, backend, component, int(cycles))
        return 0
    components = given.only.split(",") if given.only else list(Bundle.open(given.bundle).manifest.components)
    results: dict[str, Any] = {**facts(0), "cycles": given.cycles, "growth": {}}
    for backend in given.backends.split(","):
        for component in components:
            command = [sys.executable, __file__, given.bundle, "--inside", backend, component, str(given.cycles)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            sizes = [int(line) for line in done.stdout.split()]
            half = len(sizes) // 2
            found = {
                "least_of_halves": min(sizes[half:]) / min(sizes[:half]) - 1,
                "last_to_first": sizes[-1] / sizes[0] - 1,
                "mib": sizes[-1] / 2**20,
            }
            results["growth"].setdefault(backend, {})[component] = found
            print(
                f"{backend:9} {component:11} {found['least_of_halves']:+7.2%} (last to first "
                f"{found['last_to_first']:+.2%}), {found['mib']:.0f} MiB",
                flush=True,
            )
    if not given.only:
        file = RESULTS / f"unloading-{short_name()}.json"
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"written: {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
