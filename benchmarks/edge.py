"""Whether all of MoVA-8B answers within the memory of an edge device: the peak of `mova run`, seen from outside.

    python benchmarks/edge.py BUNDLE --work DIR [--limit 8GiB] [--budget 6.5GiB] [--experts none,sam,dinov2]

BUNDLE is `mova export --preset mova-8b --random-weights`, of which the towers are taken as they are. Its language model
is made anew in 4 bits, of random weights that 4 bits can say exactly: random weights of full precision bear 4 bits
worse than trained ones, and half of them would get 8. A question is asked once for each of the experts named, in a
process of its own, engines checked before; what counts is that process's most resident memory, libraries and mapped
files included, as the operating system tells it when the process has ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from mova_export.bench.facts import cores, describe, facts, load, short_name
from mova_runtime.bundle import MANIFEST, Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.memory import format_size, parse_size

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGE = ROOT / "mova_export" / "demo" / "chart.png"
QUESTION = "Which bar is the tallest, and what is its value?"
PRESET, TOKENS = "mova-8b", 16
MOVA = "import sys; from mova_export.cli import main; sys.exit(main())"

Found = dict[str, Any]


def edge_bundle(towers: Bundle, folder: Path) -> Bundle:
    """The bundle under a folder, made if it is not there: linked towers, and a language model of 4 bits."""
    out = folder / f"{PRESET}-4-bits"
    if not (out / MANIFEST).is_file() or set(Bundle.open(out).manifest.components) == {LANGUAGE_MODEL}:
        if not (out / MANIFEST).is_file():
            from llamas import FourBitModel  # not above: who measures imports no torch

            from mova_export.export import export

            say("exporting the language model in 4 bits")
            export(FourBitModel(PRESET), out, components=[LANGUAGE_MODEL], precisions=["int4"])
        _add(towers, out)
    return Bundle.open(out)


def _add(towers: Bundle, out: Path) -> None:
    spoken = Bundle.open(out).manifest
    for name in towers.manifest.components:
        if name != LANGUAGE_MODEL:
            for file in (towers.root / "components" / name).rglob("*"):
                if file.is_file():
                    link = out / file.relative_to(towers.root)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    os.link(file, link)
    components = {**towers.manifest.components, LANGUAGE_MODEL: spoken.components[LANGUAGE_MODEL]}
    whole = dataclasses.replace(towers.manifest, components=components, language=spoken.language)
    half = out / f"{MANIFEST}.half"
    half.write_text(json.dumps(to_json(whole), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    half.rename(out / MANIFEST)


def ask(given: argparse.Namespace, bundle: Bundle, experts: str) -> Found:
    """One question in a process of its own: its peak, and what it said of itself."""
    command = [sys.executable, "-c", MOVA, "run", str(bundle.root), "--image", str(IMAGE)]
    command += ["--question", QUESTION, "--experts", experts.replace("+", ","), "--max-new-tokens", str(TOKENS)]
    command += ["--backend", given.backend, "--precision", given.precision, "--threads", str(given.threads), "--json"]
    command += ["--memory-budget", given.budget]
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout, "asked for above"
        assert process.stderr, "asked for above"
        said, complaint = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    found: Found = {"seconds": perf_counter() - start, "peak_bytes": _bytes(usage), "error": None}
    if process.returncode:
        return found | {"error": complaint.strip()}
    answer = json.loads(said)
    told = {name: answer["stats"][name] for name in ("served", "loading", "prompt_tokens")}
    return found | {"tokens": len(answer["tokens"]), **told, "stages": answer["stats"]["stages"]}


def _bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * 1024


def main() -> int:
    """Measure, print, write; 1 where a request failed or took more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where the bundle with 4 bits is, or is kept")
    parser.add_argument("--limit", default="8GiB", help="that a request has to stay under; default: %(default)s")
    parser.add_argument("--budget", default="6.5GiB", help="--memory-budget of `mova run`; default: %(default)s")
    parser.add_argument("--experts", default="none,sam,dinov2", help="requests, such as none,sam+deplot")
    parser.add_argument("--backend", default="openvino,llm=ort:int4")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=RESULTS / f"edge-{short_name()}.json")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bundle = edge_bundle(Bundle.open(given.bundle), given.work)
    limit = parse_size(given.limit)
    about = {**facts(given.threads), "bundle": describe(bundle), "budget": given.budget, "limit": given.limit}
    found = {}
    for experts in given.experts.split(","):
        ask(given, bundle, experts)  # checks engines that never were on this machine
        found[experts] = one = ask(given, bundle, experts)
        told = one["error"] or f"{one['seconds']:.1f} s"
        print(f"{experts}: {format_size(one['peak_bytes'])} at most; {told}", flush=True)
    results = {**about, "requests": found, "load_at_end": load()}
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any(one["error"] or one["peak_bytes"] > limit for one in found.values()))


def say(line: str) -> None:
    """To whoever waits."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
