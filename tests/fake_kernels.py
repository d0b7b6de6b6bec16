"""Kernels that fake_cuda_core runs, where `mova kernels` would put cubins, and weights packed as it packs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fake_cuda_core import cubin
from mova_export.kernels.order import order
from mova_export.kernels.parameters import compiler_shape
from mova_export.kernels.store import KernelStore
from mova_kernels.targets import TARGETS
from mova_kernels.variants import Variant, variants
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import AdapterShape, Argument, Kernel, KernelSet, kernels_record
from mova_runtime.bundle.manifest import File
from mova_runtime.bundle.schema import to_json

CAPABILITY = "sm_89"

SHARED = 70 << 10
"""Bytes that kernels with matrix products say they need: more than a kernel gets unless it is allowed to."""

Cut = Callable[[str, dict[str, int]], dict[str, int]]
"""A variant's name and constants to its constants."""


def as_compiled(name: str, constants: dict[str, int]) -> dict[str, int]:
    """What the kernels of CAPABILITY are compiled with."""
    return constants


def coarse(name: str, constants: dict[str, int]) -> dict[str, int]:
    """Few programs, since each costs the interpreter milliseconds; nothing fits evenly, as little as it can."""
    size = constants.get("C", 0)
    power = 1 << (size - 1).bit_length() if size else 0
    slices = {"gate_partial": 512, "squeeze": 512}
    if name in slices:
        return constants | {"BLOCK_K": slices[name], "BLOCK_H": min(1024, 1 << (constants["HID"] - 1).bit_length())}
    if name == "excite":
        return constants | {"SLICES": -(-size // 512), "BLOCK_N": power}
    if name in ("embed", "normalise", "depthwise_norm"):
        return constants | {"ROWS": 16}
    if name in ("cross_attention", "self_attention"):
        return constants | {"BLOCK_M": 64, "BLOCK_N": 64, "EVEN": 0}
    if name == "combine":
        return constants | {"BLOCK_M": 64, "BLOCK_N": power, "BLOCK_K": power, "EVEN": 0}
    return constants | ({"BLOCK": 1 << 15} if "BLOCK" in constants and name != "swiglu" else {})


def kernel_set(root: Path, shape: AdapterShape, precision: str, cut: Cut = coarse) -> KernelSet:
    """Write "cubins" of an adapter's kernels below `root`; their record."""
    made = variants(compiler_shape(shape), precision, TARGETS[CAPABILITY])
    kernels = {variant.name: _put(root, precision, variant, shape, cut) for variant in made}
    return KernelSet(CAPABILITY, precision, shape, "3.7.1", "12.8", kernels, "0" * 64)  # type: ignore[arg-type]


def add_kernels(root: Path, precision: str, cut: Cut = coarse) -> KernelSet:
    """Put kernels and packed weights into a bundle."""
    bundle = Bundle.open(root)
    wanted = order(bundle, precision, [])  # type: ignore[arg-type]
    with KernelStore(bundle) as store:
        store.put_weights(wanted.precision, wanted.shape, wanted.graph, wanted.tensors)
    record = kernel_set(root, wanted.shape, precision, cut)
    write_record(root, record)
    return record


def write_record(root: Path, record: KernelSet, **changed: object) -> None:
    """Put a record, with some fields changed, where those of its capability and precision lie."""
    changed_record = replace(record, **changed)  # type: ignore[arg-type]
    path = root / kernels_record(changed_record.capability, changed_record.precision)
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(to_json(changed_record)))


def _put(root: Path, precision: str, variant: Variant, shape: AdapterShape, cut: Cut) -> Kernel:
    constants = cut(variant.name, {name: int(value) for name, value in variant.constants.items()})
    if variant.name == "gate_weights" and cut is coarse:
        constants["SLICES"] = sum(-(-size // 512) for size in (shape.text_channels, shape.channels))
    data = cubin(variant.kernel, variant.signature, constants)
    file = File(f"kernels/{CAPABILITY}/{precision}-{variant.name}.cubin", len(data), hashlib.sha256(data).hexdigest())
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Kernel(
        symbol=variant.kernel.partition(":")[2],
        file=file,
        arguments=tuple(Argument(name, of) for name, of in variant.signature),
        scratch={"global": 0, "profile": 0},
        shared=SHARED if "attention" in variant.name or variant.name == "combine" else 0,
        warps=variant.num_warps,
        constants=constants,
        registers=32,
        spills=0,
    )
