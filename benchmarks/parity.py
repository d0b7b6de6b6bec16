"""How far each backend and precision is from float32 torch, component by component, on the tiny checkpoint.

    python benchmarks/parity.py [--bundle BUNDLE]

Prints a Markdown table of cosines (the least of a component's outputs) and of sizes, and writes the figures. Without a
bundle, the tiny checkpoint of `mova demo` is exported in every precision.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from mova_export.bench.facts import cores, facts, short_name
from mova_export.checkpoint.load import Checkpoint
from mova_export.demo.checkpoint import write_tiny_checkpoint
from mova_export.export import export
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import PRECISIONS
from mova_runtime.engines import backends
from mova_runtime.engines.abilities import BACKENDS
from mova_runtime.engines.choice import Choice, choose
from mova_runtime.errors import MovaError
from mova_runtime.parity.probe import Verdict, verify

RESULTS = Path(__file__).resolve().parent / "results"
SEED = 2


def main() -> int:
    """Measure, print, write; the exit status is 1 where an engine is below its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="measure this one; nothing is written then")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.bundle or _export(Path(folder))
        bundle = Bundle.open(path)
        choices = _able(bundle)
        verdicts = {str(choice): _judge(bundle, choice) for choice in choices}
        print(_table(bundle, verdicts))
        print(_sizes(bundle))
        if not given.bundle:
            _write(bundle, verdicts)
    below = [verdict.complaint() for found in verdicts.values() for verdict in found.values() if not verdict.passed]
    print("\n".join(below), file=sys.stderr)
    return 1 if below else 0


def _export(folder: Path) -> Path:
    write_tiny_checkpoint(folder / "checkpoint", seed=SEED)
    export(Checkpoint(folder / "checkpoint"), folder / "bundle", precisions=PRECISIONS)
    return folder / "bundle"


def _able(bundle: Bundle) -> list[Choice]:
    """Every backend and precision that runs here."""
    able = []
    for backend in BACKENDS:
        for precision in PRECISIONS:
            try:
                able.append(choose(bundle, backend, precision))
            except MovaError as error:
                print(f"not measured: {backend}:{precision}: {error}", file=sys.stderr)
    return able


def _judge(bundle: Bundle, choice: Choice) -> dict[str, Verdict]:
    backend, verdicts = backends.make(choice), {}
    for name in bundle.manifest.components:
        engine = backend.load(bundle, name)
        verdicts[name] = verify(bundle, name, engine, choice.precision)
        engine.close()
    return verdicts


def _table(bundle: Bundle, verdicts: dict[str, dict[str, Verdict]]) -> str:
    rows = [["component", *verdicts], ["---"] * (1 + len(verdicts))]
    for name in bundle.manifest.components:
        rows.append([name, *(f"{_least_cosine(found[name]):.6f}" for found in verdicts.values())])
    return _markdown(rows)


def _sizes(bundle: Bundle) -> str:
    precisions = bundle.precisions
    rows = [["KiB", *precisions], ["---"] * (1 + len(precisions))]
    for name in bundle.manifest.components:
        sizes = [bundle.artifact(name, precision).bytes for precision in precisions]
        rows.append([name, *(f"{size / 1024:,.0f}" for size in sizes)])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _least_cosine(verdict: Verdict) -> float:
    return min(output.cosine for output in verdict.outputs)


def _write(bundle: Bundle, verdicts: dict[str, dict[str, Verdict]]) -> None:
    found: dict[str, Any] = facts(cores())
    del found["precision"]
    found["parity"] = {
        choice: {
            name: {
                "cosine": _least_cosine(verdict),
                "relative_l2": max(output.relative_l2 for output in verdict.outputs),
                "worst_row": max(output.worst_row for output in verdict.outputs),
            }
            for name, verdict in by_component.items()
        }
        for choice, by_component in verdicts.items()
    }
    found["bytes"] = {
        name: {artifact.precision: artifact.bytes for artifact in component.artifacts}
        for name, component in bundle.manifest.components.items()
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"parity-{short_name()}.json"
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"written: {file}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
