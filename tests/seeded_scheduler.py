"""Threads of which one runs at a time: a random number decides which, so that a seed gives the same interleaving again.

A thread may be stopped wherever it takes or gives back a lock, waits or notifies, and where a test calls `switch`. Time
stands still while anybody can run; a wait with a time-out ends by it when nobody can, or now and then before.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

EARLY = 0.01
"""How often the next time-out comes although somebody can run."""

MAX_SWITCHES = 100_000
"""Threads that come no nearer to their ends would not stop."""


class Abandoned(BaseException):
    """Ends a thread of a run that has failed."""


class Cancelled(BaseException):
    """What a thread may be stopped by where it waits, like Ctrl-C."""


class Worker:
    """One of the threads. lock: that it wants; condition: that it waits for until it is notified."""

    def __init__(self, scheduler: Scheduler, work: Callable[[], object], number: int) -> None:
        self.turn = threading.Semaphore(0)
        self.lock: Lock | None = None
        self.condition: Condition | None = None
        self.deadline: float | None = None
        self.has_ended = False
        self._scheduler, self._work = scheduler, work
        self.thread = threading.Thread(target=self._run, name=f"worker {number}", daemon=True)

    def can_run(self) -> bool:
        if self.has_ended:
            return False
        is_due = self.deadline is not None and self.deadline <= self._scheduler.now
        if self.condition and not is_due:
            return False
        return self.lock is None or self.lock.owner is None

    def _run(self) -> None:
        self.turn.acquire()
        try:
            if not self._scheduler.failure:
                self._work()
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001
            self._scheduler.fail(error)
        finally:
            self._scheduler.end(self)


class Scheduler:
    """Runs workers in turns. cancels: how likely a wait ends in Cancelled."""

    def __init__(self, seed: int, cancels: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.failure: BaseException | None = None
        self.cancels = cancels
        self.on_release: Callable[[], None] = lambda: None
        self._seed = seed
        self._switches = 0
        self._workers: list[Worker] = []
        self._current: Worker | None = None
        self._all_ended = threading.Event()

    def spawn(self, work: Callable[[], object]) -> None:
        self._workers.append(Worker(self, work, len(self._workers)))

    def run(self) -> None:
        """Until all have ended; what any of them raised is raised here."""
        for worker in self._workers:
            worker.thread.start()
        self._current = self.random.choice(self._workers)
        self._current.turn.release()
        assert self._all_ended.wait(60), f"seed {self._seed}: a thread hangs outside of the scheduler"
        for worker in self._workers:
            worker.thread.join()
        self._current = None
        if self.failure:
            raise AssertionError(f"seed {self._seed}: {self.failure!r}") from self.failure

    def monotonic(self) -> float:
        return self.now

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error

    @property
    def current(self) -> Worker | None:
        """Who runs; None before and after."""
        return self._current

    def switch(self) -> None:
        """Let another run, or go on."""
        me = self._current
        if me is None:
            return  # the test itself, before or after
        self._switches += 1
        if self._switches > MAX_SWITCHES:
            self.fail(AssertionError("the threads come to no end"))
        following = self._next()
        if following is not me:
            self._current = following
            following.turn.release()
            me.turn.acquire()
        if self.failure:
            raise Abandoned
        me.condition = me.lock = None

    def maybe_cancel(self) -> None:
        if self.cancels and self._current and self.random.random() < self.cancels:
            raise Cancelled

    def end(self, worker: Worker) -> None:
        worker.has_ended = True
        if all(other.has_ended for other in self._workers):
            self._all_ended.set()
        else:
            self._current = self._next()
            self._current.turn.release()

    def wait_for(self, lock: Lock, condition: Condition | None = None, timeout: float | None = None) -> Worker | None:
        """Stop until the lock is free and the condition was notified, or time is up."""
        me = self._current
        if me:
            me.lock, me.condition = lock, condition
            me.deadline = None if timeout is None else self.now + timeout
            self.switch()
            me.deadline = None
        return me

    def _next(self) -> Worker:
        alive = [worker for worker in self._workers if not worker.has_ended]
        if self.failure:
            return alive[0]
        able = [worker for worker in alive if worker.can_run()]
        deadlines = [worker.deadline for worker in alive if worker.condition and worker.deadline is not None]
        if deadlines and (not able or self.random.random() < EARLY):
            self.now = max(self.now, min(deadlines))
            able = [worker for worker in alive if worker.can_run()]
        if self.failure or not able:
            self.fail(AssertionError(f"deadlock: {len(alive)} threads wait for each other"))
            return alive[0]
        return self.random.choice(able)


class Lock:
    """Not re-entrant."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.owner: object = None
        self._scheduler = scheduler

    def acquire(self) -> None:
        me = self._scheduler._current
        assert self.owner is None or self.owner is not me, "taken again by who has it"
        self._scheduler.wait_for(self)
        assert self.owner is None
        self.owner = me or self

    def release(self) -> None:
        if not self._scheduler.failure:
            assert self.owner is (self._scheduler._current or self), "given back by who does not have it"
            try:
                self._scheduler.on_release()
            except AssertionError as error:  # told at once: what unwinds from here may fail in its turn
                self._scheduler.fail(error)
        self.owner = None


class Condition:
    """Stands in for threading.Condition."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._lock = Lock(scheduler)
        self._waiting: list[Worker] = []

    def __enter__(self) -> bool:
        self._lock.acquire()
        return True

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if not self._scheduler.failure:
            self._scheduler.switch()

    def wait(self, timeout: float | None = None) -> bool:
        scheduler, me = self._scheduler, self._scheduler._current
        assert me is not None
        assert self._lock.owner is me, "waits without the lock"
        self._lock.release()
        self._waiting.append(me)
        scheduler.wait_for(self._lock, self, timeout)
        self._lock.owner = me
        was_notified = me not in self._waiting
        if not was_notified:
            self._waiting.remove(me)
        scheduler.maybe_cancel()
        return was_notified

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        assert timeout is None
        while not predicate():
            self.wait()
        return True

    def is_waiting(self, worker: Worker) -> bool:
        """Whether it waits and was not notified."""
        return worker in self._waiting

    def notify_all(self) -> None:
        assert self._scheduler.failure or self._lock.owner is (self._scheduler._current or self._lock)
        for worker in self._waiting:
            worker.condition = None
            worker.deadline = None
        self._waiting.clear()

    def notify(self) -> None:
        assert self._lock.owner is (self._scheduler._current or self._lock)
        if self._waiting:
            self._waiting.pop(0).condition = None
