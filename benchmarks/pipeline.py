"""From an image and a question to visual tokens, end to end: ours against the published pipeline in torch; and memory.

    python benchmarks/pipeline.py BUNDLE [--checkpoint DIR] [--experts NAME,NAME] [--part NAME]

pipeline: base, adapter and the chosen experts, engines resident and nothing remembered; `published.py` is torch's way.
They take turns in processes of their own, and are timed only if they agree. Ours includes reading, decoding and
preprocessing the image and tokenizing the question, which torch gets ready made. "routed" is a request whose experts
the router chooses: the adapter runs twice, as in torch, and the language model's own time is nobody's. "named" is one
whose experts the caller names.

memory: peaks of requests with one expert each, beside a process that has every engine loaded.

Engines are checked on this machine before, so that no check is measured; files are as warm as that leaves them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from contenders import Ours, Theirs
from peaks import peaks
from stand_by import StandBy

from mova_export.bench.facts import cores, describe, facts, load, short_name
from mova_export.bench.timing import Contender, Spread, interleave, ratios
from mova_export.bench.torch_origin import Origin, origin_of
from mova_runtime import MovaError, ParityError
from mova_runtime.bundle import Bundle
from mova_runtime.parity.compare import compare
from mova_runtime.routing import parse

RESULTS = Path(__file__).resolve().parent / "results"
EXPERTS = ("dinov2", "deplot")
BARS = {"fp32": 0.9999, "other": 0.99}
"""Cosine of visual tokens: both in float32, or one of them rounded."""

Found = dict[str, Any]


def pipeline(given: argparse.Namespace, bundle: Bundle) -> Found:
    """Times of resident requests in turn, of a fresh one, and memory.

    Raises:
        MovaError: it can't be measured.
        ParityError: the contenders do not agree.
    """
    origin = origin_of(bundle, given.checkpoint)
    starts: dict[str, Any] = {
        "ours": (Ours, bundle.root, given.experts, given.threads, given.options),
        **{
            f"torch {precision}": (Theirs, bundle.root, given.experts, given.threads, origin, precision)
            for precision in given.torch
        },
    }
    with StandBy("torch", Origin, *vars(origin).values()) as asked:  # in a process that ends: it imports torch
        asked.ask("check")
    with StandBy("ours", *starts["ours"]) as checked:
        checked.ask("fresh")
    found: Found = {"experts": given.experts, "alternating": not given.one_after_another}
    found |= {"first_request": {}, "errors": {}, "memory": {}}
    tokens, times = {}, {}
    for group in [[name] for name in starts] if given.one_after_another else [list(starts)]:
        with ExitStack() as stack:
            waiting = {name: stack.enter_context(StandBy(name, *starts[name])) for name in group}
            for name, one in waiting.items():
                found["first_request"][name] = one.ask("fresh")
                tokens[name] = one.ask("tokens")
                if name == "ours":
                    found |= one.ask("choice")
                else:
                    found["errors"][name] = agree(name, tokens["ours"], tokens[name], found["precision"])
            times |= interleave({label: run for item in waiting.items() for label, run in runs(*item)}, given.repeats)
            found["memory"] |= {name: one.ask("memory") for name, one in waiting.items()}
    found["seconds"] = {name: asdict(Spread.of(sample)) for name, sample in times.items()}
    torch = [name for name in starts if name != "ours"]
    found["ratios"] = {
        name: {other: compared(times[name], times[other], found["alternating"]) for other in torch}
        for name in times
        if name not in starts
    }
    return found


def runs(name: str, one: StandBy) -> Iterator[tuple[str, Contender]]:
    """What is timed of a contender, by label."""
    for method in ("routed", "named") if name == "ours" else ("run",):
        label = f"ours {method}" if name == "ours" else name
        yield label, Contender(lambda _, method=method: one.ask(method))


def agree(name: str, ours: Found, theirs: Found, precision: str) -> Found:
    """Cosine and relative error of both passes' tokens.

    Raises:
        ParityError: they are too far apart to be compared in time.
    """
    bar = BARS["fp32" if precision == "fp32" and name.endswith("fp32") else "other"]
    found = {}
    for which, expected in theirs.items():
        difference = compare(which, ours[which], expected)
        found[which] = {"cosine": difference.cosine, "relative_l2": difference.relative_l2}
        print(f"{which} tokens against {name}: cosine {difference.cosine:.6f}, error {difference.relative_l2:.2g}")
        if not difference.cosine >= bar:  # NaN, too
            raise ParityError(f"{which} tokens and {name}'s differ: cosine {difference.cosine:.6f}, below {bar}")
    return found


def compared(ours: list[float], theirs: list[float], neighbours: bool) -> Found:
    """ours/theirs: of neighbours in time, or of medians where they did not take turns."""
    if neighbours:
        return asdict(Spread.of(ratios(ours, theirs)))
    return {"median": median(ours) / median(theirs)}


def tell(part: str, found: Found) -> None:
    """The result in a few lines."""
    served = f"{found['backend']} {found['precision']}"
    if part == "memory":
        for name, peak in (*found["one_expert"].items(), ("mean", found["mean"]), ("everything", found["everything"])):
            print(f"{name:12} {peak:8.0f} MiB")
        print(f"one expert takes {found['share']:.2f} of everything ({served})")
        return
    for name, seconds in found["first_request"].items():
        print(f"{name:14} {seconds:8.3f} s first request{', from opening the bundle' if name == 'ours' else ''}")
    for name, spread in found["seconds"].items():
        held = found["memory"]["ours" if name.startswith("ours") else name]
        against = "".join(f", {one['median']:.2f} of {theirs}" for theirs, one in found["ratios"].get(name, {}).items())
        print(
            f"{name:14} {spread['median']:8.3f} s ({spread['p10']:.3f} to {spread['p90']:.3f}){against}"
            f"; {held['now']:.0f} MiB, peak {held['peak']:.0f}"
        )
    print(f"ours is {served}; {' and '.join(found['experts']) or 'no expert'}")


PARTS = {"pipeline": pipeline, "memory": peaks}


def arguments() -> argparse.Namespace:
    """The command line, as the parts read it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="the checkpoint that the bundle was made from")
    parser.add_argument("--experts", type=names, default=EXPERTS, help="of the requests; default: %(default)s")
    parser.add_argument("--part", choices=list(PARTS), help="default: both")
    parser.add_argument("--backend", help="default: openvino, with --precision bf16")
    parser.add_argument("--precision")
    parser.add_argument("--torch", type=names, default=("bf16",), help="precisions of torch: bf16, fp32 or both")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one-after-another", action="store_true", help="never two contenders in memory")
    parser.add_argument("--memory-budget", help="of the requests with one expert, such as 4GiB")
    parser.add_argument("--answer", action="store_true", help="memory of requests to the end, language model included")
    parser.add_argument("--name", help="of the bundle, in the result's file name; default: its folder's")
    parser.add_argument("--out", type=Path, help="the result's file; default: in benchmarks/results")
    given = parser.parse_args()
    if unknown := [one for one in given.torch if one not in ("bf16", "fp32")]:
        parser.error(f"--torch {unknown[0]}: bf16 or fp32")
    if min(given.repeats, given.threads) < 1:
        parser.error("--repeats and --threads are at least 1")
    if given.backend is None:
        given.backend, given.precision = "openvino", given.precision or "bf16"
    given.options = {"backend": given.backend, "precision": given.precision}
    return given


def names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name for name in text.split(",") if name)


def main() -> int:
    """Measure, print, write."""
    given = arguments()
    if (busy := load()) > cores():
        print(f"others keep this machine busy (load {busy:.1f}): times will mean little", file=sys.stderr)
    try:
        bundle = Bundle.open(given.bundle)
        given.experts = parse.check(given.experts, bundle.manifest.vision.experts)
        for part in [given.part] if given.part else PARTS:
            context = {**facts(given.threads), "bundle": describe(bundle)}
            found = PARTS[part](given, bundle)
            tell(part, found)
            write(given, part, context | found)
    except MovaError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 1 if isinstance(error, ParityError) else 2
    return 0


def write(given: argparse.Namespace, part: str, found: Found) -> None:
    """Keep what was found beside what was found before, by part and by what was served."""
    name = given.name or given.bundle.resolve().name
    file = given.out or RESULTS / f"pipeline-{name}-{short_name()}.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    label = [found["backend"], found["precision"], *([",".join(given.experts)] if part == "pipeline" else [])]
    label += [found["budget"]] if found.get("budget") else []
    results.setdefault(part, {})[" ".join(label)] = found | {"load_at_end": load()}
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"written: {file}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
