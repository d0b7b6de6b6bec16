"""Whether all of MoVA-8B answers within the memory of an edge device: the peak of `mova run`, seen from outside.

    python benchmarks/edge.py BUNDLE --work DIR [--limit 8GiB] [--budget 7.2GiB] [--experts none,sam]

BUNDLE is `mova export --preset mova-8b --random-weights`, of which the towers are taken as they are. Its language model
is made anew in 4 bits, of random weights that 4 bits can say exactly: random weights of full precision bear 4 bits
worse than trained ones, and half of them would get 8. A question is asked with each of the experts, and where the model
chooses them, in a process of its own, engines checked before; what counts is that process's most resident memory,
libraries and mapped files included, as the operating system tells it when the process has ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from mova_export.bench.facts import cores, describe, facts, load, short_name
from mova_export.doctor.room import NEEDED
from mova_runtime.bundle import MANIFEST, Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.memory import format_size, parse_size

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGE = ROOT / "mova_export" / "demo" / "chart.png"
QUESTION = "Which bar is the tallest, and what is its value?"
PRESET, TOKENS, ROUTED = "mova-8b", 16, "routed"
WATCH = """
import os, sys
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(bool(status))
"""
"""Runs a command and tells its most KiB resident: not done from here, for a process's peak begins with its parent's."""

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
    """One question in a process of its own: its peak, and what it said of itself. `experts`: see `--experts`."""
    command = [sys.executable, "-c", MOVA, "run", str(bundle.root), "--image", str(IMAGE)]
    named, _, times = experts.partition("@")
    command += ["--question", " ".join([QUESTION] * int(times or 1)), "--max-new-tokens", str(TOKENS)]
    command += [] if named == ROUTED else ["--experts", named.replace("+", ",")]
    command += ["--backend", given.backend, "--precision", given.precision, "--threads", str(given.threads), "--json"]
    command += ["--memory-budget", given.budget, "--max-context", str(given.max_context)]
    start = perf_counter()
    done = subprocess.run([sys.executable, "-S", "-c", WATCH, *command], capture_output=True, text=True)
    *complaint, peak = done.stderr.strip().splitlines()
    found: Found = {"seconds": perf_counter() - start, "peak_bytes": int(peak) * 1024, "error": None}
    if done.returncode:
        return found | {"error": complaint[-1] if complaint else f"status {done.returncode}"}
    answer = json.loads(done.stdout)
    told = {name: answer["stats"][name] for name in ("served", "loading", "prompt_tokens")}
    return found | {"tokens": len(answer["tokens"]), **told, "stages": answer["stats"]["stages"]}


def table(results: Found) -> str:
    """What each request took, as rows of Markdown."""
    rows = [
        "| experts | tokens of the prompt, of the answer | most memory of the process, GiB | its seconds |",
        "|---" * 4 + "|",
    ]
    for asked, one in results["requests"].items():
        used = [name for name in one.get("served", ()) if name not in NEEDED]
        who = f"{', '.join(used) or 'none'}{', chosen by the model' if asked.startswith(ROUTED) else ''}"
        what = one["error"] or f"{one['prompt_tokens']}, {one['tokens']}"
        rows.append(f"| {who} | {what} | **{one['peak_bytes'] / 2**30:.1f}** | {one['seconds']:.0f} |")
    return "".join(f"{row}\n" for row in rows)


def main() -> int:
    """Measure, print, write; 1 where a request failed or took more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where the bundle with 4 bits is, or is kept")
    parser.add_argument("--limit", default="8GiB", help="that a request has to stay under; default: %(default)s")
    parser.add_argument("--budget", default="7.2GiB", help="--memory-budget of `mova run`; default: %(default)s")
    parser.add_argument("--max-context", type=int, default=2048, help="of prompt and answer; default: %(default)s")
    parser.add_argument(
        "--experts",
        help="requests, as routed,none,sam+deplot,sam@20 (the question twenty times); default: routed, none, each",
    )
    parser.add_argument("--backend", default="openvino,llm=ort:int4,dinov2=ort:fp32")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=RESULTS / f"edge-{short_name()}.json")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bundle = edge_bundle(Bundle.open(given.bundle), given.work)
    limit = parse_size(given.limit)
    about = {**facts(given.threads), "bundle": describe(bundle), "budget": given.budget, "limit": given.limit}
    about |= {"max_context": given.max_context, "backend": given.backend, "precision": given.precision}
    found = {}
    each = [ROUTED, "none", *(expert.name for expert in bundle.manifest.vision.experts)]
    for experts in given.experts.split(",") if given.experts else each:
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
