"""All engines that are asked of a bundle: which are missing, and the building of those, a component at a time."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mova_export.engines.build import Source, flags
from mova_export.engines.profiles import profile
from mova_export.engines.store import EngineStore
from mova_export.engines.targets import BUILDS, Target
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.engine import EngineKey, EngineRecord, Flavour, this_platform
from mova_runtime.bundle.kernels import ADAPTER
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.installed import has_module
from mova_runtime.engines.trt import library

_ROOM = 1.1
_LEAST_ROOM = 5 << 20
"""An engine is its weights, up to a tenth more, and some MB of code: so it was with TensorRT-RTX at every size."""


class Listener(Protocol):
    """Is told what happens as it happens."""

    def starting(self, key: EngineKey, index: int, total: int) -> None:
        """An engine is next; the first has index 1."""

    def fraction(self, done: float) -> None:
        """So much of it is done. May raise OSError, which stops the build."""

    def finished(self, record: EngineRecord, *, built: bool) -> None:
        """It is in the bundle: built now, or before."""


@dataclass(frozen=True)
class Order:
    """What to build; all of it is checked when an order is made with `order`."""

    flavour: Flavour
    precision: Precision
    version: str
    targets: tuple[Target, ...]
    keys: dict[str, tuple[EngineKey, ...]]
    """By component, a key for each target."""

    @property
    def all(self) -> list[EngineKey]:
        """Every engine's key, a component's together."""
        return [key for keys in self.keys.values() for key in keys]


def precision_of(bundle: Bundle, asked: str | None) -> Precision:
    """The precision to build: the one asked for, or the bundle's first that TensorRT takes.

    Raises:
        ExportError: TensorRT does not take it, or none of the bundle's, or its components have none in common.
    """
    if asked is None and not bundle.precisions:
        raise ExportError("the bundle's components have no precision in common; name one with --precision, and --only")
    if asked is None:
        able = [precision for precision in bundle.precisions if precision in BUILDS]
    else:
        able = [precision for precision in BUILDS if precision == asked]
    if able:
        return able[0]
    wanted = asked or " and ".join(bundle.precisions)
    raise ExportError(f"TensorRT engines are {', '.join(BUILDS)}, not {wanted}; export the bundle with --precision")


def order(
    bundle: Bundle,
    flavour: Flavour,
    precision: Precision,
    targets: Sequence[Target],
    *,
    components: Sequence[str] | None = None,
    max_batch: int = 1,
    level: int | None = None,
    plugins: bool = False,
) -> Order:
    """The engines of components for targets.

    Args:
        bundle: where the graphs are.
        flavour: whose engines; its library is installed.
        precision: one of BUILDS.
        targets: GPUs.
        components: None is all.
        max_batch: images at once.
        level: of optimisation, TensorRT's default where None.
        plugins: the adapter's engine holds our kernels.

    Raises:
        ExportError: a component is unknown, or a number out of range; there are no such plugins.
        BundleError: the bundle lacks a component in this precision.
        BackendError: the library is not installed.
    """
    known = list(bundle.manifest.components)
    if unknown := [name for name in components or () if name not in known]:
        raise ExportError(f"no component {', '.join(unknown)} in the bundle; it has {', '.join(known)}")
    held = _plugins(flavour, precision, targets, components) if plugins else ""
    version = library.version(flavour)
    keys: dict[str, tuple[EngineKey, ...]] = {}
    for name in known if components is None else dict.fromkeys(components):
        graph = bundle.artifact(name, precision).sha256
        shapes = profile(bundle, name, max_batch)
        keys[name] = tuple(
            EngineKey(
                component=name,
                precision=precision,
                graph=graph,
                flavour=flavour,
                version=version,
                capability=target.capability,
                platform=this_platform(),
                profile=shapes,
                flags=flags(level, plugins=held if name == ADAPTER else ""),
            )
            for target in targets
        )
    return Order(flavour, precision, version, tuple(targets), keys)


def build(bundle: Bundle, wanted: Order, listener: Listener, *, rebuild: bool = False) -> list[EngineRecord]:
    """Build what is missing, and everything with `rebuild`; every engine is in the bundle as soon as it is built.

    Raises:
        ExportError: TensorRT can't read or build a graph, or the disk is full.
        IntegrityError: a graph's file is not what the manifest says.
        BackendError: the library can't be imported.
    """
    trt = library.load(wanted.flavour)
    records: list[EngineRecord] = []
    with EngineStore(bundle) as store:
        present = {} if rebuild else {key.name: record for key in wanted.all if (record := store.find(key))}
        store.require(sum(_room(bundle, key) for key in wanted.all if key.name not in present))
        for keys in wanted.keys.values():
            source: Source | None = None
            for key in keys:
                listener.starting(key, len(records) + 1, len(wanted.all))
                if there := present.get(key.name):
                    records.append(there)
                else:
                    source = source or _source(trt, bundle, key, store.scratch)
                    records.append(store.put(key, partial(source.build, key, tell=listener.fraction)))
                listener.finished(records[-1], built=not there)
            del source
            gc.collect()  # the next component needs the room
    return records


def _source(trt: Any, bundle: Bundle, key: EngineKey, scratch: Path) -> Source:
    if key.has_plugins:
        from mova_export.kernels import plugins  # noqa: PLC0415  # needs Triton and torch

        target = plugins.plugin_target(key.capability)
        plugins.register_plugins(bundle, key.precision, target, trt)
        return Source(trt, key.component, plugins.write_plugin_graph(bundle, key.precision, target, scratch))
    graph, *_ = [bundle.checked_path(file) for file in bundle.artifact(key.component, key.precision).files]
    return Source(trt, key.component, graph)


def _plugins(
    flavour: Flavour, precision: Precision, targets: Sequence[Target], components: Sequence[str] | None
) -> str:
    """What tells these plugins from others; raises where there can be none."""
    if flavour != "tensorrt":
        raise ExportError(f"--plugins: {flavour} has no ahead-of-time plugins, --backend tensorrt has")
    if components is not None and ADAPTER not in components:
        raise ExportError(f"--plugins: they are the {ADAPTER}'s, which --only leaves out")
    if lacking := [name for name in ("triton", "torch") if not has_module(name)]:
        raise ExportError(f"--plugins: lacks {' and '.join(lacking)}; install the extras `kernels` and `export`")
    from mova_export.kernels import plugins  # noqa: PLC0415  # needs Triton
    from mova_export.kernels.order import PRECISIONS  # noqa: PLC0415

    if precision not in PRECISIONS:
        raise ExportError(f"--plugins: kernels multiply in {', '.join(PRECISIONS)}, not {precision}")
    for target in targets:
        plugins.plugin_target(target.capability)
    return plugins.plugin_version()


def _room(bundle: Bundle, key: EngineKey) -> int:
    return int(bundle.artifact(key.component, key.precision).bytes * _ROOM) + _LEAST_ROOM
