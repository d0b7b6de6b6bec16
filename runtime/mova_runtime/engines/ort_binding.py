"""ONNX Runtime's inputs and outputs, bound once and run again and again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mova_runtime.engines.failure import failure
from mova_runtime.engines.release import release
from mova_runtime.errors import BackendError

DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
"""By ONNX Runtime's name; graphs exchange no others."""


class OrtBinding:
    """A session's inputs and outputs as values that ONNX Runtime owns."""

    def __init__(
        self,
        session: Any,
        name: str,
        outputs: Sequence[str],
        device: str = "cpu",
        tidy: Callable[[], None] = release,
    ) -> None:
        """Bind nothing yet.

        Args:
            session: ONNX Runtime's.
            name: of the component, for messages.
            outputs: names of all.
            device: where outputs stay, as ONNX Runtime names it.
            tidy: called when what was bound has been let go of.
        """
        self._session = session
        self._device = device
        self._name = name
        self._binding = session.io_binding()
        self._outputs = list(outputs)
        self._made = list(outputs)
        for output in outputs:  # they are given back in the order in which they are bound first
            self._binding.bind_output(output, device)
        self._values: dict[str, Any] = {}
        self._held: dict[str, np.ndarray] = {}
        # A sequence of runs ends when its caller forgets the binding, too.
        self._let_go = weakref.finalize(self, _let_go, self._binding, self._values, self._held, tidy)
        self._let_go.atexit = False

    def set(self, name: str, array: np.ndarray) -> None:
        """See `Binding.set`."""
        self._held[name] = array
        self._binding.bind_cpu_input(name, array)

    def carry(self, output: str, name: str) -> None:
        """See `Binding.carry`."""
        self._binding.bind_ortvalue_input(name, self._values[output])

    def share(self, output: str, name: str, array: np.ndarray) -> None:
        """See `Binding.share`."""
        raise BackendError(f"ort: {self._name!r}: {output!r} is not written where {name!r} is: its cache grows")

    def run(self) -> None:
        """See `Binding.run`."""
        session = opened(self._name, self._session)
        # Bound again each time: an output's shape grows with the cache, and a value being read can't be written.
        for output in self._made:
            self._binding.bind_output(output, self._device)
        try:
            self._binding.synchronize_inputs()
            session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except Exception as error:
            raise failed(self._name, error) from error
        self._values.clear()
        self._values.update(zip(self._outputs, self._binding.get_outputs(), strict=True))

    def get(self, output: str) -> np.ndarray:
        """See `Binding.get`."""
        array: np.ndarray = self._values[output].numpy()
        return array

    def close(self) -> None:
        """See `Binding.close`."""
        self._session = None
        self._let_go()


def _let_go(binding: Any, values: dict[str, Any], held: dict[str, np.ndarray], tidy: Callable[[], None]) -> None:
    binding.clear_binding_inputs()
    binding.clear_binding_outputs()
    values.clear()
    held.clear()
    tidy()


def failed(name: str, error: Exception) -> BackendError:
    """What to raise when a run failed."""
    return failure(f"ort: {name!r} failed", error)


def opened(name: str, session: Any) -> Any:
    """A session that is there.

    Raises:
        BackendError: its engine was closed.
    """
    if session is None:
        raise BackendError(f"ort: {name!r} failed: it was closed")
    return session
