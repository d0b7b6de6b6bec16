"""Watches memory while an engine is loaded and run for the first time.

The host's is what of this process is resident, mapped files included, read again and again by a thread: the system's
own record of the peak is not reset, because others may read it. A GPU's is what is in use by anybody. Both mean
something only while nothing else is at work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.protocol import Array, Binding, Engine, GpuMemory, Inputs
from mova_runtime.engines.release import release
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    import numpy as np

_INTERVAL = 0.005
"""Seconds between two readings. Reading takes 10 µs."""

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class Watch:
    """A context; within it an engine is loaded first, then run."""

    def __init__(self, gpu: GpuMemory | None = None) -> None:
        """`gpu`: its memory, where the engine is there."""
        self._gpu = gpu
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._phase: str | None = "loading"
        self._peaks: dict[str, Memory] = {}
        self._thread = threading.Thread(target=self._sample, name="memory watch", daemon=True)

    def __enter__(self) -> Watch:
        self._settle()
        self._before = self._read()
        try:
            self._thread.start()
        except RuntimeError as error:  # what Python says where there is no memory for a thread
            raise MemoryError(str(error)) from error
        return self

    def loaded(self) -> None:
        """The engine is loaded."""
        self._enter(None)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The engine runs within; what is between two runs, such as a comparison, is not its own."""
        release()  # what was freed before, where the C library was told to keep it, is no run's
        self._enter("running")
        try:
            yield
        finally:
            self._enter(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._settle()
        self._after = self._read()

    def need(self) -> Need:
        """What it took, after the context's end."""
        before, after = self._before, self._after
        return Need(
            resident=_beyond(after, before),
            working=_beyond(self._peaks.get("running", after), after),
            loading=_beyond(self._peaks.get("loading", after), before),
        )

    def _enter(self, phase: str | None) -> None:
        self._note()
        with self._lock:
            self._phase = phase

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._note()

    def _note(self) -> None:
        now = self._read()
        with self._lock:
            if self._phase:
                self._peaks[self._phase] = self._peaks.get(self._phase, now).most(now)

    def _read(self) -> Memory:
        on_gpu = 0
        if self._gpu:
            with contextlib.suppress(BackendError):  # whatever is wrong, the engine's own calls tell
                on_gpu = self._gpu.used()
        return Memory(resident(), on_gpu)

    def _settle(self) -> None:
        """What was freed is nobody's."""
        release()
        if self._gpu:
            with contextlib.suppress(BackendError):
                self._gpu.trim()


class Watched:
    """An engine whose runs are watched."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self.name = engine.name
        self.least = engine.least
        self.cache = engine.cache
        self._engine = engine
        self._watch = watch

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        with self._watch.running():
            return self._engine.run(inputs, outputs)

    def keep(self, inputs: Inputs) -> Mapping[str, Array]:
        """See `Engine.keep`."""
        with self._watch.running():
            return self._engine.keep(inputs)

    def bind(self) -> Binding:
        """See `Engine.bind`."""
        return _WatchedBinding(self._engine.bind(), self._watch)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


class _WatchedBinding:
    def __init__(self, binding: Binding, watch: Watch) -> None:
        self.set, self.carry, self.share = binding.set, binding.carry, binding.share
        self.get, self.close = binding.get, binding.close
        self._run = binding.run
        self._watch = watch

    def run(self) -> None:
        with self._watch.running():
            self._run()


def _beyond(some: Memory, other: Memory) -> Memory:
    """What is in one beyond the other."""
    return Memory(max(0, some.host - other.host), max(0, some.device - other.device))
