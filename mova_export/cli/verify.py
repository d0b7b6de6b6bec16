"""mova verify: does every component still compute what torch computed?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mova_export.cli.options import names
from mova_runtime.bundle import Bundle
from mova_runtime.engines import backends
from mova_runtime.engines.choice import choose_in_order, meant_for
from mova_runtime.engines.first_load import load_checked
from mova_runtime.engines.needs.store import Needs, identity
from mova_runtime.errors import BundleError, IntegrityError
from mova_runtime.trace import Trace

if TYPE_CHECKING:
    from mova_runtime.engines.protocol import Backend, Engine
    from mova_runtime.parity.gate import Gate
    from mova_runtime.parity.probe import Verdict


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("verify", help="check every component against what torch computed at export")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="whose engines to check (default: auto); ort,adapter=cuda:bf16 gives a component its own",
    )
    parser.add_argument("--precision", metavar="NAME", help="of the engines (default: the bundle's first)")
    parser.add_argument("--only", metavar="NAME,…", help="these components only")
    parser.add_argument(
        "--max-context", type=int, metavar="N", help="of requests to come: memory is remembered for that"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit status is 1 where a component fails."""
    only = None if arguments.only is None else names("--only", arguments.only)
    bundle = Bundle.open(arguments.bundle, anew=True).bounded(arguments.max_context)
    return 0 if verify_bundle(bundle, arguments.backend, arguments.precision, only) else 1


def verify_bundle(
    bundle: Bundle, backend_name: str = "auto", precision: str | None = None, only: list[str] | None = None
) -> bool:
    """Print a line for each output; whether all are within the bar.

    Without `only`, every file of the bundle is checked, those of built engines too, whichever backend is asked for.
    The verdicts are remembered, and the memory that engines take: what passes here is known when a request loads it.

    Raises:
        IntegrityError: a file is not what the manifest says.
        BackendError: an engine can't be loaded or fails.
    """
    from mova_runtime.parity.bars import BARS
    from mova_runtime.parity.gate import Gate

    components = list(bundle.manifest.components)
    if unknown := [name for name in only or () if name not in components]:
        raise BundleError(f"no component {', '.join(unknown)} in the bundle; it has {', '.join(components)}")
    choices = choose_in_order(bundle, backend_name, precision, components=only)
    chosen = {name: meant_for(choices, name)[0] for name in only or components}
    made, gate = {choice: backends.make(choice) for choice in dict.fromkeys(chosen.values())}, Gate(bundle)
    for choice in made:
        print(f"{choice.component and choice.component + ' by '}{choice}: {choice.why}")
        print(f"an output passes with {BARS[choice.precision]}")
    print(f"{'component':<12}{'output':<28}{'cosine':>10}{'rel. L2':>10}{'of a row':>10}{'largest':>10}  at")
    if only is None:
        _check_files(bundle)
    failed = []
    for name, choice in chosen.items():
        verdict = _judge(bundle, name, made[choice], gate)
        for output in verdict.outputs:
            errors = (output.relative_l2, output.worst_row, output.max_abs)
            figures = f"{output.cosine:>10.6f}" + "".join(f"{error:>10.1e}" for error in errors)
            mark = "ok" if verdict.bar.passes(output) else "FAILED"
            print(f"{name:<12}{output.output:<28}{figures}  {list(output.worst)} {mark}", flush=True)
        if not verdict.passed:
            failed.append(name)
    if failed:
        print(f"mova: not what torch computed: {', '.join(failed)}", file=sys.stderr)
    return not failed


def _judge(bundle: Bundle, component: str, backend: Backend, gate: Gate) -> Verdict:
    """A component's verdict; what its engine took is measured anew, and replaces what was remembered."""
    verdicts: list[Verdict] = []

    def check(engine: Engine) -> None:
        verdicts.append(gate.judge(backend, component, engine))

    first = load_checked(bundle, component, backend, check, Trace(), alone=lambda: 0)
    first.engine.close()
    (verdict,) = verdicts
    if first.measured and verdict.passed:
        Needs().remember(identity(backend, bundle, component), first.took)
    return verdict


def _check_files(bundle: Bundle) -> None:
    for file in bundle.files():
        bundle.checked_path(file)
    for record in bundle.engines():
        try:
            bundle.checked_path(record.file)
        except IntegrityError as error:
            reason = str(error).removesuffix("; copy or export the bundle again")
            engine = f"the engine of {record.key.component!r} for {record.key.capability}"
            folder = bundle.path(record.file).parent
            raise IntegrityError(f"{engine} is damaged: {reason}; remove {folder} and run `mova build`") from None
