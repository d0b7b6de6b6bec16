"""The kernels as TensorRT's plugins: what TensorRT is told, the PTX it gets, and a graph that holds them, run here."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from mova_export.kernels.plugins import write_plugin_graph
from mova_kernels.aot import Compiled, environment
from mova_kernels.errors import KernelError
from mova_kernels.plugins import kernel as wrappers
from mova_kernels.plugins import registration
from mova_kernels.plugins.ptx import without_scratch
from mova_kernels.targets import TARGETS
from mova_kernels.variants import AdapterShape, Variant, variants
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.engines.nvidia import gpu

pytestmark = pytest.mark.skipif(gpu() is not None, reason="on a machine with a GPU kernels are not interpreted")

TARGET = TARGETS["sm_87"]
TINY = AdapterShape(1024, 1024, 64, 8, 1, 7, 3, 2730, 256)


class Plugins:
    """tensorrt.plugin, its symbolic lengths being plain integers."""

    KernelLaunchParams = type(
        "KernelLaunchParams", (SimpleNamespace,), {"grid_x": 1, "grid_y": 1, "block_x": 1, "shared_mem": 0}
    )
    SymInt32 = int
    cdiv = staticmethod(lambda a, b: -(-a // b))
    max = staticmethod(max)

    class SymIntExprs(list):
        def __init__(self, length: int) -> None:
            super().__init__([None] * length)

    class TensorDesc:
        def __init__(self, shape_expr: tuple[int, ...], dtype: object) -> None:
            self.shape_expr, self.dtype = shape_expr, dtype

    def __init__(self) -> None:
        self.described, self.implemented = {}, {}

    def from_shape_expr(self, shape: tuple[int, ...], dtype: object) -> TensorDesc:
        return self.TensorDesc(shape, dtype)

    def register(self, name: str):
        return lambda function: self.described.__setitem__(name, function)

    def aot_impl(self, name: str):
        return lambda function: self.implemented.__setitem__(name, function)


DTYPES = SimpleNamespace(BF16=torch.bfloat16, HALF=torch.float16, FLOAT=torch.float32)


def uncompiled(variant: Variant, _target: object) -> Compiled:
    """What `compile_variant` says of a variant, without compiling it: kernels are interpreted in this process."""
    parameters = ", ".join(f".param .u64 p{index}" for index in range(len(variant.signature) + 2))
    return Compiled(
        name=variant.name,
        symbol=variant.kernel.rpartition(":")[2],
        cubin=b"",
        arguments=variant.signature,
        scratch={"global": 0, "profile": 0},
        shared=4096,
        warps=variant.num_warps,
        constants={name: int(value) for name, value in variant.constants.items()},
        registers=0,
        spills=0,
        ptx=f".visible .entry {variant.name}({parameters}) {{ ret; }}",
        toolkit="12.8",
    )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """What TensorRT is told of the plugins for activations of float32, which the interpreter computes exactly."""
    monkeypatch.setattr(registration, "compile_variant", uncompiled)
    plugins = Plugins()
    registration.register(TINY, "fp32", TARGET, plugins, SimpleNamespace(**{**vars(DTYPES), "HALF": torch.float32}))
    return plugins


def operators(plugins: Plugins, ran: list[str]) -> list[type[OpRun]]:
    """The plugins as operators of onnx's evaluator, launched as TensorRT would with what it was told."""

    def operator(plugin: registration.Plugin) -> type[OpRun]:
        def run(self: OpRun, *arrays: np.ndarray, **_attributes: str) -> tuple[np.ndarray, ...]:
            name = f"mova::{plugin.name}"
            inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
            descriptions = [Plugins.TensorDesc(tuple(tensor.shape), tensor.dtype) for tensor in inputs]
            described = plugins.described[name](*descriptions)
            described = described if isinstance(described, tuple) else (described,)
            outputs = [torch.full(one.shape_expr, torch.nan, dtype=one.dtype) for one in described]
            symbol, _, launch, numbers = plugins.implemented[name](*descriptions, described, 0)
            constants = dict(next(v for v in variants(TINY, "fp32", TARGET) if v.name == plugin.name).constants)
            grid = (launch.grid_x, launch.grid_y)
            getattr(wrappers, symbol)[grid](*inputs, *numbers, *outputs, **constants)
            ran.append(plugin.name)
            return tuple(output.numpy() for output in outputs)

        return type(plugin.name, (OpRun,), {"op_domain": "mova", "_run": run})

    return [operator(plugin) for plugin in registration.PLUGINS]


@pytest.fixture(scope="module")
def graph(bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, onnx.ModelProto]:
    """A bundle, and its adapter's graph with plugins."""
    opened = Bundle.open(bundle(2))
    return opened, onnx.load(write_plugin_graph(opened, "fp32", TARGET, tmp_path_factory.mktemp("plugins")))


@pytest.mark.parametrize("probe", [0, 1], ids=["three pairs of two images", "no pairs"])
def test_a_graph_of_plugins_computes_what_torch_gave(graph, probe: int, told: Plugins) -> None:
    opened, model = graph
    files = opened.component("adapter").probes[probe]
    inputs = {name: load_array(opened.checked_path(file)) for name, file in files.inputs.items()}
    ran: list[str] = []
    outputs = ReferenceEvaluator(model, new_ops=operators(told, ran)).run(None, inputs)
    for name, found in zip(("visual", "gates"), outputs, strict=True):
        expected = load_array(opened.checked_path(files.outputs[name]))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4 * np.abs(expected).max() + 1e-6)
    assert set(ran) == {plugin.name for plugin in registration.PLUGINS}


def test_types_and_launches_are_what_the_kernels_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "compile_variant", uncompiled)
    plugins = Plugins()
    registration.register(TINY, "bf16", TARGET, plugins, DTYPES)
    assert set(plugins.described) == set(plugins.implemented) == {f"mova::{one.name}" for one in registration.PLUGINS}
    tensors = [
        Plugins.TensorDesc(shape, dtype)
        for shape, dtype in (
            (((3, 64, 1024), torch.bfloat16),) * 3
            + (((7, 1024), torch.float32), ((3,), torch.int32))
            + (((64, 32), torch.float32),) * 2
        )
    ]
    out, moments = plugins.described["mova::cross_attention"](*tensors)
    assert (out.shape_expr, out.dtype) == ((3, 64, 1024), torch.bfloat16)
    assert (moments.shape_expr, moments.dtype) == ((3, 16, 64, 2), torch.float32)
    symbol, ptx, launch, numbers = plugins.implemented["mova::cross_attention"](*tensors, (out, moments), 0)
    constants = registration.compiled(TINY, "bf16", TARGET)["cross_attention"].constants
    assert symbol == "attention_plugin"
    assert ptx.count(".param") == len(tensors) + len(numbers) + 2
    assert (launch.grid_x, launch.grid_y) == (-(-64 // constants["BLOCK_M"]), 3 * 16)
    assert (launch.block_x % 32, launch.shared_mem) == (0, 4096)
    assert list(numbers) == [3, 64, 64]


def test_no_pairs_still_launch_a_block(told: Plugins) -> None:
    """A grid of nothing is an error of CUDA."""
    empty = [Plugins.TensorDesc(shape, torch.float32) for shape in ((0, 64, 1024),) * 3 + ((7, 1024), (0,))]
    tables = [Plugins.TensorDesc((64, 32), torch.float32)] * 2
    _, _, launch, _ = told.implemented["mova::cross_attention"](*empty, *tables, (), 0)
    assert launch.grid_y == 1


def test_ptx_takes_what_is_passed_and_assembles(tmp_path: Path) -> None:
    """Compiled in a process of its own: here Triton interprets."""
    script = f"""
import json, sys
from mova_kernels.plugins.registration import compiled
from mova_kernels.targets import TARGETS
from mova_kernels.variants import AdapterShape
kernels = compiled({TINY!r}, "bf16", TARGETS["sm_87"])
json.dump({{name: (kernel.ptx, len(kernel.arguments)) for name, kernel in kernels.items()}}, sys.stdout)
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert set(kernels) == {plugin.name for plugin in registration.PLUGINS}
    from triton.backends.nvidia.compiler import get_ptxas

    for name, (ptx, arguments) in kernels.items():
        assert ptx.partition("(")[2].partition(")")[0].count(".param") == arguments
        (tmp_path / f"{name}.ptx").write_text(ptx)
        command = [get_ptxas(87).path, "-arch=sm_87", f"{name}.ptx", "-o", f"{name}.cubin"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0, name


PTX = ".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1\n)\n{{ ld.param.b64 %rd1, [{read}]; }}"


def test_hidden_arguments_are_taken_off_unless_they_are_read() -> None:
    assert without_scratch(PTX.format(read="k_param_0"), 1).count(".param .u64") == 1
    with pytest.raises(KernelError, match="reads its hidden argument k_param_1"):
        without_scratch(PTX.format(read="k_param_1"), 1)
    with pytest.raises(KernelError, match="takes 2 arguments, 3 are passed"):
        without_scratch(PTX.format(read="k_param_0"), 3)


def test_a_kernel_that_needs_scratch_memory_is_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = {"global": 128, "profile": 0}
    monkeypatch.setattr(registration, "compile_variant", lambda *of: replace(uncompiled(*of), scratch=needy))
    with pytest.raises(KernelError, match="cross_attention for sm_87 needs scratch memory"):
        registration.compiled(TINY, "bf16", TARGET)
