"""The real cuda.core and nvmath, over a driver and a cuBLAS that say what they are asked: nothing of it computes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

from mova_runtime.engines.installed import version

STUBS = Path(__file__).parents[2] / "stub_driver"
COMPILER = shutil.which("cc")

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="libraries are named as on Linux"),
]

LAUNCH = """
import sys
from pathlib import Path
from mova_runtime.bundle.kernels import Argument, Kernel
from mova_runtime.bundle.manifest import File
from mova_runtime.engines.cuda_adapter import kernels, libraries, products

types = (("x", "*bf16"), ("count", "i64"), ("tokens", "i32"), ("scale", "fp32"), ("y", "*fp32"))
record = Kernel(
    "combine", File("x", 1, ""), tuple(Argument(*one) for one in types), {"global": 0, "profile": 0}, 70000, 8, {}, 1, 0
)
try:
    libs = libraries.load()
    loaded = kernels.Kernels(libs, {"k": record}, {"k": Path(sys.argv[1])})
    loaded.launch(
        loaded.stream(0x77), "k", (3, 4), {"y": 0x1234, "scale": 0.5, "tokens": -7, "count": 1 << 33, "x": 1 << 40}
    )
    multiply = products.Products(libs.cublas, "bf16")
    multiply.use(0x77, 0x4000)
    multiply.matmul(0xA, 0xB, 0xC, (10, 20, 30), float32=True, add=True)
    multiply.matmul_pairs(0xA, 0xB, 0xC, (10, 20, 30), 3)
    multiply.close()
except Exception as error:
    print(error)
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    pytest.importorskip("nvmath.bindings.cublas", reason="nvmath-python is not installed")
    if find_library("cublas") or version("nvidia-cublas") or version("nvidia-cublas-cu12"):
        pytest.skip("nvmath would take the cuBLAS that is installed")
    folder = tmp_path_factory.mktemp("stubs")
    for name, source in (("libcuda.so.1", "cuda.c"), ("libcublas.so.13", "cublas.c")):
        subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / name, STUBS / source], check=True)
    shutil.copy(folder / "libcublas.so.13", folder / "libcublasLt.so.13")  # which nvmath loads first
    (folder / "kernel.cubin").write_bytes(b"machine code" * 100)
    return folder


def told(folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(folder / "kernel.cubin")],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "STUB_TYPES": "plifppp", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_the_driver_and_cublas_are_asked(stubs):
    assert told(stubs) == [
        "kernel combine",
        "attribute 8 70000 0x2222 0",
        "launch 0x2222 grid 3 4 1 block 256 1 1 shared 70000 stream 0x77: "
        "0x10000000000 8589934592 -7 0.5 0x1234 0 0",
        "math 16",
        "stream 0x77",
        "workspace 0x4000 33554432",
        "gemm op 1 0 m 20 n 10 k 30 1*0xb(14 ld 30)*0xa(14 ld 30)+1*0xc(0 ld 20) compute 68 -1",
        "batch 3 gemm op 1 0 m 20 n 10 k 30 1*0xb(14 ld 30)*0xa(14 ld 30)+0*0xc(14 ld 20) compute 68 -1",
        "destroy 0x99",
    ]  # fmt: skip


def test_a_driver_that_refuses_a_cubin(stubs):
    (line,) = told(stubs, STUB_REFUSES="1")
    assert line.startswith(
        "kernel 'k' can't be loaded: it was compiled for another GPU, or this driver is too old for it"
    )
    assert "CUDA_ERROR_NO_BINARY_FOR_GPU" in line


def test_cublas_that_is_not_there(stubs, tmp_path):
    shutil.copy(stubs / "libcuda.so.1", tmp_path)
    shutil.copy(stubs / "kernel.cubin", tmp_path)
    # Python's lines and the stubs' come in either order
    (line,) = [line for line in told(tmp_path) if line.startswith("cuBLAS can't be loaded (")]
    assert line.endswith("pip install nvidia-cublas")
