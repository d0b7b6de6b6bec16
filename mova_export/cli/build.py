"""mova build: TensorRT engines for the GPUs that will run a bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mova_export.cli.options import names
from mova_export.engines.targets import Target, targets_for
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.engine import Flavour
from mova_runtime.engines.memory import format_size
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.trt.library import FLAVOURS

if TYPE_CHECKING:
    from mova_runtime.bundle.engine import EngineKey, EngineRecord


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("build", help="build TensorRT engines into a bundle")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--backend", choices=FLAVOURS, required=True, help="tensorrt-rtx builds without a GPU, tensorrt on the device"
    )
    parser.add_argument(
        "--target", metavar="SM,…", help="GPUs to build for, such as sm_86,sm_120 (default: this one's)"
    )
    parser.add_argument("--precision", metavar="NAME", help="fp32, fp16 or bf16 (default: the bundle's first of these)")
    parser.add_argument("--only", metavar="NAME,…", help="these components only")
    parser.add_argument("--max-batch", type=int, default=1, metavar="N", help="images at once, at most (default: 1)")
    parser.add_argument(
        "--optimization-level", type=int, metavar="N", help="0 builds fastest, 5 tries most (default: TensorRT's)"
    )
    parser.add_argument(
        "--plugins", action="store_true", help="TensorRT: our kernels in the adapter's engine (docs/kernels.md)"
    )
    parser.add_argument("--rebuild", action="store_true", help="build what is already there again")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    build_into(
        Bundle.open(arguments.bundle),
        arguments.backend,
        targets=None if arguments.target is None else names("--target", arguments.target),
        precision=arguments.precision,
        components=None if arguments.only is None else names("--only", arguments.only),
        max_batch=arguments.max_batch,
        level=arguments.optimization_level,
        plugins=arguments.plugins,
        rebuild=arguments.rebuild,
    )
    return 0


def build_into(
    bundle: Bundle,
    flavour: Flavour,
    *,
    targets: list[str] | None = None,
    precision: str | None = None,
    components: list[str] | None = None,
    max_batch: int = 1,
    level: int | None = None,
    plugins: bool = False,
    rebuild: bool = False,
) -> None:
    """Build, telling what is done as it is done."""
    from mova_export.engines.order import build, order, precision_of
    from mova_runtime.engines.trt import library

    library.version(flavour)  # nothing else matters where it is not installed
    chosen = precision_of(bundle, precision)
    gpus = targets_for(flavour, targets, gpu())
    wanted = order(
        bundle, flavour, chosen, gpus, components=components, max_batch=max_batch, level=level, plugins=plugins
    )
    print(f"{flavour} {wanted.version}, {chosen}, for {', '.join(map(str, gpus))}")
    told = _Told(gpus)
    try:
        records = build(bundle, wanted, told, rebuild=rebuild)
    finally:
        told.end()
    size = sum(record.file.bytes for record in records)
    print(
        f"{bundle.root}: {len(records)} engines, {format_size(size)}; {told.built} built now, in {told.seconds:.1f} s"
    )


class _Told:
    """A line an engine; on a terminal also how far it is."""

    def __init__(self, targets: tuple[Target, ...]) -> None:
        self.built = 0
        self.seconds = 0.0
        self._width = max(len(target.capability) for target in targets)
        self._line = ""
        self._percent = -1

    def starting(self, key: EngineKey, index: int, total: int) -> None:
        self._line = f"[{index:{len(str(total))}}/{total}] {key.component:<11}{key.capability:<{self._width}}"
        self._percent = -1
        print(self._line, end="", flush=True)

    def fraction(self, done: float) -> None:
        percent = int(100 * done)
        if sys.stdout.isatty() and percent > self._percent:
            self._percent = percent
            print(f"\r{self._line}{percent:>4} %", end="", flush=True)

    def finished(self, record: EngineRecord, *, built: bool) -> None:
        self.built += built
        self.seconds += record.seconds if built else 0
        took = f"{record.seconds:8.1f} s" if built else "  already built"
        print(f"{chr(13) + self._line if self._percent >= 0 else ''}{format_size(record.file.bytes):>11}{took}")
        self._line = ""

    def end(self) -> None:
        """An error's line starts at the left."""
        if self._line:
            print(flush=True)
