"""mova bench: what a bundle costs on this machine."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from mova_export.cli.options import names
from mova_export.errors import BenchError
from mova_runtime.bundle import Bundle


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("bench", help="measure every component and every route on this machine")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--only", metavar="NAME,…", help="these components only, and no routes unless they are named")
    parser.add_argument("--backend", metavar="NAME,…", help="these backends only (default: all that can run here)")
    parser.add_argument(
        "--precision",
        metavar="NAME,…",
        help="these precisions (default: the bundle's, and bf16 on OpenVINO where the processor multiplies it)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of an engine, and of torch (default: cores)")
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="runs before the timed ones (default: 1)")
    parser.add_argument("--repeats", type=int, metavar="N", help="timed runs (default: by --seconds, 2 to 50)")
    parser.add_argument(
        "--seconds", type=float, default=0.5, metavar="S", help="that a contender's timed runs take (default: 0.5)"
    )
    parser.add_argument(
        "--routes",
        metavar="ROUTE,…",
        help="such as none,sam,dinov2+sam, or off (default: none, each expert, two pairs, a triple)",
    )
    parser.add_argument("--against", metavar="NAME,…", help="torch, torch.compile: the same modules, in the same run")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="torch's weights, where the bundle's are not a preset's random ones",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots that needs no network")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit status is 1 where an engine does not compute what torch computed, or none of a component ran."""
    from mova_export.bench.measurement import Measurement

    measurement = Measurement(Bundle.open(arguments.bundle), _options(arguments), _command(arguments), _tell)
    try:
        measurement.run()
    finally:
        results = measurement.results.to_json()
        try:
            if arguments.json:
                _keep(results, arguments.json)
        finally:
            if arguments.html:
                _draw(results, arguments.html)
    found = measurement.results.components
    wrong = [
        f"{name} by {one.candidate.label}"
        for name, measured in found.items()
        for one in measured.contenders.values()
        if not one.is_right
    ]
    if wrong:
        print(f"mova: not what torch computed: {', '.join(wrong)}", file=sys.stderr)
    failed = [name for name, measured in found.items() if measured.contenders and measured.fastest is None]
    failed += [f"route {'+'.join(route['experts']) or 'none'}" for route in results["routes"] if route["error"]]
    if failed:
        print(f"mova: nothing ran of {', '.join(failed)}", file=sys.stderr)
    return 1 if wrong or failed else 0


def _draw(results: dict[str, Any], file: Path) -> None:
    from mova_export.bench.page import render
    from mova_export.bench.writing import write

    write(file, render(results))
    print(f"written: {file}", file=sys.stderr)


def _keep(results: dict[str, Any], file: Path) -> None:
    from mova_export.bench.writing import write_json

    write_json(file, results)
    how = "written" if results["complete"] else f"interrupted after {len(results['components'])} components, kept"
    print(f"{how}: {file}", file=sys.stderr)


def _options(arguments: argparse.Namespace) -> Any:
    from mova_export.bench.facts import cores
    from mova_export.bench.options import Options
    from mova_export.bench.routes import OFF

    routes = _names("--routes", arguments.routes)
    if routes is not None and OFF in routes:
        if routes != (OFF,):
            raise BenchError(f"--routes {arguments.routes}: off stands alone")
        routes = ()
    return Options(
        only=_names("--only", arguments.only),
        backends=_names("--backend", arguments.backend),
        precisions=_names("--precision", arguments.precision),
        threads=cores() if arguments.threads is None else arguments.threads,
        warmup=arguments.warmup,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        routes=routes,
        against=_names("--against", arguments.against) or (),
        checkpoint=arguments.checkpoint,
        json=arguments.json,
        html=arguments.html,
    )


def _names(option: str, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(names(option, value))


def _command(arguments: argparse.Namespace) -> str:
    """As it can be typed again, wherever it came from."""
    given = {name: value for name, value in vars(arguments).items() if name not in ("run", "bundle")}
    options = [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]
    return shlex.join(["mova", "bench", str(arguments.bundle), *options])


def _tell(line: str) -> None:
    print(line, flush=True)
