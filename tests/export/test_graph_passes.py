"""Passes over graphs of our own making: casts, lookups, quantised matrices, sums of zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mova_export.graphs.casts import to_narrow
from mova_export.graphs.onnx import save
from mova_export.graphs.policy import Policy
from mova_export.graphs.prepare import prepare
from mova_export.graphs.quantise import quantise
from mova_export.graphs.zeros import drop_zero_sums
from mova_runtime.engines.ort import open_engine
from reference_data import cosine

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


def model_of(text: str, **weights: np.ndarray) -> ir.Model:
    """A graph in ONNX's text form, with its weights."""
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["": 20]> g {text}')
    for name, array in weights.items():
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value = ir.Tensor(array, name=name)
        value.dtype, value.shape = value.const_value.dtype, ir.Shape(array.shape)
        model.graph.register_initializer(value)
    prepare(model)
    return model


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def run(model: ir.Model, folder: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    path, _ = save(model, folder / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    return list(open_engine(path, "test", 0).run(inputs).values())


@pytest.mark.parametrize("kind", ["matrix", "mask"])
def test_a_constant_beyond_float16_keeps_its_node_float32(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    text = "(float[2, 64] x) => (float[2, 64] y) { h = MatMul(x, a) m = Add(h, c) y = MatMul(m, b) }"
    a, b = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    c = np.array(1e5 if kind == "mask" else 1, np.float32)
    if kind == "matrix":
        b[3, 5] = 70_000
    model = model_of(text, a=a, b=b, c=c)
    kept = to_narrow(model, "fp16", Policy())
    assert kept.float32 == (("masks",) if kind == "mask" else ("weight b",))
    x = rng.standard_normal((2, 64)).astype(np.float32)
    (y,) = run(model, tmp_path, x=x)
    assert np.isfinite(y).all()
    assert cosine(y, (x @ a + c) @ b) > 0.999


def test_values_read_in_both_types_are_cast_once(rng: np.random.Generator, tmp_path: Path) -> None:
    text = """(float[2, 64] x) => (float[2, 64] y, float[2, 64] h) {
        h = MatMul(x, a) p = Softmax <axis = -1> (h) q = Softmax <axis = 0> (h)
        r = MatMul(p, a) s = MatMul(q, a) t = Add(r, s) y = Mul(t, a0) }"""
    a, a0 = rng.standard_normal((64, 64)).astype(np.float32) / 8, rng.standard_normal(64).astype(np.float32)
    model = model_of(text, a=a, a0=a0)
    to_narrow(model, "fp16", Policy())
    # x, h to both softmaxes and the output, p, q, y; t is no residual sum: neither operand comes from the other
    assert sum(node.op_type == "Cast" for node in model.graph) == 5
    assert [value.name for value in model.graph.outputs] == ["y", "h"]
    x = rng.standard_normal((2, 64)).astype(np.float32)
    y, h = run(model, tmp_path, x=x)
    assert cosine(h, x @ a) > 0.99999
    assert y.dtype == np.float32


def test_a_lookup_of_many_rows_is_stored_narrow_and_cast_a_row(rng: np.random.Generator) -> None:
    text = "(int64[n] ids) => (float[n, 64] y) { e = Gather <axis = 0> (t, ids) y = LayerNormalization(e, w) }"
    for rows, dtype in ((4096, FLOAT16), (16, FLOAT)):
        model = model_of(text, t=rng.standard_normal((rows, 64)).astype(np.float32), w=np.ones(64, np.float32))
        to_narrow(model, "fp16", Policy())
        (gather,) = [node for node in model.graph if node.op_type == "Gather"]
        assert gather.inputs[0].dtype == dtype


def test_quantised_rows_and_stacked_matrices_are_close(rng: np.random.Generator, tmp_path: Path) -> None:
    text = """(int64[p] i, float[p, 3, 256] x) => (float[p, 3, 256] y) {
        m = Gather <axis = 0> (t, i) y = MatMul(x, m) }"""
    t = rng.standard_normal((5, 256, 256)).astype(np.float32)
    t[..., 7] *= 1000  # a scale a column: the others don't suffer
    model = model_of(text, t=t)
    kept = quantise(model, 4, Policy())
    assert kept.int8 == ("stacked matrices",)
    x, i = rng.standard_normal((2, 3, 256)).astype(np.float32), np.array([4, 1])
    path, weights = save(model, tmp_path / "model.onnx")
    (y,) = open_engine(path, "test", 0).run({"x": x, "i": i}).values()
    expected = x @ t[i]
    for column in (0, 7, 255):
        assert cosine(y[..., column], expected[..., column]) > 0.9999
    assert weights.stat().st_size < t.nbytes * 0.26


def test_zeros_added_to_broadcast_go(rng: np.random.Generator, tmp_path: Path) -> None:
    text = """(float[b, 1, 1, 8] mask, float[b, 4, 8, 8] scores) => (float[b, 4, 8, 8] y) {
        wide = Add(zeros, mask) turned = Sub(one, wide) y = Add(scores, turned) }"""
    zeros, one = np.zeros((1, 4, 8, 8), np.float32), np.array(1, np.float32)
    mask = rng.standard_normal((2, 1, 1, 8)).astype(np.float32)
    scores = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    model = model_of(text, zeros=zeros, one=one)
    drop_zero_sums(model)
    assert "zeros" not in model.graph.initializers
    (y,) = run(model, tmp_path, mask=mask, scores=scores)
    np.testing.assert_array_equal(y, scores + (1 - mask))

    kept = model_of(text.replace("Add(scores, turned)", "MatMul(scores, turned)"), zeros=zeros, one=one)
    drop_zero_sums(kept)
    assert "zeros" in kept.graph.initializers
