"""An engine's first load on a machine: it is checked against torch, and what it takes is measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.bounds import is_believed
from mova_runtime.engines.needs.guess import longest
from mova_runtime.engines.needs.store import Took
from mova_runtime.trace import Trace

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.engines.protocol import Backend, Engine
    from mova_runtime.parity.gate import Gate


@dataclass(frozen=True)
class FirstLoad:
    """An engine, and what it took; where it could not be measured, what was guessed."""

    engine: Engine
    took: Took
    measured: bool


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
    check = partial(gate.check, backend, component) if gate else None
    return load_checked(bundle, component, backend, check, trace, alone)


def load_checked(
    bundle: Bundle,
    component: str,
    backend: Backend,
    check: Callable[[Engine], object] | None,
    trace: Trace,
    alone: Callable[[], int | None],
) -> FirstLoad:
    """Like `load_first`, with a check of the caller's.

    Args:
        bundle: of the component.
        component: its name.
        backend: loads it.
        check: runs the engine on all of its probes, and raises if it is not to be used. With None the engine is run on
            them only if it can be measured.
        trace: gets the stages.
        alone: see `Loader.load`.

    Raises:
        BundleError, BackendError: see `Loader.load`; and whatever `check` raises.
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
                engine = backend.load(bundle, component)
                seconds = time.perf_counter() - start
            if watch:
                watch.loaded()
            if check or watch:
                with trace.stage(f"check {component}"):
                    watched = Watched(engine, watch) if watch else engine
                    if check:
                        check(watched)
                    else:
                        verify(bundle, component, watched, backend.precision)
        found = watch.need() if watch and alone() == before else None
        if found is None or not is_believed(found, guess):
            return FirstLoad(engine, Took(guess, seconds), measured=False)
        need = _beyond_probes(bundle, component, found, guess, engine, on_gpu=gpu is not None)
        return FirstLoad(engine, Took(need, seconds), measured=True)
    except BaseException:
        if engine:
            engine.close()
        raise


def _beyond_probes(bundle: Bundle, component: str, found: Need, guess: Need, engine: Engine, *, on_gpu: bool) -> Need:
    """What was measured, but for what can't be seen on probes: what longer runs take, and what is used later."""

    def most(probed: int, guessed: int) -> int:
        return longest(bundle, component, probed, engine.cache) if guessed else probed

    working = Memory(
        most(found.working.host, guess.working.host),
        most(found.working.device, guess.working.device),
    )
    resident, loading = found.resident, found.loading
    if not on_gpu:  # none of its memory is on a GPU, or it can't be told from the host's
        resident = Memory(resident.host, guess.resident.device)
        working = Memory(working.host, guess.working.device)
        loading = Memory(loading.host, guess.loading.device)
    return Need(resident.most(engine.least), working, loading)
