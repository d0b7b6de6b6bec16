"""What backend `cuda` is made of: compiled kernels, cuBLAS, packed weights, and the libraries; and what is refused."""

from __future__ import annotations

import ctypes
import inspect
import sys
from dataclasses import replace

import numpy as np
import pytest

from fake_cublas import FakeCublas
from fake_cuda_core import FakeCore, FakeDriver
from fake_gpu import fake_gpu, install, load_small
from fake_kernels import kernel_set
from mova_runtime.bundle.kernels import Argument, Kernel, PackedTensor
from mova_runtime.bundle.manifest import File
from mova_runtime.engines.cuda_adapter import kernels, libraries, products, weights
from mova_runtime.engines.cuda_adapter.backend import CudaAdapterBackend
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.errors import BackendError, IntegrityError
from small_adapter import MINI


@pytest.fixture
def here():
    return fake_gpu()


# What kernels are launched with.


def record(*arguments, **changed):
    known = {"shared": 0, "warps": 4, "constants": {}, "registers": 1, "spills": 0}
    told = tuple(Argument(name, of) for name, of in arguments)
    return Kernel("scale", File("x.cubin", 1, ""), told, {"global": 0, "profile": 0}, **{**known, **changed})


def test_arguments_are_of_the_very_type_and_in_order():
    kernel = record(("x", "*bf16"), ("count", "i64"), ("tokens", "i32"), ("scale", "fp32"))
    packed = kernels.pack("k", kernel, {"scale": 0.1, "tokens": 7, "x": 1 << 40, "count": 1 << 33})
    assert [type(one) for one in packed] == [int, ctypes.c_int64, ctypes.c_int32, ctypes.c_float, int, int]
    values = [getattr(one, "value", one) for one in packed]
    assert values == [1 << 40, 1 << 33, 7, ctypes.c_float(0.1).value, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"x": 1}, "kernel 'k' takes x, tokens, not x: it is of another version"),
        ({"x": 1, "tokens": 1, "rows": 2}, "takes x, tokens, not x, tokens, rows"),
        ({"x": 1, "tokens": 1 << 31}, "kernel 'k': tokens can't be 2147483648: the batch is too large"),
    ],
)
def test_arguments_that_do_not_fit(arguments, told):
    with pytest.raises(BackendError) as error:
        kernels.pack("k", record(("x", "*fp32"), ("tokens", "i32")), arguments)
    assert told in str(error.value)


def load(here, tmp_path, **changed):
    """One kernel of the smallest adapter, its record changed."""
    here.device.make_current()
    kernel = kernel_set(tmp_path, MINI.shape, "bf16").kernels["combine"]
    return kernels.Kernels(
        here.libraries, {"combine": replace(kernel, **changed)}, {"combine": tmp_path / kernel.file.path}
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"scratch": {"global": 128, "profile": 0}}, "wants scratch memory, which it isn't given: {'global': 128}"),
        ({"arguments": (Argument("x", "i8"),)}, "takes arguments of unknown types: i8"),
        ({"symbol": "other"}, "can't be loaded: it has no such entry (CUDA_ERROR_NOT_FOUND: This indicates"),
        ({"shared": 120 << 10}, "can't be loaded: CUDA refuses it (CUDA_ERROR_INVALID_VALUE: 122880 bytes of shared"),
    ],
)
def test_kernels_that_cannot_be_used(here, tmp_path, changed, told):
    with pytest.raises(BackendError) as error:
        load(here, tmp_path, **changed)
    assert str(error.value).startswith("kernel 'combine' ")
    assert told in str(error.value)
    load(here, tmp_path, shared=99 << 10)


@pytest.mark.parametrize(
    ("refuses", "told"),
    [
        ("CUDA_ERROR_NO_BINARY_FOR_GPU", "it was compiled for another GPU, or this driver is too old for it"),
        ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "this driver is too old for it"),
        ("CUDA_ERROR_INVALID_IMAGE", "it is no machine code that this driver knows: too new, or damaged"),
        ("CUDA_ERROR_OUT_OF_MEMORY", "CUDA refuses it"),
    ],
)
def test_why_cuda_refuses_a_cubin(here, tmp_path, refuses, told):
    here.core.refuses = refuses
    with pytest.raises(BackendError) as error:
        load(here, tmp_path)
    reason = f"{refuses}: This indicates that something is not so"
    assert str(error.value) == f"kernel 'combine' can't be loaded: {told} ({reason})"


def test_a_record_that_does_not_say_a_size(here, tmp_path):
    with pytest.raises(BackendError, match="kernel 'combine' does not say its BLOCK_M: it is of another version"):
        load(here, tmp_path, constants={}).constant("combine", "BLOCK_M")


def test_a_launch_that_fails(here, tmp_path):
    engine = load_small(MINI, "bf16", tmp_path, here)
    here.core.fails = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
    with pytest.raises(BackendError, match=r"^cuda: 'adapter': kernel 'convert' can't be launched: CUDA_ERROR_LAUNCH"):
        engine.run(MINI.inputs(1, [(0, 0)]))


# Products. The stand-in has columns where we have rows, as BLAS does; torch says what is right in the other file.


@pytest.mark.parametrize(
    ("driver", "package"), [("CUDA 12.4", "nvidia-cublas-cu12"), ("580.65.06, CUDA 13.0", "nvidia-cublas")]
)
def test_which_package_has_the_missing_cublas(here, monkeypatch, driver, package):
    install(monkeypatch, here, driver)
    here.cublas.missing = True
    with pytest.raises(BackendError) as error:
        products.Products(here.cublas, "bf16")
    assert str(error.value) == (
        f"cuBLAS can't be loaded (Failed to load libcublas.so.12 It was looked for everywhere.); pip install {package}"
    )


def test_cublas_that_does_not_start(here):
    with pytest.raises(BackendError, match=r"^cuBLAS does not start: CUDA_ERROR_INVALID_CONTEXT"):
        products.Products(here.cublas, "bf16")


def test_no_memory_is_taken_where_cublas_is_missing(here, tmp_path):
    here.cublas.missing = True
    with pytest.raises(BackendError, match="cuBLAS can't be loaded"):
        load_small(MINI, "bf16", tmp_path, here)
    here.device.synchronise()
    assert here.cuda.used == here.arena.bytes == 0


# Weights.


def small_weights(tmp_path):
    return MINI.pack(tmp_path / "weights.bin", "bf16")


def test_packing_and_runtime_mean_the_same_tensors(tmp_path):
    packed = small_weights(tmp_path)
    weights.check(packed)
    told = {name: (tensor.dtype, tensor.shape) for name, tensor in packed.tensors.items()}
    assert told == weights.expected(MINI.shape, "bf16")


@pytest.mark.parametrize(
    ("name", "changed", "told"),
    [
        ("head.0", None, "weights.bin: tensors missing or unknown: head.0"),
        ("head.1", PackedTensor("fp32", (1,), 0), "weights.bin: tensors missing or unknown: head.1"),
        ("sine", {"dtype": "bf16"}, "sine is bf16 [4, 32], needed is fp32 [4, 32]"),
        ("blocks.1.qkv", {"shape": (64, 192)}, "blocks.1.qkv is bf16 [64, 192], needed is bf16 [192, 64]"),
        ("blocks.0.query", {"offset": 1 << 40}, "blocks.0.query can't lie at byte 1099511627776"),
        ("blocks.0.query", {"offset": -256}, "can't lie at byte -256"),
        ("blocks.0.query", {"offset": 8}, "can't lie at byte 8"),
    ],
)
def test_weights_that_are_no_adapters(tmp_path, name, changed, told):
    packed = small_weights(tmp_path)
    tensors = dict(packed.tensors)
    if changed is None:
        del tensors[name]
    else:
        tensors[name] = replace(tensors[name], **changed) if isinstance(changed, dict) else changed
    with pytest.raises(IntegrityError) as error:
        weights.check(replace(packed, tensors=tensors))
    assert told in str(error.value)


def test_weights_are_uploaded_once_and_found_by_name(here, tmp_path):
    here.core.idle = True
    engine, packed = load_small(MINI, "bf16", tmp_path, here), small_weights(tmp_path)
    file = (tmp_path / "weights.bin").read_bytes()
    for name in ("pos_embed", "blocks.1.mlp_out", "head.2_bias"):
        begin = packed.tensors[name].offset
        there = here.cuda.array(engine._weights.addresses[name], (64,), np.uint8).tobytes()
        assert there == file[begin : begin + 64]
    uploads = here.cuda.calls.count("cudaMemcpyAsync")
    engine.run(MINI.inputs(1, []))
    assert here.cuda.calls.count("cudaMemcpyAsync") - uploads == 3 + 2  # base, text, tables; visual, gates


# Libraries.


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("cuda.core", "backend cuda: cuda.core can't be used ("),
        ("nvmath.bindings", "backend cuda: nvmath can't be imported ("),
    ],
)
def test_libraries_that_are_missing(monkeypatch, missing, told):
    pytest.importorskip(missing)
    monkeypatch.setattr(libraries, "gpu", lambda: Gpu("NVIDIA RTX 4090", "sm_89", "CUDA 13.0"))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BackendError) as error:
        libraries.load()
    assert str(error.value).startswith(told)
    assert "(extra `cuda`)" in str(error.value)


def test_nothing_of_cuda_is_imported_without_a_gpu(monkeypatch):
    monkeypatch.setattr(libraries, "gpu", lambda: None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(BackendError, match=r"^backend cuda: no NVIDIA GPU, or no driver for it$"):
        CudaAdapterBackend("bf16")


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


CALLED = ("create", "destroy", "set_stream", "set_workspace", "set_math_mode", "gemm_ex", "gemm_batched_ex")


def test_the_installed_cublas_has_what_is_called():
    """Calls fail without a driver; names, their order and numbers can be looked at."""
    cublas = pytest.importorskip("nvmath.bindings.cublas", reason="nvmath-python is not installed")
    for name in CALLED:
        assert parameters(getattr(cublas, name)) == parameters(getattr(FakeCublas, name)), name
    for enum in ("Operation", "ComputeType", "GemmAlgo", "Math"):
        for member in getattr(FakeCublas, enum):
            assert getattr(cublas, enum)[member.name] == member
    assert issubclass(cublas.cuBLASError, Exception)


def test_the_installed_cuda_core_has_what_is_called():
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    assert parameters(core.ObjectCode.from_cubin)[:2] == ["module", "name"]
    assert parameters(core.ObjectCode.get_kernel) == ["name"]
    assert hasattr(core.Kernel, "handle")
    assert int(core.Stream.from_handle(5).handle) == 5
    assert parameters(core.launch) == parameters(FakeCore.launch) == ["stream", "config", "kernel", "kernel_args"]
    config = core.LaunchConfig(grid=(3, 4), block=128, shmem_size=70000)
    assert (config.grid, config.block, config.shmem_size) == ((3, 4, 1), (128, 1, 1), 70000)


def test_the_installed_bindings_have_what_is_called():
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    runtime = pytest.importorskip("cuda.bindings.runtime")
    for name in ("cuDeviceGet", "cuKernelSetAttribute"):
        assert parameters(getattr(driver, name)) == parameters(getattr(FakeDriver, name))
    attribute = "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
    assert getattr(driver.CUfunction_attribute, attribute) == getattr(FakeDriver.CUfunction_attribute, attribute)
    assert driver.CUresult.CUDA_SUCCESS == 0
    kinds = {"fp32": "CUDA_R_32F", "fp16": "CUDA_R_16F", "bf16": "CUDA_R_16BF"}
    assert {of: getattr(runtime.cudaDataType, name).value for of, name in kinds.items()} == products._TYPES
    assert hasattr(runtime, "cudaSetDevice")
