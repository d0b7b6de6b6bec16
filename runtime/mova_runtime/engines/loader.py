"""From a component's name to an engine that may answer: the chosen backend's, or the next listed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mova_runtime.bundle import Bundle
from mova_runtime.engines import backends
from mova_runtime.engines.choice import Choice, meant_for
from mova_runtime.engines.failure import failure
from mova_runtime.engines.first_load import load_first
from mova_runtime.engines.memory import Need
from mova_runtime.engines.needs.store import Needs, Took, identity
from mova_runtime.engines.protocol import Backend, Engine
from mova_runtime.errors import BackendError, BundleError, OutOfMemoryError
from mova_runtime.parity.gate import Gate
from mova_runtime.trace import Trace
from mova_runtime.types import Served

_GUESSED_RATE = 1 << 30
"""Bytes that are loaded in a second, where nothing was measured."""

_NOTABLE = 1.5
"""A load that is so many times slower or faster than the one remembered takes its place."""


@dataclass(frozen=True)
class Loaded:
    """An engine that may answer; the memory it takes, and the seconds that its load took."""

    engine: Engine
    need: Need
    seconds: float


@dataclass(frozen=True)
class _Expected:
    """What is expected of a component's load. `known`: it was checked and measured on this machine."""

    took: Took
    known: bool


class Loader:
    """Loads components' engines. Every engine passes the parity gate before it is handed out."""

    def __init__(
        self, bundle: Bundle, choices: Sequence[Choice], threads: int | None = None, *, keep_compiled: bool = False
    ) -> None:
        """Remember what to load with; nothing is imported.

        Args:
            bundle: of the components.
            choices: as `choose_in_order` gives them: the first or a component's own serves; where not, a fallback.
            threads: of each engine; None is one a physical core.
            keep_compiled: see `backends.make`.
        """
        backends.check_threads(threads)
        self._bundle = bundle
        self._choices = tuple(choices)
        self._threads = threads
        self._keep_compiled = keep_compiled
        self._gate = Gate(bundle)
        self._needs = Needs()
        self._backends: dict[str, Backend] = {}
        self._lock = threading.Lock()
        self._expected: dict[str, _Expected] = {}
        self.served: dict[str, Served] = {}
        """Components that were loaded, by what."""

    def need(self, component: str) -> Need:
        """The memory a component's engine takes: what it took last time on this machine, or else a first guess.

        Raises:
            BundleError, BackendError: nothing can serve it; nothing is loaded to find out.
        """
        return self._expect(component).took.need

    def seconds(self, component: str) -> float:
        """How long its load takes: what it took last time, or else a guess. Raises like `need`."""
        return self._expect(component).took.seconds

    def is_known(self, component: str) -> bool:
        """Whether its engine was checked and measured on this machine: then it may be loaded beside other work."""
        try:
            return self._expect(component).known
        except (BundleError, BackendError):
            return False

    def load(
        self, component: str, trace: Trace, alone: Callable[[], int | None] = lambda: 0, *, final: bool = False
    ) -> Loaded:
        """The component's engine. One that is not known yet is run on its probes, which checks and measures it.

        Args:
            component: its name.
            trace: gets the stages.
            alone: a number that stays the same while no other engine is loaded, run or closed; None while one is. What
                is measured between two different answers is not believed.
            final: nothing more can be freed for it: where memory runs out, fallbacks are tried.

        Raises:
            IntegrityError: a file is not what the manifest says.
            BundleError: the bundle lacks the component, or a precision of it.
            EngineKeyError: no engine was built for this machine.
            ParityError: the engine computes something other than torch.
            OutOfMemoryError: there was no room. Unless `final`, no fallback was tried: the same may fit when others
                have gone.
            BackendError: the engine can't be loaded.
            Each is of the first choice; with fallbacks listed, the message says why each of them failed too.
        """
        refused: list[BundleError | BackendError] = []
        for choice in meant_for(self._choices, component):
            try:
                loaded, known = self._load(choice, component, trace, alone)
            except OutOfMemoryError as error:
                if not final:
                    raise
                refused.append(error)
                continue
            except (BundleError, BackendError) as error:
                refused.append(error)
                continue
            self._expected[component] = _Expected(Took(loaded.need, loaded.seconds), known)
            self.served[component] = Served(str(choice), tuple(str(error) for error in refused))
            return loaded
        first, *others = refused
        if others:
            raise type(first)("; ".join([str(first), *(f"fallback: {error}" for error in others)])) from first
        raise first

    def _load(
        self, choice: Choice, component: str, trace: Trace, alone: Callable[[], int | None]
    ) -> tuple[Loaded, bool]:
        """The engine, and whether it is known from now on."""
        backend = self._backend(choice)
        try:
            return self._load_by(backend, component, trace, alone)
        except MemoryError as error:  # Python's own, wherever it happened
            raise failure(f"{backend.name}: can't load {component!r}", error) from error

    def _load_by(
        self, backend: Backend, component: str, trace: Trace, alone: Callable[[], int | None]
    ) -> tuple[Loaded, bool]:
        passed = self._gate.knows(backend, component)
        what = self._identity(backend, component)
        took = self._needs.recall(what)
        if passed and took:
            with trace.stage(f"load {component}", bytes=took.need.resident.total):
                start = time.perf_counter()
                engine = backend.load(self._bundle, component)
                seconds = time.perf_counter() - start
            if not took.seconds / _NOTABLE <= seconds <= took.seconds * _NOTABLE:  # the first was hashed too
                self._needs.remember(what, Took(took.need, seconds))
            return Loaded(engine, took.need, seconds), True
        first = load_first(self._bundle, component, backend, None if passed else self._gate, trace, alone)
        if first.measured:
            self._needs.remember(what, first.took)
        return Loaded(first.engine, first.took.need, first.took.seconds), first.measured

    def _expect(self, component: str) -> _Expected:
        if component not in self._expected:
            refused: BundleError | BackendError | None = None
            for choice in meant_for(self._choices, component):
                try:
                    self._expected[component] = self._foresee(choice, component)
                    break
                except (BundleError, BackendError) as error:
                    refused = refused or error
            else:
                assert refused is not None
                raise refused
        return self._expected[component]

    def _foresee(self, choice: Choice, component: str) -> _Expected:
        backend = self._backend(choice)
        passed = self._gate.knows(backend, component)
        if took := self._needs.recall(self._identity(backend, component)):
            return _Expected(took, passed)
        need = backend.need(self._bundle, component)
        return _Expected(Took(need, need.resident.total / _GUESSED_RATE), known=False)

    def _identity(self, backend: Backend, component: str) -> dict[str, str]:
        """What the memory that an engine takes depends on."""
        return identity(backend, self._bundle, component, self._threads, keep_compiled=self._keep_compiled)

    def _backend(self, choice: Choice) -> Backend:
        if choice.obstacle:
            raise BackendError(choice.obstacle)
        with self._lock:
            name = str(choice)
            if name not in self._backends:
                self._backends[name] = backends.make(choice, self._threads, keep_compiled=self._keep_compiled)
            return self._backends[name]
