"""Which of a bundle's kernels run on this machine, and the weights that go with them.

Kernels are taken that were compiled for the very compute capability of the GPU. A cubin for sm_80 would load on sm_86
and sm_89 too, but its tiles may want more shared memory than there is; on a Jetson, and from sm_90 on, none but its own
loads. Compiling the right ones takes seconds, so nothing else is taken silently.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mova_runtime.bundle.kernels import ADAPTER, AdapterWeights, KernelSet, command, read_kernels, read_weights
from mova_runtime.bundle.manifest import Precision
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.cuda_adapter.libraries import driver_cuda
from mova_runtime.engines.nvidia import gpu
from mova_runtime.errors import BackendError, EngineKeyError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle

NAMES = (
    "cross_attention",
    "self_attention",
    "gate_partial",
    "squeeze",
    "gate_weights",
    "combine",
    "embed",
    "normalise",
    "swiglu",
    "norm_silu",
    "norm_residual",
    "convert",
    "bias_gelu",
    "bias",
    "average",
    "depthwise_norm",
    "excite",
    "scale_channels",
    "pool",
)
"""Kernels that a pass launches."""


@dataclass(frozen=True)
class Parts:
    """What an adapter is made of."""

    kernels: KernelSet
    weights: AdapterWeights

    @property
    def sha256(self) -> str:
        """One hash over the weights, the cubins, and how these are launched."""
        records = json.dumps(to_json(self.kernels), sort_keys=True)
        return hashlib.sha256(f"{records}\n{self.weights.file.sha256}".encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return self.weights.file.bytes + sum(kernel.file.bytes for kernel in self.kernels.kernels.values())


def find(bundle: Bundle, component: str, precision: Precision) -> Parts:
    """Kernels for this machine's GPU, and the weights; their bytes checked.

    Raises:
        BackendError: the component is none of ours, or the driver is too old for the kernels.
        BundleError: the bundle lacks the component, or a file is not what its record says.
        EngineKeyError: nothing was compiled for this GPU, or not from this export; it says what does it.
    """
    if component != ADAPTER:
        raise BackendError(f"backend cuda has the {ADAPTER} alone, no {component!r}")
    found = gpu()
    if not found:
        raise BackendError("backend cuda: no NVIDIA GPU, or no driver for it")
    parts = Parts(read_kernels(bundle, found.capability, precision), read_weights(bundle, precision))
    kernels, way = parts.kernels, f"run `{command(bundle, precision, found.capability)}`"
    if lacking := [name for name in NAMES if name not in kernels.kernels]:
        raise EngineKeyError(f"{bundle.root}: kernels for {found.capability} lack {', '.join(lacking)}; {way}")
    if kernels.shape != parts.weights.shape:
        raise EngineKeyError(f"{bundle.root}: kernels for {found.capability} are not for the packed weights; {way}")
    major, minor = driver_cuda()
    if kernels.toolkit.partition(".")[0] not in [str(known) for known in range(major + 1)]:
        raise BackendError(
            f"backend cuda: the kernels are machine code of CUDA {kernels.toolkit}, this machine's driver has CUDA "
            f"{major}.{minor}; install a newer driver"
        )
    return parts
