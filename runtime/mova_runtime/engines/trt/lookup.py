"""Which of a bundle's engines runs a component on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mova_runtime.bundle.engine import EngineKey, EngineRecord, Flavour, this_platform
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.trt import library
from mova_runtime.errors import BackendError, BundleError, EngineKeyError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from mova_runtime.bundle import Bundle


@dataclass(frozen=True)
class Machine:
    """What runs engines here: a flavour and its exact version, the GPU's capability ("sm_89"), the platform."""

    flavour: Flavour
    version: str
    capability: str
    platform: str


def machine(flavour: Flavour) -> Machine:
    """This machine.

    Raises:
        BackendError: it has no GPU, or the flavour's library is not installed.
    """
    found = gpu()
    if not found:
        raise BackendError(f"backend {flavour}: no NVIDIA GPU, or no driver for it")
    return Machine(flavour, library.version(flavour), found.capability, this_platform())


def find(bundle: Bundle, component: str, precision: Precision, here: Machine) -> EngineRecord:
    """The engine to run a component with.

    Engines that fit and differ take different shapes, or were built with different flags: the one that takes the
    largest inputs is chosen, then one with our kernels, which somebody asked for, and among equals the last by name, so
    that the choice is the same everywhere.

    Raises:
        BundleError: the bundle lacks the component or the precision.
        EngineKeyError: there is none; the message says how the nearest differs, and what builds the right one.
    """
    return _fitting(bundle, bundle.engines(), component, precision, here)


def _fitting(
    bundle: Bundle, engines: Iterable[EngineRecord], component: str, precision: Precision, here: Machine
) -> EngineRecord:
    graph = bundle.artifact(component, precision).sha256
    built = [record for record in engines if record.key.component == component]
    differing = {record.key.name: _differences(record.key, precision, graph, here) for record in built}
    fitting = [record for record in built if not differing[record.key.name]]
    if fitting:
        return max(fitting, key=lambda record: (_reach(record.key), record.key.has_plugins, record.key.name))
    way = f"run `{command(bundle, component, precision, here)}`"
    if not built:
        raise EngineKeyError(f"{bundle.root} has no engine of {component!r}; {way}")
    nearest = min(built, key=lambda record: (len(differing[record.key.name]), record.key.name))
    theirs, ours = zip(*differing[nearest.key.name], strict=True)
    raise EngineKeyError(
        f"engine of {component!r} in {nearest.file.path.rpartition('/')[0]} was built {_joined(theirs)}; "
        f"needed here is one {_joined(ours)}; {way}"
    )


def is_complete(bundle: Bundle, precision: Precision, flavour: Flavour) -> bool:
    """Whether every component has an engine for this machine."""
    try:
        here, engines = machine(flavour), bundle.engines()  # read once for all components
        for component in bundle.manifest.components:
            _fitting(bundle, engines, component, precision, here)
    except (BackendError, BundleError):
        return False
    return True


def checked(bundle: Bundle, record: EngineRecord, here: Machine) -> Path:
    """Where an engine's file is, its bytes being what they were when it was built: TensorRT crashes on others.

    Raises:
        IntegrityError: the file is missing or has other bytes.
    """
    try:
        return bundle.checked_path(record.file)
    except IntegrityError as error:
        key = record.key
        raise IntegrityError(
            f"engine of {key.component!r} is damaged: {str(error).removesuffix('; copy or export the bundle again')}; "
            f"copy it again or run `{command(bundle, key.component, key.precision, here)}`"
        ) from None


def command(bundle: Bundle, component: str, precision: Precision, here: Machine) -> str:
    """The command that builds a component's engine for a machine."""
    return (
        f"mova build {bundle.root} --backend {here.flavour} --target {here.capability} --precision {precision} "
        f"--only {component}"
    )


def _differences(key: EngineKey, precision: Precision, graph: str, here: Machine) -> list[tuple[str, str]]:
    """What the engine has, and what is needed instead; the less easily overcome first."""
    pairs = (
        (f"for {key.platform}", f"for {here.platform}"),
        (f"for {key.capability}", f"for {here.capability}"),
        (f"by {key.flavour} {key.version}", f"by {here.flavour} {here.version}"),
        (f"in {key.precision}", f"in {precision}"),
    )
    found = [(theirs, ours) for theirs, ours in pairs if theirs != ours]
    if key.precision == precision and key.graph != graph:
        found.append(("from another export's graph", "from this bundle's"))
    return found


def _reach(key: EngineKey) -> int:
    return sum(math.prod(shapes.maximum) for shapes in key.profile.values())


def _joined(words: Iterable[str]) -> str:
    return " and ".join(words)
