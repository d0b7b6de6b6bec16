"""mova run: one question about one image."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import mova_runtime as mova
from mova_export.cli.options import add_runtime_options, chosen_experts, names, runtime_options


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("run", help="answer a question about an image")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--image", required=True, metavar="FILE")
    parser.add_argument("--question", required=True, metavar="TEXT")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="longest answer (default: 128)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="draw tokens (default: 0, always the most likely)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest of this probability"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="draw the same again")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the answer; may be repeated")
    parser.add_argument(
        "--fallback", metavar="NAME,…", help="what may serve a component that the first choice can't, as in ort:fp32"
    )
    add_runtime_options(parser)
    parser.add_argument("--no-prefetch", action="store_true", help="load each engine only when it is its turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object: answer, tokens, routing, stats")
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write stages, loads, evictions and cache hits for Perfetto"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    if not arguments.temperature and (arguments.seed is not None or arguments.top_p != 1.0):
        raise mova.MovaError("--seed and --top-p choose among tokens that are drawn: give a --temperature above 0")
    if arguments.trace and not arguments.trace.absolute().parent.is_dir():
        raise mova.MovaError(f"--trace {arguments.trace}: its folder does not exist")
    if arguments.trace and arguments.trace.is_dir():
        raise mova.MovaError(f"--trace {arguments.trace}: is a folder")
    with mova.open(
        arguments.bundle,
        fallback=() if arguments.fallback is None else names("--fallback", arguments.fallback),
        prefetch=not arguments.no_prefetch,
        **runtime_options(arguments),
    ) as runtime:
        answer = runtime.answer(
            arguments.image,
            arguments.question,
            chosen_experts(arguments.experts),
            arguments.max_new_tokens,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.seed,
            stop=arguments.stop,
        )
    if arguments.json:
        print(json.dumps(answer.to_dict()))
    else:
        print(answer.text)
        for line in summary(answer):
            print(line, file=sys.stderr)
    if arguments.trace:
        write_trace(runtime.trace(), arguments.trace)
    return 0


_ENDS = {"length": ", cut off by --max-new-tokens", "context": ", cut off where the context is full (--max-context)"}


def summary(answer: mova.Answer) -> list[str]:
    """What a request did, line by line."""
    stages = answer.stats.stages
    end = max((stage["start_ms"] + stage["ms"] for stage in stages), default=0.0)
    width = max((len(stage["name"]) for stage in stages), default=0)
    return [
        f"experts chosen: {', '.join(answer.routing.experts) or 'none'}",
        f"engines: {answer.stats.backend}:{answer.stats.precision}, {answer.stats.why}",
        f"engines loaded: {', '.join(answer.stats.engines_loaded)}",
        *(
            f"  {name} was served by {served.by}{': ' if served.refused else ''}{'; '.join(served.refused)}"
            for name, served in answer.stats.served.items()
            if served.refused or served.by != f"{answer.stats.backend}:{answer.stats.precision}"
        ),
        *(f"  {stage['name']:<{width}} {stage['ms']:9.1f} ms" for stage in stages),
        f"  {'in all':<{width}} {end:9.1f} ms, {len(answer.tokens)} tokens{_ENDS.get(answer.stats.finish, '')}",
        "loading: {ms:.1f} ms, of which {exposed_ms:.1f} ms were waited for".format_map(answer.stats.loading),
    ]


def write_trace(trace: dict[str, Any], path: Path) -> None:
    """Write a trace in Chrome's format.

    Raises:
        MovaError: the file can't be written.
    """
    try:
        path.write_text(json.dumps(trace), encoding="utf-8")
    except OSError as error:
        raise mova.MovaError(f"{path}: can't be written ({error.strerror})") from None
