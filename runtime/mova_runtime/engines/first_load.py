"""An engine's first load on a machine: it is checked against torch, and what it takes is measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.engines.failure import failure
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.store import Took
from mova_runtime.trace import Trace

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.engines.needs.watch import Watch
    from mova_runtime.engines.protocol import Backend, Engine
    from mova_runtime.parity.gate import Gate


@dataclass(frozen=True)
class FirstLoad:
    """An engine, and what it took; where it could not be measured, what was guessed."""

    engine: Engine
    took: Took
    measured: bool


def load_engine(bundle: Bundle, component: str, backend: Backend) -> Engine:
    """Load an engine. Raises like `Loader.load`: Python's own word for a lack of memory is an error of ours, too."""
    try:
        return backend.load(bundle, component)
    except MemoryError as error:
        raise failure(f"{backend.name}: can't load {component!r}", error) from error


def load_first(
    bundle: Bundle,
    component: str,
    backend: Backend,
    gate: Gate | None,
    trace: Trace,
    alone: Callable[[], int | None],
) -> FirstLoad:
    """Load an engine, and run it on its probes if it is to be checked or can be measured.

    Args:
        bundle: of the component.
        component: its name.
        backend: loads it.
        gate: to pass; None where it was passed before.
        trace: gets the stages.
        alone: see `Loader.load`.

    Raises:
        BundleError, BackendError: see `Loader.load`.
    """
    from mova_runtime.engines.needs.watch import Watch, Watched, resident  # noqa: PLC0415  # imports numpy
    from mova_runtime.parity.probe import verify  # noqa: PLC0415  # imports numpy

    guess = backend.need(bundle, component)
    gpu = backend.start()
    before = alone()
    watch = Watch(gpu) if before is not None and resident() else None
    engine: Engine | None = None
    try:
        with watch or contextlib.nullcontext():
            with trace.stage(f"load {component}", bytes=guess.resident.total):
                start = time.perf_counter()
                engine = load_engine(bundle, component, backend)
                seconds = time.perf_counter() - start
            if watch:
                watch.loaded()
            if gate or watch:
                with trace.stage(f"check {component}"):
                    watched = Watched(engine, watch) if watch else engine
                    if gate:
                        gate.check(backend, component, watched)
                    else:
                        verify(bundle, component, watched, backend.precision)
        measured = watch is not None and alone() == before
        need = _measured(watch, guess, engine.least, component, on_gpu=gpu is not None) if watch and measured else guess
        return FirstLoad(engine, Took(need, seconds), measured)
    except BaseException:
        if engine:
            engine.close()
        raise


def _measured(watch: Watch, guess: Need, least: Memory, component: str, *, on_gpu: bool) -> Need:
    """What was measured, but for what can't be seen on probes."""
    found = watch.need()
    if not on_gpu:  # none of its memory is on a GPU, or it can't be told from the host's
        device = guess.resident.device, guess.working.device, guess.loading.device
        resident, working, loading = (
            Memory(memory.host, on_device)
            for memory, on_device in zip((found.resident, found.working, found.loading), device, strict=True)
        )
        found = Need(resident, working, loading)
    if component == LANGUAGE_MODEL:  # a probe's cache is short
        found = Need(found.resident, found.working.most(guess.working), found.loading)
    return Need(found.resident.most(least), found.working, found.loading)
