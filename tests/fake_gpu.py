"""A machine with an NVIDIA GPU, as backend `cuda` sees it, made of stand-ins on the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fake_cublas import FakeCublas
from fake_cuda import FakeCuda
from fake_cuda_core import FakeCore, FakeDriver
from fake_kernels import CAPABILITY, Cut, coarse, kernel_set
from mova_runtime.engines import machine
from mova_runtime.engines.cuda.arena import Arena
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.engines.cuda_adapter import backend, libraries, lookup
from mova_runtime.engines.cuda_adapter.engine import CudaAdapterEngine
from mova_runtime.engines.cuda_adapter.libraries import Libraries
from mova_runtime.engines.cuda_adapter.lookup import Parts
from mova_runtime.engines.nvidia import Gpu
from small_adapter import SmallAdapter

ROOM = 1 << 31


@dataclass
class FakeGpu:
    """Its parts; `libraries` as the backend is handed them."""

    cuda: FakeCuda
    core: FakeCore
    cublas: FakeCublas
    device: Device
    arena: Arena
    libraries: Libraries


def fake_gpu() -> FakeGpu:
    """A new one."""
    cuda = FakeCuda(ROOM)
    device = Device(cuda)
    core, cublas = FakeCore(cuda), FakeCublas(cuda)
    return FakeGpu(cuda, core, cublas, device, Arena(device), Libraries(core, FakeDriver(), cublas))


def install(patch: pytest.MonkeyPatch, gpu: FakeGpu, driver: str = "580.65.06, CUDA 13.0") -> None:
    """Let this process believe that it is here."""
    found = Gpu("NVIDIA RTX 4090", CAPABILITY, driver)
    for module in (lookup, libraries, machine):
        patch.setattr(module, "gpu", lambda: found)
    patch.setattr(libraries, "load", lambda: gpu.libraries)
    patch.setattr(backend, "device", lambda: gpu.device)
    patch.setattr(backend, "arena", lambda device: gpu.arena)


def load_small(
    adapter: SmallAdapter, precision: str, folder: Path, gpu: FakeGpu, cut: Cut = coarse
) -> CudaAdapterEngine:
    """A small adapter's engine; its files are in `folder`, and what it is on in its attribute `fakes`."""
    kernels = kernel_set(folder, adapter.shape, precision, cut)
    parts = Parts(kernels, adapter.pack(folder / "weights.bin", precision))
    cubins = {name: folder / kernel.file.path for name, kernel in kernels.kernels.items()}
    with gpu.arena.lock:
        engine = CudaAdapterEngine(gpu.libraries, parts, cubins, folder / "weights.bin", gpu.arena)
    engine.fakes = gpu  # type: ignore[attr-defined]
    return engine
