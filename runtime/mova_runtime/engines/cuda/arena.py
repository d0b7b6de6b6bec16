"""Memory for activations: one allocation for all engines, as large as the largest needs.

Engines run one after another on one stream, and none leaves anything in it for its next run.
"""

from __future__ import annotations

import threading
from functools import cache

from mova_runtime.engines.cuda.memory import Buffer, Device


class Arena:
    """Shared by every engine on a device; who runs, loads or closes an engine holds `lock`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.lock = threading.RLock()
        self.generation = 0
        """Changes when the memory moves: who keeps the address must be told, and captured graphs hold the old one."""
        self._needs: list[int] = []
        self._buffer: Buffer | None = None

    @property
    def pointer(self) -> int:
        """Where it begins; 0 while no engine needs any."""
        return self._buffer.pointer if self._buffer else 0

    @property
    def bytes(self) -> int:
        """Its size."""
        return self._buffer.bytes if self._buffer else 0

    def join(self, need: int) -> None:
        """An engine is loaded that needs so many bytes.

        Raises:
            BackendError: there is no room; those who were there before keep what they had, if it can be had again.
        """
        self._needs.append(need)
        try:
            self._resize()
        except BaseException:
            self.leave(need)
            raise

    def leave(self, need: int) -> None:
        """Such an engine is closed; what only it needed goes back."""
        self._needs.remove(need)
        self._resize()

    def _resize(self) -> None:
        wanted = max(self._needs, default=0)
        if wanted == self.bytes:
            return
        self.device.synchronise()  # nobody computes in it any more
        self._buffer = None  # before the new one is asked for: both need not fit
        self.generation += 1
        if wanted:
            self._buffer = Buffer(self.device, wanted)


@cache
def arena(device: Device) -> Arena:
    """The one arena of a device."""
    return Arena(device)
