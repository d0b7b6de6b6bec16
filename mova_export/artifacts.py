"""One precision of a component: derived from its float32 graph, written, and compared with torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
from transformers import LlamaConfig

from mova_export.graphs.casts import to_narrow
from mova_export.graphs.language.in_place import keep_in_place
from mova_export.graphs.onnx import data_of, save, save_weights, unmapped
from mova_export.graphs.policy import Kept, policy
from mova_export.graphs.prepare import prepare
from mova_export.graphs.quantise import edges, matrices, quantise
from mova_export.graphs.rounding import rounded
from mova_export.reference import Reference
from mova_runtime.bundle.manifest import Agreement, Precision
from mova_runtime.errors import ParityError
from mova_runtime.parity.bars import BARS, Bar
from mova_runtime.parity.probe import Verdict

MARGIN = 0.9
"""How much of int4's bar an export may use: other processors order and round their sums differently."""

_IN_PLACE_SUFFIX = ".in_place.onnx"

Origin = Callable[[], ir.Model]
"""Gives a component's float32 graph, each time anew; its weights are read when they are asked for, and not kept."""


def stored(path: Path) -> Origin:
    """A float32 graph that was written."""
    return lambda: unmapped(path)


@dataclass(frozen=True)
class Derived:
    """A graph that was written: its files, the graph first, what is wider in it than its precision, its parity.

    in_place: which of the files is the graph with its cache in place, if there is one.
    agreement: of the language model.
    """

    files: list[Path]
    kept: Kept
    verdict: Verdict
    in_place: Path | None = None
    agreement: Agreement | None = None


def derive(origin: Origin, path: Path, precision: Precision, reference: Reference) -> Derived:
    """Write a component in one precision.

    Args:
        origin: its float32 graph.
        path: where the graph of this precision goes; for fp32 it may be there already.
        precision: which.
        reference: the probe to compare on.

    Raises:
        ParityError: it is below the precision's bar.
    """
    if precision == "fp32":
        files = [path, data_of(path)] if path.exists() else save(origin(), path)
        derived = Derived(files, Kept(), reference.judge(ir.load(path), path.parent, precision))
    elif precision in ("fp16", "bf16"):
        derived = _narrow(origin, path, precision, reference)
    elif precision == "int8":
        derived = _quantised(origin, path, precision, reference, 0)
    else:
        derived = _four_bits(origin, path, reference)
    require(derived.verdict)
    return derived


def add_agreement(derived: Derived, reference: Reference) -> Derived:
    """Measure how alike a graph that was written goes on after the reference's prompts, if it has any."""
    path, precision = derived.files[0], derived.verdict.precision
    return replace(derived, agreement=reference.agreement(_runs(path, precision), path.parent, precision))


def add_in_place(derived: Derived, config: LlamaConfig, reference: Reference) -> Derived:
    """Write the language model a second time, in the form that keeps its cache in place; its weights are those there.

    Args:
        derived: what was written; its precision is one that ONNX Runtime computes in on a processor.
        config: of a model that `suits`.
        reference: the probe to compare on.

    Raises:
        ExportError: the graph's attention has another form than the one that is known.
        ParityError: it is below the precision's bar.
    """
    source = derived.files[0]
    model = ir.load(source)
    keep_in_place(model, config)
    path = source.with_name(f"{source.stem}{_IN_PLACE_SUFFIX}")
    ir.save(model, path)
    verdict = reference.judge(ir.load(path), path.parent, derived.verdict.precision, "shared")
    if not verdict.passed:
        raise ParityError(
            f"{verdict.complaint()}, with its cache in place; this is a fault of the exporter or of ONNX Runtime"
        )
    return replace(derived, files=[*derived.files, path], in_place=path)


def require(verdict: Verdict) -> None:
    """See that a graph is within its precision's bar.

    Raises:
        ParityError: it is not.
    """
    if not verdict.passed:
        cause = (
            "these weights may not bear it: leave the precision out"
            if verdict.precision in ("int8", "int4")
            else "this is a fault of the exporter or of ONNX Runtime"
        )
        raise ParityError(f"{verdict.complaint()}; {cause}")


def _narrow(origin: Origin, path: Path, precision: Precision, reference: Reference) -> Derived:
    model = _prepared(origin)
    kept = to_narrow(model, precision, policy(reference.component, precision))
    files = save(model, path)
    return Derived(files, kept, reference.judge(_runs(path, precision), path.parent, precision))


def _runs(path: Path, precision: Precision) -> ir.Model:
    """A graph that was written, as it runs on a processor, where no backend of ONNX Runtime computes in bfloat16."""
    written = ir.load(path)
    return rounded(written) if precision == "bf16" else written


def _quantised(origin: Origin, path: Path, precision: Precision, reference: Reference, eight: int) -> Derived:
    model = _prepared(origin)
    bits = 8 if precision == "int8" else 4
    kept = quantise(model, bits, policy(reference.component, precision), eight)
    files = save(model, path)
    return Derived(files, kept, reference.judge(ir.load(path), path.parent, precision))


def _four_bits(origin: Origin, path: Path, reference: Reference) -> Derived:
    """4 bits for as many matrices as the bar allows, with a margin; found by bisection, a run of the probe a step.

    Every matrix is rounded to 4 bits once, and to 8 at most once: a step puts a graph together from what is there.
    """
    prepared = _prepared(origin)
    low, high = edges(prepared), len(matrices(prepared))
    first = _quantised(prepared.clone, path, "int4", reference, low)
    if _comfortable(first.verdict) or low == high:
        return first
    rules, known = policy(reference.component, "int4"), dict(ir.load(path).graph.initializers)
    written: list[Path] = []

    def step(eight: int) -> tuple[ir.Model, Kept, Verdict]:
        model = prepared.clone()
        kept = quantise(model, 4, rules, eight)
        if new := [value for name, value in model.graph.initializers.items() if name not in known]:
            written.extend(save_weights(new, path.with_name(f"eight-{eight}.onnx")))
            known.update(ir.load(written[-2]).graph.initializers)
        for name, value in model.graph.initializers.items():
            value.const_value = known[name].const_value
        return model, kept, reference.judge(model, path.parent, "int4")

    best = None
    while high - low > 1:
        tried = (low + high) // 2
        found = step(tried)
        if _comfortable(found[-1]):
            high, best = tried, found
        else:
            low = tried
    model, kept, verdict = best or step(high)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # what is written is read from the files at hand
        files = [file.replace(path.with_name(file.name)) for file in save(model, Path(folder) / path.name)]
    for file in written:
        file.unlink()
    return Derived(files, kept, verdict)


def _comfortable(verdict: Verdict) -> bool:
    bar = BARS[verdict.precision]
    # A cosine falls with the square of the error.
    narrower = Bar(1 - (1 - bar.cosine) * MARGIN**2, bar.relative_l2 * MARGIN, bar.worst_row * MARGIN)
    return all(narrower.passes(difference) for difference in verdict.outputs)


def _prepared(origin: Origin) -> ir.Model:
    model = origin()
    prepare(model)
    return model
