"""One precision of a component: derived from its float32 graph, written, and compared with torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from mova_export.graphs.casts import to_narrow
from mova_export.graphs.onnx import save
from mova_export.graphs.policy import Kept, policy
from mova_export.graphs.prepare import prepare
from mova_export.graphs.quantise import edges, matrices, quantise
from mova_export.graphs.rounding import write_rounded
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines import ort
from mova_runtime.errors import ParityError
from mova_runtime.parity.bars import BARS, Bar
from mova_runtime.parity.probe import Case, Verdict, judge

MARGIN = 0.9
"""How much of int4's bar an export may use: other processors order and round their sums differently."""


@dataclass(frozen=True)
class Reference:
    """A component's probes."""

    component: str
    cases: tuple[Case, ...]

    def judge(self, model: Path, precision: Precision) -> Verdict:
        """Run an ONNX file on the processor and compare."""
        packed = ort.prepacks(self.component, precision)  # as a request will run it
        engine = ort.open_engine(model, self.component, 0, prepack=packed)
        try:
            return judge(self.component, engine, precision, self.cases)
        finally:
            engine.close()


@dataclass(frozen=True)
class Derived:
    """A graph that was written: its files, the graph first, what is wider in it than its precision, its parity."""

    files: list[Path]
    kept: Kept
    verdict: Verdict


def derive(source: Path, path: Path, precision: Precision, reference: Reference) -> Derived:
    """Write a component in one precision.

    Args:
        source: its float32 graph.
        path: where the graph of this precision goes; `source` itself for fp32.
        precision: which.
        reference: the probe to compare on.

    Raises:
        ParityError: it is below the precision's bar.
    """
    if precision == "fp32":
        derived = Derived([source, source.with_name(f"{source.name}.data")], Kept(), reference.judge(source, precision))
    elif precision in ("fp16", "bf16"):
        derived = _narrow(source, path, precision, reference)
    elif precision == "int8":
        derived = _quantised(source, path, precision, reference, 0)
    else:
        derived = _four_bits(source, path, reference)
    if not derived.verdict.passed:
        cause = (
            "these weights may not bear it: leave the precision out"
            if precision in ("int8", "int4")
            else "this is a fault of the exporter or of ONNX Runtime"
        )
        raise ParityError(f"{derived.verdict.complaint()}; {cause}")
    return derived


def _narrow(source: Path, path: Path, precision: Precision, reference: Reference) -> Derived:
    model = _load(source)
    kept = to_narrow(model, precision, policy(reference.component, precision))
    files = save(model, path)
    if precision == "fp16":
        return Derived(files, kept, reference.judge(path, precision))
    rounded = path.with_name("rounded.onnx")  # no processor backend of ONNX Runtime computes in bfloat16
    write_rounded(path, rounded)
    verdict = reference.judge(rounded, precision)
    rounded.unlink()
    return Derived(files, kept, verdict)


def _four_bits(source: Path, path: Path, reference: Reference) -> Derived:
    """4 bits for as many matrices as the bar allows, with a margin; found by bisection, a run of the probe a step."""
    model = _load(source)
    low, high = edges(model), len(matrices(model))
    del model
    best = _quantised(source, path, "int4", reference, low)
    if _comfortable(best.verdict):
        return best
    tried = low
    while high - low > 1:
        tried = (low + high) // 2
        best = _quantised(source, path, "int4", reference, tried)
        if _comfortable(best.verdict):
            high = tried
        else:
            low = tried
    return best if tried == high else _quantised(source, path, "int4", reference, high)


def _quantised(source: Path, path: Path, precision: Precision, reference: Reference, eight: int) -> Derived:
    model = _load(source)
    bits = 8 if precision == "int8" else 4
    kept = quantise(model, bits, policy(reference.component, precision), eight)
    files = save(model, path)
    return Derived(files, kept, reference.judge(path, precision))


def _comfortable(verdict: Verdict) -> bool:
    bar = BARS[verdict.precision]
    # A cosine falls with the square of the error.
    narrower = Bar(1 - (1 - bar.cosine) * MARGIN**2, bar.relative_l2 * MARGIN, bar.worst_row * MARGIN)
    return all(narrower.passes(difference) for difference in verdict.outputs)


def _load(source: Path) -> ir.Model:
    model = ir.load(source)
    prepare(model)
    return model
