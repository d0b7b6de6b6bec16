"""The adapter's engines as the runtime loads them from a bundle, and what they are given."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mova_runtime.bundle import Bundle
from mova_runtime.engines.abilities import lacking
from mova_runtime.engines.choice import Choice
from mova_runtime.engines.loader import Loader
from mova_runtime.errors import MovaError
from mova_runtime.trace import Trace
from on_gpu.agreement import Check
from on_gpu.contest import OURS
from on_gpu.report import Section
from on_gpu.setting import Setting


def compile_kernels(bundle: Path) -> None:
    """Compile kernels for this GPU into a bundle, by the command that a user would type."""
    command = [sys.executable, "-m", "mova_export", "kernels", str(bundle), "--precision", "bf16"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"mova kernels: {done.stderr.strip() or done.stdout.strip()}")


def open_engines(setting: Setting, section: Section, bundle: Bundle) -> Iterator[tuple[str, Any]]:
    """The CUDA backend's engine and ONNX Runtime's, by name; each passed the parity gate."""
    beside = Choice("ort-cuda" if setting.gpu else "ort", "fp32", "as asked")
    for choice in (Choice("cuda", "bf16", "as asked"), beside):
        name = f"{OURS if choice.backend == 'cuda' else choice.backend}, {choice.precision}"
        if lack := lacking(choice.backend, choice.precision):
            section.missing[name] = lack
            continue
        try:
            yield name, Loader(bundle, (choice,)).load("adapter", Trace())
        except MovaError as error:  # it is here and does not work, or computes something else
            section.check(Check(f"{name}: {error}", math.nan, 0.0))


def on_device(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Where the experts' engines leave them: in the runtime's own arrays on the GPU; tables on the host."""
    from mova_runtime.engines.cuda.array import DeviceArray
    from mova_runtime.engines.cuda.memory import device

    def place(tensor: Tensor) -> Any:
        array = tensor.cpu().numpy()
        if array.dtype != np.float32:
            return array
        return DeviceArray.empty(device(), array.shape, array.dtype).fill(array)

    placed = {name: place(tensor) for name, tensor in inputs.items()}
    device().synchronise()
    return placed


def without_graph(engine: Any, given: Mapping[str, Any]) -> Callable[[], Any]:
    """The same, each launch queued by itself."""
    from mova_runtime.engines.cuda.graphs import Recurring

    none: Any = Recurring(engine._arena, 0)

    @contextmanager
    def swapped() -> Iterator[None]:
        engine._graphs, kept = none, engine._graphs
        try:
            yield
        finally:
            engine._graphs = kept

    def call() -> Any:
        with swapped():
            return engine.keep(given)

    return call
