"""mova export: a checkpoint, or a published model's shapes with random weights, becomes a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mova_export.cli.options import names
from mova_export.errors import ExportError
from mova_runtime.engines.memory import format_size

if TYPE_CHECKING:
    from mova_export.checkpoint.source import Source

OpenSource = Callable[[], "Source"]
"""Opens what is exported; called when what exporting needs is known to be installed."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("export", help="turn a published checkpoint into a bundle")
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", metavar="CHECKPOINT", help="folder with config.json and weights"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write; must not exist")
    parser.add_argument(
        "--only", metavar="NAME,…", help="export these components only (base, an expert, text, adapter, llm)"
    )
    parser.add_argument(
        "--precision", default="fp32", metavar="NAME,…",
        help="of each component, by preference: fp32 (default), fp16, bf16, int8, int4; llm=int4: of one alone",
    )  # fmt: skip
    parser.add_argument(
        "--tower", action="append", default=[], metavar="NAME=FOLDER",
        help="configuration folder of a tower (base, an expert, text) that is not where config.json says; repeatable",
    )  # fmt: skip
    parser.add_argument("--template", metavar="NAME", help="prompt template, where the tokenizer does not tell")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="instead of a checkpoint: a published model's shapes (mova-8b, mova-7b, mova-34b)",
    )
    parser.add_argument("--random-weights", action="store_true", help="what a preset is filled with: it knows nothing")
    parser.add_argument("--seed", type=int, metavar="N", help="of the random weights (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    export_to(
        _source(arguments),
        arguments.out,
        components=None if arguments.only is None else names("--only", arguments.only),
        precisions=names("--precision", arguments.precision),
        template=arguments.template,
        overwrite=arguments.overwrite,
    )
    return 0


def checkpoint_source(path: Path, towers: dict[str, Path] | None = None) -> OpenSource:
    """A checkpoint on disk; `towers`: folders that are not where its config.json says."""

    def opened() -> Source:
        from mova_export.checkpoint.load import Checkpoint

        return Checkpoint(path, towers)

    return opened


def random_source(preset: str, seed: int) -> OpenSource:
    """A published model with random weights."""

    def opened() -> Source:
        from mova_export.checkpoint.random_model import RandomModel

        return RandomModel(preset, seed)

    return opened


def export_to(
    open_source: OpenSource,
    out: Path,
    *,
    components: list[str] | None = None,
    precisions: Sequence[str] = ("fp32",),
    template: str | None = None,
    overwrite: bool = False,
) -> None:
    """Export, telling what is done as it is done, with the time it took and the most memory the process held."""
    try:
        from mova_export.checkpoint.layout import COMPONENTS
        from mova_export.export import Progress, export
    except ModuleNotFoundError as error:
        raise ExportError(f"exporting needs {error.name}; install the project with its `export` extra") from None

    in_a_line = False
    most = 0

    def starting(name: str, index: int, total: int) -> None:
        nonlocal in_a_line
        in_a_line = True
        print(f"[{index:2}/{total}] {name:<11}", end="", flush=True)

    def finished(done: Progress) -> None:
        nonlocal in_a_line, most
        artifact = done.artifact
        indent = "" if in_a_line else " " * len(f"[{done.index:2}/{done.total}] {'':<11}")
        in_a_line = False
        most = max(most, done.peak_bytes)
        error = max(parity.relative_l2 for parity in artifact.parity)
        print(
            f"{indent}{artifact.precision}{format_size(artifact.bytes):>11}  {done.seconds:5.1f} s  "
            f"{format_size(done.peak_bytes):>9} of memory  differs from torch by {error:.0e}",
            flush=True,
        )

    try:
        manifest = export(
            open_source(),
            out,
            components=COMPONENTS if components is None else components,
            precisions=precisions,
            template=template,
            overwrite=overwrite,
            starting=starting,
            finished=finished,
        )
    finally:
        if in_a_line:
            print(flush=True)  # an error's line starts at the left
    parameters = sum(component.parameters for component in manifest.components.values())
    print(
        f"{out}: {len(manifest.components)} components, {parameters / 1e6:,.1f} million parameters; "
        f"{format_size(most)} of memory at most"
    )


def _source(arguments: argparse.Namespace) -> OpenSource:
    """What the arguments name.

    Raises:
        ExportError: they name nothing or two things, or an option belongs to the other.
    """
    if arguments.preset is None:
        if arguments.random_weights or arguments.seed is not None:
            option = "--random-weights" if arguments.random_weights else "--seed"
            raise ExportError(f"{option} needs --preset NAME")
        if arguments.checkpoint is None:
            raise ExportError("what to export? pass a CHECKPOINT, or --preset NAME --random-weights")
        return checkpoint_source(arguments.checkpoint, dict(_tower(option) for option in arguments.tower))
    if arguments.checkpoint is not None:
        raise ExportError(f"--preset {arguments.preset} and {arguments.checkpoint}: one of them, not both")
    if not arguments.random_weights:
        raise ExportError(f"--preset {arguments.preset}: a preset has no weights of its own; pass --random-weights too")
    if arguments.tower:
        raise ExportError("--tower belongs to a checkpoint; a preset has its own")
    return random_source(arguments.preset, arguments.seed or 0)


def _tower(option: str) -> tuple[str, Path]:
    name, equals, folder = option.partition("=")
    if not equals or not name or not folder:
        raise ExportError(f"--tower {option}: expected NAME=FOLDER")
    return name, Path(folder)
