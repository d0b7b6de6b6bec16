"""mova verify: does every component still compute what torch computed?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mova_export.cli.options import names
from mova_runtime.bundle import Bundle
from mova_runtime.engines.backends import choose
from mova_runtime.errors import BundleError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("verify", help="check every component against what torch computed at export")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--backend", default="auto", metavar="NAME", help="auto or ort (default: auto)")
    parser.add_argument("--only", metavar="NAME,…", help="these components only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit status is 1 where a component fails."""
    only = None if arguments.only is None else names("--only", arguments.only)
    return 0 if verify_bundle(Bundle.open(arguments.bundle), arguments.backend, only) else 1


def verify_bundle(bundle: Bundle, backend_name: str = "auto", only: list[str] | None = None) -> bool:
    """Print a line for each output; whether all are within tolerance. All of a bundle includes its tokenizers.

    Raises:
        IntegrityError: a file is not what the manifest says.
    """
    from mova_runtime.parity import TOLERANCE, verify

    backend = choose(backend_name)
    names = list(bundle.manifest.components)
    if unknown := [name for name in only or () if name not in names]:
        raise BundleError(f"no component {', '.join(unknown)} in the bundle; it has {', '.join(names)}")
    print(f"backend {backend.name}, {backend.precision}; an output passes within {TOLERANCE[backend.precision]:.0e}")
    print(f"{'component':<12}{'output':<22}{'relative L2':>12}{'largest':>11}")
    if only is None:
        for file in bundle.files():
            bundle.checked_path(file)
    failed = []
    for name in only or names:
        engine = backend.load(bundle, name)
        verdict = verify(bundle, engine, backend.precision)
        engine.close()
        for parity in verdict.outputs:
            within = parity.relative_l2 <= verdict.tolerance
            errors = f"{parity.relative_l2:>12.1e}{parity.max_abs:>11.1e}"
            print(f"{name:<12}{parity.output:<22}{errors}   {'ok' if within else 'FAILED'}")
        if not verdict.passed:
            failed.append(name)
    if failed:
        print(f"mova: not what torch computed: {', '.join(failed)}", file=sys.stderr)
    return not failed
