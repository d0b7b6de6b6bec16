"""From a component's name to an engine that may answer: the chosen backend's, or the next listed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mova_runtime.bundle import Bundle
from mova_runtime.engines import backends
from mova_runtime.engines.choice import Choice, meant_for
from mova_runtime.engines.protocol import Backend, Engine
from mova_runtime.errors import BackendError, BundleError
from mova_runtime.parity.gate import Gate
from mova_runtime.trace import Trace
from mova_runtime.types import Served


class Loader:
    """Loads components' engines. Every engine passes the parity gate before it is handed out."""

    def __init__(self, bundle: Bundle, choices: Sequence[Choice], threads: int | None = None) -> None:
        """`choices` as `choose_in_order` gives them: the first or a component's own serves; where not, a fallback."""
        backends.check_threads(threads)
        self._bundle = bundle
        self._choices = tuple(choices)
        self._threads = threads
        self._gate = Gate(bundle)
        self._backends: dict[str, Backend] = {}
        self._lock = threading.Lock()
        self.served: dict[str, Served] = {}
        """Components that were loaded, by what."""

    def size(self, component: str) -> int:
        """Bytes of the files of a component's engine: of the first choice that has one, which need not be what serves.

        Raises:
            BundleError, BackendError: there is none.
        """
        refused: BundleError | BackendError | None = None
        for choice in meant_for(self._choices, component):
            try:
                return self._backend(choice).size(self._bundle, component)
            except (BundleError, BackendError) as error:
                refused = refused or error
        assert refused is not None
        raise refused

    def load(self, component: str, trace: Trace) -> Engine:
        """The component's engine.

        Raises:
            IntegrityError: a file is not what the manifest says.
            BundleError: the bundle lacks the component, or a precision of it.
            EngineKeyError: no engine was built for this machine.
            ParityError: the engine computes something other than torch.
            BackendError: the engine can't be loaded.
            Each is of the first choice; with fallbacks listed, the message says why each of them failed too.
        """
        refused: list[BundleError | BackendError] = []
        for choice in meant_for(self._choices, component):
            try:
                engine = self._load(choice, component, trace)
            except (BundleError, BackendError) as error:
                refused.append(error)
                continue
            self.served[component] = Served(str(choice), tuple(str(error) for error in refused))
            return engine
        first, *others = refused
        if others:
            raise type(first)("; ".join([str(first), *(f"fallback: {error}" for error in others)])) from first
        raise first

    def _load(self, choice: Choice, component: str, trace: Trace) -> Engine:
        backend = self._backend(choice)
        known = self._gate.knows(backend, component)
        with trace.stage(f"load {component}"):
            engine = backend.load(self._bundle, component)
        if known:
            return engine
        try:
            with trace.stage(f"check {component}"):
                self._gate.check(backend, component, engine)
        except BaseException:
            engine.close()
            raise
        return engine

    def _backend(self, choice: Choice) -> Backend:
        if choice.obstacle:
            raise BackendError(choice.obstacle)
        with self._lock:
            name = str(choice)
            if name not in self._backends:
                self._backends[name] = backends.make(choice, self._threads)
            return self._backends[name]
