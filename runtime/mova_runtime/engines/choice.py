"""Which backend runs a bundle, and in which precision: decided without importing any of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import PRECISIONS, Precision
from mova_runtime.engines import abilities, selection
from mova_runtime.engines.abilities import BACKENDS, ON_CPU, ONLY, RUNS
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.trt import library
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle


@dataclass(frozen=True)
class Choice:
    """A backend, a precision, and why they were chosen.

    obstacle: why they can't run here, empty if they can; component: the one it is for, empty where it is for all.
    """

    backend: str
    precision: Precision
    why: str
    obstacle: str = ""
    component: str = ""

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


def choose(bundle: Bundle, backend: str = "auto", precision: str | None = None) -> Choice:
    """What runs a bundle, but for components that have their own. See `choose_in_order`."""
    return choose_in_order(bundle, backend, precision)[0]


def choose_in_order(
    bundle: Bundle,
    backend: str = "auto",
    precision: str | None = None,
    fallback: Sequence[str] | None = (),
    components: Sequence[str] | None = None,
) -> tuple[Choice, ...]:
    """What is meant to run a bundle, what single components have of their own, then what may stand in for either.

    Args:
        bundle: says which precisions there are; the first is the one its maker exported it for.
        backend: one of BACKENDS, or "auto": on an NVIDIA GPU engines that were built for it, else ONNX Runtime's CUDA
            provider; on a CPU what is installed and runs the precision. After it, components' own, as `selection` says.
        precision: one of PRECISIONS; None takes the bundle's first that the backend runs here. A component's own
            backend has a precision of its own, or else the first that it runs here. Where none is asked for, a
            component that was exported in precisions of its own is served in the first of these that runs here.
        fallback: in order; each "backend:precision", a backend, or a precision of the first's backend.
        components: that will be asked for; None is all of the bundle's.

    Returns:
        All that were named, the first's first; one that can't run here has an `obstacle`. For each component at least
        one can; `meant_for` says which are for it.

    Raises:
        BackendError: a backend, precision or component is unknown; for a component none can run here: not installed, or
            the precision is none of the backend's, the processor's, the bundle's; a fallback is none.
    """
    if isinstance(fallback, str):
        raise BackendError(f"fallback is a sequence such as ('ort:fp32',), not {fallback!r}")
    first, own = selection.read(backend)
    most = _consider(bundle, first, precision)
    choices = (
        most,
        *(_own(bundle, one) for one in own),
        *(_elsewhere(bundle, most, {one.component for one in own}) if precision is None else ()),
        *(_fallback(bundle, first, text) for text in fallback or ()),
    )
    for component in bundle.manifest.components if components is None else components:
        obstacles = [_obstacle_to(choice, component) for choice in meant_for(choices, component)]
        if all(obstacles):
            raise BackendError("; fallback: ".join(obstacles))
    return choices


def meant_for(choices: Sequence[Choice], component: str) -> tuple[Choice, ...]:
    """Those of `choose_in_order` that may serve a component, in order: its own or the first, then the fallbacks."""
    first, *others = choices
    own = [choice for choice in others if choice.component == component]
    fallbacks = [choice for choice in others if not choice.component and _has(choice.backend, component)]
    return (*(own or [first]), *fallbacks)


def _consider(bundle: Bundle, backend: str, precision: str | None) -> Choice:
    if backend not in ("auto", *BACKENDS):
        raise BackendError(f"unknown backend {backend!r}; one of auto, {', '.join(BACKENDS)}")
    if precision is not None and precision not in PRECISIONS:
        raise BackendError(f"unknown precision {precision!r}; one of {', '.join(PRECISIONS)}")
    if backend == "auto":
        return _on_gpu(bundle, precision) or _on_cpu(bundle, precision)
    return _named(bundle, backend, (precision,) if precision else _precisions(bundle, backend))


def _named(bundle: Bundle, backend: str, candidates: Sequence[Precision], component: str = "") -> Choice:
    """A backend in the first precision that can run here."""
    obstacles = {candidate: abilities.obstacle(bundle, backend, candidate, component) for candidate in candidates}
    for candidate, found in obstacles.items():
        if not found:
            return Choice(backend, candidate, "as asked", component=component)
    first, found = next(iter(obstacles.items()))
    return Choice(backend, first, "as asked", f"backend {backend}: {found}", component)


def _precisions(bundle: Bundle, backend: str) -> tuple[Precision, ...]:
    """Precisions to try where none was asked for, in order."""
    if backend != "cuda":
        return bundle.precisions
    from mova_runtime.bundle.kernels import weights_record  # noqa: PLC0415  # most bundles have no kernels

    packed = [one for one in RUNS[backend] if (bundle.root / weights_record(one)).is_file()]
    return (*packed, *RUNS[backend])


def _own(bundle: Bundle, own: selection.Own) -> Choice:
    components = tuple(bundle.manifest.components)
    if own.component not in components:
        raise BackendError(f"no component {own.component!r} in the bundle; it has {', '.join(components)}")
    if own.backend not in BACKENDS:
        raise BackendError(f"{own.component}: unknown backend {own.backend!r}; one of {', '.join(BACKENDS)}")
    if own.precision is not None and own.precision not in PRECISIONS:
        raise BackendError(f"{own.component}: unknown precision {own.precision!r}; one of {', '.join(PRECISIONS)}")
    candidates = (own.precision,) if own.precision else _precisions(bundle, own.backend)
    if not own.precision and own.backend not in ONLY and not any(bundle.has(own.component, one) for one in candidates):
        candidates = _exported(bundle, own.component)
    return _named(bundle, own.backend, candidates, own.component)


def _elsewhere(bundle: Bundle, most: Choice, named: Collection[str]) -> Iterator[Choice]:
    """What serves components that were not exported in what serves most; `named`: those that were chosen for."""
    for component in bundle.manifest.components:
        if most.obstacle or component in named or bundle.has(component, most.precision) or most.backend in ONLY:
            continue
        if most.backend == "openvino" and bundle.has(component, "fp32"):  # it derives every precision from that
            continue
        for precision in _exported(bundle, component):
            able = [most.backend, *(backend for backend in ON_CPU[precision] if backend != most.backend)]
            if found := [one for one in able if not abilities.obstacle(bundle, one, precision, component)]:
                yield Choice(found[0], precision, f"the bundle has it in {precision}", component=component)
                break


def _exported(bundle: Bundle, component: str) -> tuple[Precision, ...]:
    return tuple(precision for precision in PRECISIONS if bundle.has(component, precision))


def _obstacle_to(choice: Choice, component: str) -> str:
    """Why a choice can't serve a component here; empty if it can."""
    if _has(choice.backend, component):
        return choice.obstacle
    return (
        f"backend {choice.backend} has the {' and the '.join(ONLY[choice.backend])} alone, no {component!r}; "
        f"write it beside another, as in {selection.EXAMPLE}"
    )


def _has(backend: str, component: str) -> bool:
    """Whether a backend has a component at all."""
    return component in ONLY.get(backend, (component,))


def _fallback(bundle: Bundle, first: str, text: str) -> Choice:
    backend, _, precision = str(text).partition(":")
    if backend in PRECISIONS and not precision:
        backend, precision = first, backend
    elif backend not in BACKENDS:
        raise BackendError(f"fallback {text!r}: expected a backend, a precision, or both as in ort:fp32")
    chosen = _consider(bundle, backend, precision or None)
    return Choice(chosen.backend, chosen.precision, "a fallback", chosen.obstacle)


def _on_gpu(bundle: Bundle, precision: Precision | None) -> Choice | None:
    """What uses the GPU; None where there is none, or nothing that could."""
    found = gpu()
    if not found:
        return None
    from mova_runtime.engines.trt import lookup  # noqa: PLC0415  # most machines have no GPU

    candidates = (precision,) if precision else bundle.precisions
    for flavour in library.FLAVOURS:
        for candidate in candidates:
            if not abilities.obstacle(bundle, flavour, candidate) and lookup.is_complete(bundle, candidate, flavour):
                return Choice(flavour, candidate, f"the bundle has engines for this {found.name}")
    for candidate in candidates:
        if not abilities.obstacle(bundle, "ort-cuda", candidate):
            why = f"this machine has a {found.name}, the bundle no engines for all of it"
            return Choice("ort-cuda", candidate, why)
    return None


def _on_cpu(bundle: Bundle, precision: Precision | None) -> Choice:
    found = gpu()
    device = f"the CPU: nothing that could use the {found.name} is installed" if found else "the CPU"
    wanted = (precision,) if precision else bundle.precisions
    for candidate in wanted:
        able = [backend for backend in ON_CPU[candidate] if not abilities.obstacle(bundle, backend, candidate)]
        if able:
            source = "as asked" if precision else "the bundle's first that runs here"
            beside = f", rather than {able[1]}" if able[1:] else ""
            return Choice(able[0], candidate, f"{candidate} ({source}) on {device}{beside}")
    first = wanted[0]
    obstacles = "; ".join(f"{backend}: {abilities.obstacle(bundle, backend, first)}" for backend in ON_CPU[first])
    return Choice("auto", first, f"nothing runs it on {device}", f"nothing here runs {first}; {obstacles}")
