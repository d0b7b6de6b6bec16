"""The modules that a bundle was exported from, in torch: what ours are held against. The only room that imports it."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mova_export.bench.subject import probe_inputs
from mova_export.bench.torch_origin import Origin
from mova_export.checkpoint.source import Source
from mova_export.graphs.components import component_graph
from mova_export.operations import counted
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.release import release

if TYPE_CHECKING:
    from mova_runtime.engines.protocol import GpuMemory

_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchSubject:
    """A component's module in the published form of its computation, on the CPU."""

    gpu: GpuMemory | None = None

    def __init__(
        self, bundle: Bundle, component: str, precision: Precision, threads: int, origin: Origin, compiled: bool
    ) -> None:
        """`compiled`: by torch.compile, in the first run."""
        self._bundle, self._component = bundle, component
        self._dtype, self._compiled = _TYPES[precision], compiled
        self._origin = origin
        self._source: Source
        self._inputs: list[Tensor] = []
        self._module: Any = None
        self._left: tuple[Tensor, ...] = ()
        torch.set_num_threads(threads)

    def start(self) -> None:
        """See `Subject.start`."""
        self._inputs = [
            self._narrowed(torch.from_numpy(array)) for array in probe_inputs(self._bundle, self._component).values()
        ]
        self._source = self._origin.source()

    def files(self) -> list[Path]:
        """See `Subject.files`."""
        return self._source.files

    def load(self) -> None:
        """See `Subject.load`: read or made in float32, then narrowed."""
        with torch.no_grad():
            module: nn.Module = component_graph(self._source, self._component).reference.to(self._dtype)
        gc.collect()  # modules refer to themselves in circles: the wide weights go now
        release()
        self._module = torch.compile(module) if self._compiled else module

    def run(self) -> None:
        """See `Subject.run`."""
        self._left = ()
        with torch.inference_mode():
            found = self._module(*self._inputs)
        self._left = found if isinstance(found, tuple) else (found,)

    def outputs(self) -> Mapping[str, np.ndarray]:
        """See `Subject.outputs`."""
        names = self._bundle.component(self._component).probe.outputs
        return {name: tensor.float().numpy() for name, tensor in zip(names, self._left, strict=True)}

    def close(self) -> None:
        """See `Subject.close`."""
        self._module, self._left = None, ()
        if self._compiled:
            torch.compiler.reset()
        gc.collect()
        release()

    def operations(self) -> int | None:
        """Floating-point operations of a run; None where it is compiled, and they can't be seen."""
        return None if self._compiled else counted(self.run)[1]

    def _narrowed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor
