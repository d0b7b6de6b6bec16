"""ONNX Runtime on CUDA: inputs are read where they are, and outputs stay on the GPU for those who ask."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from mova_runtime.engines.cuda.array import DeviceArray, contiguous, place
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.engines.memory import Memory
from mova_runtime.engines.ort_binding import DTYPES, OrtBinding, failed, opened
from mova_runtime.engines.protocol import Array, Cache, Inputs
from mova_runtime.engines.release import release
from mova_runtime.errors import BackendError


class OrtCudaEngine:
    """A session of the CUDA provider.

    Its stream is not ours, so each waits for the other: what is copied for a run is there before the run begins, and
    a run is done when it returns.
    """

    cache: Cache = "growing"

    def __init__(self, session: Any, name: str, size: int, device: Device, where: str = "cuda") -> None:
        """`size`: bytes of its files, which were copied to the device; `where` it is, as ONNX Runtime names it."""
        self.name = name
        self.least = Memory(0, size)
        self._bindings: weakref.WeakSet[OrtBinding] = weakref.WeakSet()
        self._session = session
        self._device = device
        self._where = where
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        return {name: value.numpy() for name, value in self._run(inputs, list(outputs or self._outputs), "cpu").items()}

    def keep(self, inputs: Inputs) -> dict[str, DeviceArray]:
        """See `Engine.keep`."""
        # Copied, which takes a fraction of the run: a session's memory must not outlive the session, features may.
        values = self._run(inputs, self._outputs, self._where)
        kept = {name: self._view(value).copy() for name, value in values.items()}
        self._device.synchronise()  # the values live until here
        return kept

    def bind(self) -> OrtBinding:
        """See `Engine.bind`."""
        binding = OrtBinding(opened(self.name, self._session), self.name, self._outputs, self._where)
        self._bindings.add(binding)
        return binding

    def close(self) -> None:
        """See `Engine.close`."""
        if self._session is None:
            return
        self._session = None
        for binding in tuple(self._bindings):
            binding.close()
        release()
        with contextlib.suppress(BackendError):  # a failure here has been told by the run that it comes from
            self._device.trim()

    def _run(self, inputs: Inputs, names: Sequence[str], where: str) -> dict[str, Any]:
        """ONNX Runtime's values of outputs, left `where` it is said; done when this returns."""
        session = opened(self.name, self._session)
        try:
            binding = session.io_binding()
            read = [self._bind(binding, name, value) for name, value in inputs.items()]
            for name in names:
                binding.bind_output(name, where)
            self._device.synchronise()
            binding.synchronize_inputs()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as error:  # its exceptions share no base but Exception
            raise failed(self.name, error) from error
        del read  # until now
        return dict(zip(names, binding.get_outputs(), strict=True))

    def _bind(self, binding: Any, name: str, value: Array | Sequence[Array]) -> Array:
        """Bind an input; what must live until the run is done."""
        if isinstance(value, Sequence | DeviceArray):
            there = place(self._device, value)
            binding.bind_input(name, self._where, 0, there.dtype.type, there.shape, there.pointer)
            return there
        here = contiguous(value)
        binding.bind_cpu_input(name, here)
        return here

    def _view(self, value: Any) -> DeviceArray:
        return DeviceArray(self._device, tuple(value.shape()), DTYPES[value.data_type()], value.data_ptr(), owner=value)
