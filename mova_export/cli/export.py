"""mova export: a checkpoint becomes a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mova_export.cli.options import names
from mova_export.errors import ExportError
from mova_runtime.engines.budget import format_size


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("export", help="turn a published checkpoint into a bundle")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder with config.json and weights")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write; must not exist")
    parser.add_argument(
        "--only", metavar="NAME,…", help="export these components only (base, an expert, text, adapter, llm)"
    )
    parser.add_argument(
        "--precision", default="fp32", metavar="NAME,…",
        help="of every component, in order of preference: fp32 (default), fp16, bf16, int8, int4",
    )  # fmt: skip
    parser.add_argument(
        "--tower", action="append", default=[], metavar="NAME=FOLDER",
        help="configuration folder of a tower (base, an expert, text) that is not where config.json says; repeatable",
    )  # fmt: skip
    parser.add_argument("--template", metavar="NAME", help="prompt template, where the tokenizer does not tell")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    export_to(
        arguments.checkpoint,
        arguments.out,
        components=None if arguments.only is None else names("--only", arguments.only),
        precisions=names("--precision", arguments.precision),
        towers=dict(_tower(option) for option in arguments.tower),
        template=arguments.template,
        overwrite=arguments.overwrite,
    )
    return 0


def export_to(
    checkpoint: Path,
    out: Path,
    *,
    components: list[str] | None = None,
    precisions: Sequence[str] = ("fp32",),
    towers: dict[str, Path] | None = None,
    template: str | None = None,
    overwrite: bool = False,
) -> None:
    """Export, telling what is done as it is done."""
    try:
        from mova_export.checkpoint.layout import COMPONENTS
        from mova_export.export import Progress, export
    except ModuleNotFoundError as error:
        raise ExportError(f"exporting needs {error.name}; install the project with its `export` extra") from None

    in_a_line = False

    def starting(name: str, index: int, total: int) -> None:
        nonlocal in_a_line
        in_a_line = True
        print(f"[{index:2}/{total}] {name:<11}", end="", flush=True)

    def finished(done: Progress) -> None:
        nonlocal in_a_line
        artifact = done.artifact
        indent = "" if in_a_line else " " * len(f"[{done.index:2}/{done.total}] {'':<11}")
        in_a_line = False
        error = max(parity.relative_l2 for parity in artifact.parity)
        print(
            f"{indent}{artifact.precision}{format_size(artifact.bytes):>11}  {done.seconds:5.1f} s  "
            f"differs from torch by {error:.0e}",
            flush=True,
        )

    try:
        manifest = export(
            checkpoint,
            out,
            components=COMPONENTS if components is None else components,
            precisions=precisions,
            tower_folders=towers,
            template=template,
            overwrite=overwrite,
            starting=starting,
            finished=finished,
        )
    finally:
        if in_a_line:
            print(flush=True)  # an error's line starts at the left
    parameters = sum(component.parameters for component in manifest.components.values())
    print(f"{out}: {len(manifest.components)} components, {parameters / 1e6:,.1f} million parameters")


def _tower(option: str) -> tuple[str, Path]:
    name, equals, folder = option.partition("=")
    if not equals or not name or not folder:
        raise ExportError(f"--tower {option}: expected NAME=FOLDER")
    return name, Path(folder)
