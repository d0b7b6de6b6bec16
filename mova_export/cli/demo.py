"""mova demo: the whole path on a tiny checkpoint with random weights."""

from __future__ import annotations

import argparse
import shutil
from importlib import resources
from pathlib import Path

import mova_runtime as mova
from mova_export.cli.export import checkpoint_source, export_to
from mova_export.cli.run import summary
from mova_export.cli.verify import verify_bundle
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle

SEED = 2
"""With these random weights the router happens to choose experts."""

QUESTION = "What is the title of the chart?"

REAL_WEIGHTS = """\
The answer is gibberish: the weights are random, so this shows that everything runs, not that it knows anything.
With real weights (a published MoVA checkpoint, downloaded to a folder with its tower and text-encoder folders):
  mova export CHECKPOINT --out BUNDLE
  mova run BUNDLE --image photo.jpg --question "What is on the table?"
The bundle is a plain folder: copy it to another machine and install the project there with its `cpu` extra."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("demo", help="make a tiny checkpoint, export it, and ask it a question")
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="FOLDER", help="where to work (default: demo)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit status is 1 where a component does not compute what torch computes."""
    try:
        from mova_export.demo.checkpoint import write_tiny_checkpoint
    except ModuleNotFoundError as error:
        raise ExportError(
            f"the demo exports, which needs {error.name}; install the project with its `export` extra"
        ) from None

    checkpoint, bundle, image = (arguments.out / name for name in ("checkpoint", "bundle", "chart.png"))
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        print(f"1. A tiny checkpoint in the published layout, weights from seed {SEED}: {checkpoint}", flush=True)
        shutil.rmtree(checkpoint, ignore_errors=True)
        write_tiny_checkpoint(checkpoint, seed=SEED)
        image.write_bytes((resources.files("mova_export.demo") / "chart.png").read_bytes())
    except OSError as error:
        raise ExportError(f"{arguments.out}: can't be written ({error.strerror})") from None

    print(f"\n2. Exported to ONNX, each component checked against torch: {bundle}", flush=True)
    export_to(checkpoint_source(checkpoint), bundle, overwrite=True)

    print(f"\n3. A question about {image}: {QUESTION}", flush=True)
    with mova.open(bundle) as runtime:
        answer = runtime.answer(image, QUESTION, max_new_tokens=24)
        all_experts = [expert.name for expert in runtime.manifest.vision.experts]
    print(f"answer: {answer.text!r}")
    print("\n".join(summary(answer)))
    idle = [name for name in all_experts if name not in answer.stats.engines_loaded]
    print(f"experts never loaded: {', '.join(idle) or 'none'}")

    print("\n4. Parity with torch, asked of the runtime's engines:", flush=True)
    passed = verify_bundle(Bundle.open(bundle))
    print(f"\n{REAL_WEIGHTS}")
    return 0 if passed else 1
