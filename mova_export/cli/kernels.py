"""mova kernels: the adapter's kernels, compiled for the GPUs that will run a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mova_export.cli.options import names
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle
from mova_runtime.engines.memory import format_size
from mova_runtime.engines.nvidia import gpu

if TYPE_CHECKING:
    from mova_runtime.bundle.kernels import AdapterWeights, KernelSet


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("kernels", help="compile the adapter's kernels into a bundle")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--target",
        metavar="SM,…",
        help="GPUs to compile for, such as sm_87,sm_89; they need not be here (default: this one's)",
    )
    parser.add_argument(
        "--precision", metavar="NAME", help="bf16 or fp16 (default: the bundle's first of these, or bf16)"
    )
    parser.add_argument("--rebuild", action="store_true", help="compile what is already there again")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    bundle = Bundle.open(arguments.bundle)
    asked = None if arguments.target is None else names("--target", arguments.target)
    try:
        from mova_export.kernels.order import build, order, precision_of, targets_for
    except ImportError as error:
        raise ExportError(
            f"compiling kernels needs {error.name}; install the project with its `kernels` extra"
        ) from None
    precision = precision_of(bundle, arguments.precision)
    targets = targets_for(asked, gpu())
    wanted = order(bundle, precision, targets)
    print(f"triton {wanted.triton}, {precision}, for {', '.join(map(str, targets))}", flush=True)
    build(bundle, wanted, _Told(), rebuild=arguments.rebuild)
    return 0


class _Told:
    """A line for the weights, and one a target."""

    def packed(self, record: AdapterWeights, seconds: float | None) -> None:
        _tell("weights", f"{len(record.tensors)} tensors", record.file.bytes, seconds)

    def compiled(self, record: KernelSet, seconds: float | None) -> None:
        size = sum(kernel.file.bytes for kernel in record.kernels.values())
        _tell(record.capability, f"{len(record.kernels)} kernels", size, seconds)


def _tell(what: str, number: str, size: int, seconds: float | None) -> None:
    took = "  already there" if seconds is None else f"{seconds:8.1f} s"
    print(f"{what:<9}{number:>12}{format_size(size):>11}{took}", flush=True)
