"""Bundles in several precisions: each computes what torch does, in the types its graph says, in fewer bytes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import mova_runtime as mova
from command_line import MovaCommand
from mova_export.artifacts import Derived, derive, stored
from mova_export.checkpoint.layout import COMPONENTS
from mova_export.checkpoint.load import Checkpoint
from mova_export.errors import ExportError
from mova_export.export import export
from mova_export.graphs.policy import Kept
from mova_export.reference import Reference
from mova_runtime import ParityError
from mova_runtime.bundle import Bundle, sha256_of
from mova_runtime.bundle.manifest import PRECISIONS, Parity, Probe
from mova_runtime.engines.ort import open_engine
from mova_runtime.parity.probe import Case
from reference_data import cosine

MakePath = Callable[[int], Path]

SMALL = ("deplot", "llm")
LIKE_OTHERS = {"vary": "sam", "pix2struct": "deplot"}
"""Components whose graphs have another's form: what holds for that one in every precision is not shown again."""

DERIVED = [name for name in COMPONENTS if name not in LIKE_OTHERS]
NARROW = ("fp16", "bf16")
FLOAT, FLOAT16, BFLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
FLOATS = {FLOAT, FLOAT16, BFLOAT16}


@dataclass(frozen=True)
class Written:
    """The components of a bundle in every precision."""

    bundle: Bundle
    derived: dict[tuple[str, str], Derived]

    def kept(self, component: str, precision: str) -> Kept:
        return self.derived[component, precision].kept

    def parity(self, component: str, precision: str) -> dict[str, Parity]:
        return {d.output: d.rounded() for d in self.derived[component, precision].verdict.outputs}

    def graph(self, component: str, precision: str) -> Path:
        return self.derived[component, precision].files[0]

    def weight_bytes(self, component: str, precision: str) -> int:
        return self.derived[component, precision].files[1].stat().st_size

    def nodes(self, component: str, precision: str, *operators: str) -> list[ir.Node]:
        return [node for node in ir.load(self.graph(component, precision)).graph if node.op_type in operators]

    def probe(self, component: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return probe(self.bundle, component)


@pytest.fixture(scope="module")
def written(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Derived from the float32 graphs of the shared bundle."""
    shared, root = Bundle.open(bundle(2)), tmp_path_factory.mktemp("precisions")
    derived = {}
    for name in DERIVED:
        component = shared.component(name)
        source = root / name / "fp32" / "model.onnx"
        source.parent.mkdir(parents=True)
        for file in component.artifacts[0].files:
            shutil.copyfile(shared.path(file), source.parent / Path(file.path).name)
        reference = Reference(name, tuple(Case(kept.case, *arrays(shared, kept)) for kept in component.probes))
        for precision in PRECISIONS:
            path = source if precision == "fp32" else root / name / precision / "model.onnx"
            derived[name, precision] = derive(stored(source), path, precision, reference)
    return Written(shared, derived)


@pytest.fixture(scope="module")
def small(checkpoint: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of two components in every precision."""
    out = tmp_path_factory.mktemp("small") / "bundle"
    export(Checkpoint(checkpoint(2)), out, components=SMALL, precisions=PRECISIONS)
    return Bundle.open(out)


def probe(bundle: Bundle, component: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return arrays(bundle, bundle.manifest.components[component].probe)


def arrays(bundle: Bundle, kept: Probe) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    inputs, outputs = ({k: np.load(bundle.path(f)) for k, f in files.items()} for files in (kept.inputs, kept.outputs))
    return inputs, outputs


# ---- parity ----


@pytest.mark.parametrize("component", DERIVED)
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999999), ("fp16", 0.999), ("int8", 0.99), ("int4", 0.99)])
def test_a_graph_computes_what_torch_computed(component: str, precision: str, least: float, written: Written) -> None:
    inputs, expected = written.probe(component)
    found = open_engine(written.graph(component, precision), component, 0).run(inputs)
    for name, output in expected.items():
        assert found[name].dtype == np.float32
        assert cosine(found[name], output) >= least, name


@pytest.mark.parametrize("component", DERIVED)
def test_bfloat16_graphs_run_as_they_are_and_agree_with_torch(component: str, written: Written) -> None:
    openvino = pytest.importorskip("openvino")
    inputs, expected = written.probe(component)
    model = openvino.Core().compile_model(str(written.graph(component, "bf16")), "CPU")
    found = model(inputs)
    recorded = written.parity(component, "bf16")
    for name, output in expected.items():
        difference = np.linalg.norm(found[model.output(name)] - output) / np.linalg.norm(output)
        assert cosine(found[model.output(name)], output) >= 0.999, name
        # What the bundle tells was measured with rounded float32: within a few times of the real thing.
        assert difference < 4 * recorded[name].relative_l2 + 0.01, name


def test_the_manifest_tells_what_a_precision_costs(small: Bundle) -> None:
    for name, component in small.manifest.components.items():
        assert [a.precision for a in component.artifacts] == list(PRECISIONS)
        worst = [max(parity.relative_l2 for parity in a.parity) for a in component.artifacts]
        fp32, fp16, bf16, int8, int4 = worst
        assert 0 < fp32 < fp16 < bf16 < int4, name
        assert fp16 < int8 < int4, name
        for a in component.artifacts:
            assert {parity.output for parity in a.parity} == {output.name for output in component.outputs}
            assert all(parity.cosine is not None and parity.cosine >= 0.99 for parity in a.parity)
            assert bool(a.float32) == (a.precision != "fp32")
            assert bool(a.int8) == (a.precision == "int4")


def test_the_manifest_tells_how_a_language_model_agrees(small: Bundle) -> None:
    found = {artifact.precision: artifact.agreement for artifact in small.component("llm").artifacts}
    assert all(alike and alike.prompts == 32 for alike in found.values())
    apart = {precision: alike.divergence for precision, alike in found.items() if alike}
    assert apart["fp32"] < 1e-9 < apart["fp16"] < apart["int8"] < apart["int4"]
    assert found["fp32"].tokens == 1
    assert found["int4"].tokens > 0.5
    assert all(artifact.agreement is None for artifact in small.component("deplot").artifacts)


def test_a_graph_that_computes_something_else_is_refused(written: Written, tmp_path: Path) -> None:
    inputs, expected = written.probe("deplot")
    wrong = Reference("deplot", (Case("", inputs, {name: out[..., ::-1] for name, out in expected.items()}),))
    for precision in PRECISIONS:
        with pytest.raises(ParityError, match=rf"deplot: output .*\(allowed for {precision}"):
            derive(stored(written.graph("deplot", "fp32")), tmp_path / precision / "model.onnx", precision, wrong)


# ---- types ----


@pytest.mark.parametrize("component", DERIVED)
@pytest.mark.parametrize("precision", NARROW)
def test_graphs_are_strongly_typed(component: str, precision: str, written: Written) -> None:
    path = written.graph(component, precision)
    onnx.checker.check_model(str(path), full_check=True)
    narrow = FLOAT16 if precision == "fp16" else BFLOAT16
    model = ir.load(path)
    assert {v.dtype for v in (*model.graph.inputs, *model.graph.outputs)} <= {FLOAT, ir.DataType.INT64}
    assert all(v.dtype in (narrow, FLOAT) for v in model.graph.initializers.values() if v.dtype in FLOATS)
    for node in model.graph:
        types = {value.dtype for value in node.inputs if value is not None} & FLOATS
        assert len(types) <= 1, node
        if node.op_type in ("Softmax", "LayerNormalization", "Pow", "Sqrt", "ReduceMean", "ReduceSum", "Sin", "Cos"):
            assert types == {FLOAT}, node
        if node.op_type == "Cast":
            (operand,) = node.inputs
            assert operand.dtype != node.outputs[0].dtype
            assert not operand.is_initializer()
            assert operand.producer() is None or operand.producer().op_type != "Cast"


@pytest.mark.parametrize("component", DERIVED)
@pytest.mark.parametrize("precision", NARROW)
def test_matrices_are_narrow(component: str, precision: str, written: Written) -> None:
    """All but those the manifest names: T5's second layers in float16."""
    wide = [
        node
        for node in written.nodes(component, precision, "MatMul")
        if node.inputs[1].is_initializer() and node.inputs[1].dtype == FLOAT
    ]
    gated = "gated MLP outputs" in written.kept(component, precision).float32
    assert gated == (precision == "fp16" and component in ("pix2struct", "deplot"))
    assert len(wide) == (2 if gated else 0)


@pytest.mark.parametrize("precision", NARROW)
def test_the_gate_stays_float32(precision: str, written: Written) -> None:
    assert "gate" in written.kept("adapter", precision).float32
    for node in written.nodes("adapter", precision, "Gemm", "TopK", "ScatterElements"):
        assert {value.dtype for value in node.inputs} & FLOATS == {FLOAT}
    assert written.parity("adapter", precision)["gates"].relative_l2 < 1e-6


@pytest.mark.parametrize("component", ["base", "dinov2", "sam", "text", "adapter", "llm"])
def test_the_residual_stream_stays_float32(component: str, written: Written) -> None:
    """Two sums a layer whose operands are both activations; a rotary embedding's sums are none."""
    for precision in NARROW:
        assert "residual" in written.kept(component, precision).float32
        graph = ir.load(written.graph(component, precision)).graph
        sums = [
            node
            for node in graph
            if node.op_type == "Add"
            and node.outputs[0].dtype == FLOAT
            and all(value.producer() is not None and value.dtype == FLOAT for value in node.inputs)
        ]
        assert len(sums) >= (4 if component != "adapter" else 3)


@pytest.mark.parametrize("operator", ["Conv", "Einsum"])
def test_what_the_operator_set_lacks_in_bfloat16_stays_float32(operator: str, written: Written) -> None:
    assert operator in written.kept("sam", "bf16").float32
    assert operator not in written.kept("sam", "fp16").float32


# ---- bytes ----


def test_weights_shrink(written: Written) -> None:
    """Towers of matrices: half, a quarter and a scale of 4 bytes a 32 weights, an eighth and the same."""
    for component in ("base", "biomedclip", "text"):
        full = written.weight_bytes(component, "fp32")
        shares = [written.weight_bytes(component, precision) / full for precision in PRECISIONS[1:]]
        fp16, bf16, int8, int4 = shares
        assert 0.5 <= fp16 < 0.51
        assert 0.5 <= bf16 < 0.55
        assert int4 < int8 < 0.35
        assert int4 < 0.28
    adapter = [written.weight_bytes("adapter", precision) for precision in PRECISIONS]
    assert adapter[1] < 0.54 * adapter[0]
    assert adapter[3] < 0.43 * adapter[0]  # its experts' matrices too


def test_no_large_matrix_is_left_unquantised(written: Written) -> None:
    for component in DERIVED:
        for precision in ("int8", "int4"):
            for node in written.nodes(component, precision, "MatMul", "Gather"):
                for value in node.inputs:
                    if value.is_initializer() and value.dtype == FLOAT:
                        assert value.const_value.size < 1 << 18, (component, precision, value.name)


def test_four_bits_are_for_most_matrices(written: Written) -> None:
    for component in DERIVED:
        quantised = written.nodes(component, "int4", "MatMulNBits")
        bits = [node.attributes.get_int("bits") for node in quantised]
        told = next(words for words in written.kept(component, "int4").int8 if words.endswith("matrices"))
        assert told == f"{bits.count(8)} of {len(bits)} matrices"
        assert bits.count(4) >= 0.4 * len(bits), component
        eight = [node.attributes.get_int("bits") for node in written.nodes(component, "int8", "MatMulNBits")]
        assert eight == [8] * len(bits)


# ---- the command ----


@pytest.mark.parametrize("component", SMALL)
def test_exporting_twice_gives_the_same_bytes(
    component: str, bundle: MakePath, small: Bundle, written: Written
) -> None:
    """Exported by another process, and derived from that float32 graph once more."""
    first, again = Bundle.open(bundle(2)).manifest.components[component], small.manifest.components[component]
    assert dataclasses.replace(again, artifacts=again.artifacts[:1]) == first
    for artifact in again.artifacts:
        derived = written.derived[component, artifact.precision]
        assert [file.sha256 for file in artifact.files_of("growing")] == [sha256_of(file) for file in derived.files]
        parity = written.parity(component, artifact.precision)
        assert all(parity[one.output] == one for one in artifact.parity)
        assert (artifact.float32, artifact.int8) == (derived.kept.float32, derived.kept.int8)


def test_float32_is_not_kept_where_it_was_not_asked_for(
    checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    out = tmp_path / "bundle"
    done = mova_command("export", checkpoint(2), "--out", out, "--only", "llm", "--precision", "int8, fp16")
    assert done.status == 0, done.error
    assert {path.name for path in (out / "components/llm").iterdir()} & set(PRECISIONS) == {"fp16", "int8"}
    assert sorted(path.name for path in (out / "components/llm/fp16").iterdir()) == ["model.onnx", "model.onnx.data"]
    assert [a.precision for a in Bundle.open(out).manifest.components["llm"].artifacts] == ["int8", "fp16"]
    lines = [line.removeprefix("[ 1/1] llm").split() for line in done.output.splitlines() if "torch" in line]
    assert [line[0] for line in lines] == ["int8", "fp16"]

    shown = mova_command("inspect", out)
    assert "residual" in shown.output
    assert json.loads(mova_command("inspect", out, "--json").output)["components"]["llm"]["artifacts"][1]["float32"]


@pytest.mark.parametrize(
    ("precisions", "text"),
    [
        (("fp64",), "unknown precision fp64"),
        (("fp16", "fp16"), "named twice"),
        ((), "no precision is named for deplot"),
        (("fp32", "sam=fp16"), "no component 'sam' is exported; there are deplot"),
        (("fp32", "deplot="), "unknown precision"),
        (("fp32", "deplot=int4", "deplot=int4"), "int4 is named twice"),
    ],
)
def test_wrong_precisions(precisions: tuple[str, ...], text: str, checkpoint: MakePath, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=text):
        export(Checkpoint(checkpoint(2)), tmp_path / "bundle", components=["deplot"], precisions=precisions)
    assert not (tmp_path / "bundle").exists()


def test_precisions_of_single_components(checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand) -> None:
    """What an edge device takes: towers as they are, a language model of few bits. It is opened without being told."""
    out = tmp_path / "bundle"
    asked = ("--precision", "fp32,deplot=int8,deplot=fp32,llm=int4")
    mova_command("export", checkpoint(2), "--out", out, "--only", "base,deplot,text,adapter,llm", *asked)
    found = {name: [one.precision for one in c.artifacts] for name, c in Bundle.open(out).manifest.components.items()}
    assert found == {
        "base": ["fp32"],
        "deplot": ["int8", "fp32"],
        "text": ["fp32"],
        "adapter": ["fp32"],
        "llm": ["int4"],
    }
    image = np.zeros((8, 8, 3), np.uint8)
    with mova.open(out, backend="ort") as runtime:
        served = runtime.answer(image, "What is this?", ("deplot",), 2).stats.served
    assert {name: one.by for name, one in served.items()} == {
        **dict.fromkeys(("base", "deplot", "text", "adapter"), "ort:fp32"),
        "llm": "ort:int4",
    }
    assert mova_command("verify", out).status == 0
