"""Matrix rates: the hand-made graph against the onnx package and numpy, and who is asked for what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from mova_export.bench import product, rate
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines import ort, ov

ELEMENTS = {"fp32": onnx.TensorProto.FLOAT, "fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}
ROUNDING = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}


def left(size: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((size, size), np.float32)


def weight(path: Path) -> np.ndarray:
    """As the onnx package reads it."""
    (found,) = onnx.load(path).graph.initializer
    return onnx.numpy_helper.to_array(found).astype(np.float32)


@pytest.mark.parametrize("size", [3, 127, 128, 300])  # a varint of one byte and of two
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_file_is_what_onnx_says_a_model_is(tmp_path: Path, precision: Precision, size: int) -> None:
    path = product.write(tmp_path, size, precision, 2)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert (model.ir_version, [entry.version for entry in model.opset_import]) == (10, [20])
    operators = ["MatMul", "MatMul"] if precision == "fp32" else ["Cast", "MatMul", "MatMul", "Cast"]
    assert [node.op_type for node in model.graph.node] == operators
    (stored,) = model.graph.initializer
    assert (list(stored.dims), stored.data_type) == ([size, size], ELEMENTS[precision])
    for value in (*model.graph.input, *model.graph.output):
        assert [side.dim_value for side in value.type.tensor_type.shape.dim] == [size, size]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    # what is not set has to be absent: the package writes the same message, field by field
    assert onnx.ModelProto.FromString(model.SerializeToString()) == model
    assert len(model.SerializeToString()) == path.stat().st_size


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_weights_are_rounded_to_nearest(tmp_path: Path, precision: Precision) -> None:
    (tmp_path / "exact").mkdir()
    exact = weight(product.write(tmp_path / "exact", 64, "fp32", 1))
    rounded = weight(product.write(tmp_path, 64, precision, 1))
    assert np.all(np.abs(rounded - exact) <= ROUNDING[precision] * np.abs(exact) + 2.0**-25)
    assert precision == "fp32" or not np.array_equal(rounded, exact)


@pytest.mark.parametrize(("backend", "precision"), [("ort", "fp32"), ("ort", "fp16"), ("openvino", "fp32")])
def test_the_product_is_numpys(tmp_path: Path, backend: str, precision: Precision) -> None:
    path, size = product.write(tmp_path, 96, precision, 3), 96
    open_engine = ort.open_engine if backend == "ort" else lambda *args: ov.open_engine(*args, "fp32")
    engine = open_engine(path, "product", 1)
    w = weight(path)
    expected = left(size) @ w @ w @ w
    found = engine.run({"x": left(size)})["y"]
    assert found.dtype == np.float32
    tolerance = 4 * ROUNDING[precision] * size**0.5
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


def test_what_goes_round_stays_finite_in_float16(tmp_path: Path) -> None:
    """A run's result is the next one's input: on a GPU 16 products a run."""
    w = weight(product.write(tmp_path, 256, "fp16", 1))
    x = left(256)
    for _ in range(16 * 20):
        x = x @ w
    assert 0 < np.abs(x).max() < np.finfo(np.float16).max


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "SMALL", 64)
    monkeypatch.setattr(rate, "LARGE", 128)


@pytest.mark.usefixtures("quick")
def test_rates_are_of_those_that_run_here() -> None:
    asked: list[tuple[str, Precision]] = [
        ("ort", "fp32"),
        ("openvino", "fp32"),
        ("openvino", "fp32"),
        ("ort", "int8"),  # arithmetic of float32
        ("ort", "bf16"),  # knows none
        ("tensorrt", "fp16"),
        ("nobody", "fp32"),
    ]
    found = rate.matrix_rates(asked, 1)
    assert list(found) == ["ort fp32", "openvino fp32"]
    assert all(1e6 < value < 1e15 for value in found.values())


@pytest.mark.usefixtures("quick")
def test_one_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ort.BackendError("no")

    monkeypatch.setattr(ort, "open_session", broken)
    assert list(rate.matrix_rates([("ort", "fp32"), ("openvino", "fp32")], None)) == ["openvino fp32"]


@pytest.mark.usefixtures("quick")
def test_no_room_for_the_file_is_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(product, "write", full)
    assert rate.matrix_rates([("ort", "fp32")], None) == {}


class Clockwork:
    """An engine whose runs take as long as their size says."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.closed, self.calls = seconds, 0.0, 0, list[str]()

    def bind(self) -> Clockwork:
        return self

    def set(self, name: str, array: np.ndarray) -> None:
        self.calls.append("set")

    def carry(self, output: str, name: str) -> None:
        self.calls.append(f"{output}→{name}")

    def run(self) -> None:
        self.calls.append("run")
        self.now += self.seconds * (3 if self.calls.count("run") == 1 else 1)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("speed", "sizes", "runs"),
    [
        (1e9, [2048], 1),  # 17 s a product: once is enough
        (100e9, [2048], 8),  # the large one would take 1.4 s
        (1e12, [2048, 4096], 8),
    ],
)
def test_large_where_it_is_quick(monkeypatch: pytest.MonkeyPatch, speed: float, sizes: list[int], runs: int) -> None:
    opened: list[tuple[int, Clockwork]] = []

    def open_(folder: Path, backend: str, precision: Precision, threads: int | None, size: int) -> Clockwork:
        opened.append((size, Clockwork(2 * size**3 / speed)))
        return opened[-1][1]

    monkeypatch.setattr(rate, "_open", open_)
    monkeypatch.setattr(rate, "perf_counter", lambda: opened[-1][1].now)
    assert rate.matrix_rates([("ort", "fp32")], None)["ort fp32"] == pytest.approx(speed)
    assert [size for size, _ in opened] == sizes
    first = opened[0][1]
    assert first.calls == ["set", "run", *["y→x", "run"] * runs]
    assert all(engine.closed == 2 for _, engine in opened)  # itself and its binding


def test_neither_torch_nor_onnx_is_needed() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx'): sys.modules[name] = None\n"
        "import mova_export.bench.rate as rate\n"
        "rate.SMALL, rate.LARGE = 16, 32\n"
        "print(sorted(rate.matrix_rates([('ort', 'fp32')], 1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['ort fp32']\n"
