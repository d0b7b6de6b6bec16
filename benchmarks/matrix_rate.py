"""How fast this machine multiplies large matrices: what a tower's time is held against."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from mova_runtime.engines import ov

SIZE = 2048
RUNS = 8


def matrix_rates(threads: int) -> dict[str, float]:
    """Floating-point operations a second of a 2048×2048 by 2048×2048 product, by library and precision."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2))
    rates = {}
    for label, dtype in (("torch fp32", torch.float32), ("torch bf16", torch.bfloat16)):
        a, b = torch.from_numpy(left).to(dtype), torch.from_numpy(right).to(dtype)
        rates[label] = _rate(lambda a=a, b=b: a @ b)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "product.onnx"
        onnx.save(_product(right), model)
        for precision in ("fp32", "bf16"):
            engine = ov.open_engine(model, "product", 0, precision, threads)
            rates[f"openvino {precision}"] = _rate(lambda engine=engine: engine.run({"x": left}))
    return rates


def _rate(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(times)


def _product(right: np.ndarray) -> onnx.ModelProto:
    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "product", spec[:1], spec[1:], [numpy_helper.from_array(right, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
