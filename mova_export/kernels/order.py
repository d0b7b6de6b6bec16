"""What kernels a bundle needs for which GPUs, and the making of what is missing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import triton

from mova_export.errors import ExportError
from mova_export.kernels.packing import Packing, plan
from mova_export.kernels.parameters import compiler_shape, open_parameters, shape_of
from mova_export.kernels.store import KernelStore
from mova_export.kernels.weights import layout, size_of
from mova_export.kernels.workers import Workers
from mova_kernels.aot import Compiled, source_digest
from mova_kernels.targets import TARGETS, Target
from mova_kernels.variants import Variant, variants
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import AdapterShape, AdapterWeights, KernelSet, read_kernels, read_weights
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.errors import MovaError

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16")
"""What kernels are compiled for."""

_ROOM = 2 << 20
"""More than the kernels of a target take."""


class Listener(Protocol):
    """Is told what happens as it happens."""

    def packed(self, record: AdapterWeights, seconds: float | None) -> None:
        """The weights are in the bundle, after so many seconds, or were already (None)."""

    def compiled(self, record: KernelSet, seconds: float | None) -> None:
        """So are a target's kernels."""


@dataclass(frozen=True)
class Order:
    """What to make; all of it is checked when an order is made with `order`.

    graph: sha256 of the artifact that the weights are taken from; sources: by capability, the hash of what its kernels
    are compiled from.
    """

    precision: Precision
    shape: AdapterShape
    graph: str
    tensors: tuple[Packing, ...]
    kernels: dict[Target, tuple[Variant, ...]]
    sources: dict[str, str]
    triton: str


def precision_of(bundle: Bundle, asked: str | None) -> Precision:
    """The precision to compile for: the one asked for, or the first of the bundle's that kernels have, else bfloat16.

    Raises:
        ExportError: kernels don't have it.
    """
    if asked is None:
        return next((precision for precision in bundle.precisions if precision in PRECISIONS), PRECISIONS[0])
    for precision in PRECISIONS:
        if precision == asked:
            return precision
    raise ExportError(f"kernels are compiled for {' or '.join(PRECISIONS)}, not {asked}")


def targets_for(names: Sequence[str] | None, here: Gpu | None) -> tuple[Target, ...]:
    """The targets to compile for, each once, in the order named.

    Args:
        names: capabilities; None is the GPU of this machine.
        here: this machine's GPU.

    Raises:
        ExportError: a name is not known, or nothing was named and there is no GPU.
    """
    known = ", ".join(map(str, TARGETS.values()))
    if names is None and here is None:
        raise ExportError(f"this machine has no NVIDIA GPU to compile for; name --target, of {known}")
    wanted = list(names or ()) or [here.capability if here else ""]
    if unknown := [name for name in wanted if name not in TARGETS]:
        raise ExportError(f"unknown target {', '.join(unknown)}; known: {known}")
    return tuple(TARGETS[name] for name in dict.fromkeys(wanted))


def order(bundle: Bundle, precision: Precision, targets: Sequence[Target]) -> Order:
    """The kernels and weights of a bundle's adapter for targets.

    Raises:
        BundleError: the bundle lacks the adapter, or a graph to take weights from.
        ExportError: there are no kernels for the adapter's sizes, or its graph lacks weights.
    """
    parameters = open_parameters(bundle, precision)
    shape = shape_of(bundle, parameters)
    kernels = {target: variants(compiler_shape(shape), precision, target) for target in targets}
    return Order(
        precision,
        shape,
        parameters.graph,
        tuple(plan(parameters, shape, precision)),
        kernels,
        {target.capability: source_digest(wanted) for target, wanted in kernels.items()},
        triton.__version__,
    )


def build(bundle: Bundle, wanted: Order, listener: Listener, *, rebuild: bool = False) -> None:
    """Make what is missing, and everything with `rebuild`; a target's kernels are put into the bundle together.

    Raises:
        ExportError: a kernel can't be compiled, a weight can't be held in the precision, or the disk is full.
    """
    weights = None if rebuild else _weights_there(bundle, wanted)
    there = {} if rebuild else {target: found for target in wanted.kernels if (found := _there(bundle, wanted, target))}
    if weights:
        listener.packed(weights, None)
    for record in there.values():
        listener.compiled(record, None)
    missing = [target for target in wanted.kernels if target not in there]
    if weights and not missing:
        return
    with KernelStore(bundle) as store:
        store.require((0 if weights else size_of(wanted.tensors)) + _ROOM * len(missing))
        if not weights:
            started = time.perf_counter()
            weights = store.put_weights(wanted.precision, wanted.shape, wanted.graph, wanted.tensors)
            listener.packed(weights, time.perf_counter() - started)
        _compile(store, wanted, missing, listener)


def _compile(store: KernelStore, wanted: Order, targets: Sequence[Target], listener: Listener) -> None:
    started = time.perf_counter()
    done: dict[Target, list[Compiled]] = {target: [] for target in targets}
    with Workers(
        store.folder, [(target, variant) for target in targets for variant in wanted.kernels[target]]
    ) as workers:
        for target, compiled in workers.compiled():
            done[target].append(compiled)
            if len(done[target]) < len(wanted.kernels[target]):
                continue
            places = [variant.name for variant in wanted.kernels[target]]
            record = store.put_kernels(
                target.capability,
                wanted.precision,
                wanted.shape,
                sorted(done.pop(target), key=lambda one: places.index(one.name)),
                wanted.triton,
                wanted.sources[target.capability],
            )
            listener.compiled(record, time.perf_counter() - started)
            started = time.perf_counter()


def _there(bundle: Bundle, wanted: Order, target: Target) -> KernelSet | None:
    """The record of a target's kernels that are there, whole, and of the same source."""
    try:
        record = read_kernels(bundle, target.capability, wanted.precision)
    except MovaError:
        return None
    made_of = (record.shape, record.triton, record.source)
    return record if made_of == (wanted.shape, wanted.triton, wanted.sources[target.capability]) else None


def _weights_there(bundle: Bundle, wanted: Order) -> AdapterWeights | None:
    try:
        record = read_weights(bundle, wanted.precision)
    except MovaError:
        return None
    made_of = (record.graph, record.shape, record.tensors)
    return record if made_of == (wanted.graph, wanted.shape, layout(wanted.tensors)) else None
