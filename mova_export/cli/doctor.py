"""mova doctor: what this machine can run, what lacks, and the one command to type next."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mova_runtime import MovaError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("doctor", help="show what can run here, what is missing, and what to type next")
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="tell what it all means for this one")
    parser.add_argument("--max-context", type=int, metavar="N", help="what requests will be opened with")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit status is 1 where the bundle, or without one anything at all, can't run."""
    from mova_export.doctor.advice import advise
    from mova_export.doctor.look import look
    from mova_export.doctor.report import lines

    if arguments.max_context is not None and not arguments.bundle:
        raise MovaError("--max-context is of a bundle's requests: name the bundle, too")
    found = look(arguments.bundle, max_context=arguments.max_context)
    advice = advise(found)
    if arguments.json:
        print(json.dumps({**found.to_json(), "next": asdict(advice)}))
    else:
        print("\n".join(lines(found, advice)))
    return 0 if found.runs else 1
