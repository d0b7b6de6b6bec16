"""A language model on ONNX Runtime whose keys and values stay in one buffer, which is its caller's.

The graph's inputs are `inputs_embeds` [1, new, hidden] float32; `total_sequence_length` [] int32, the tokens that will
have been read after the run, and `seqlens_k` [1] int32, one less; and of every layer `past_key_values.….key` and
`.value` [1, heads, capacity, width] float32. Of these it reads what was read before, writes what is new behind it,
and leaves the rest alone. Its outputs are `logits` [1, 1, V] and `present.…`, the same buffers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mova_runtime.engines.host import arrays
from mova_runtime.engines.ort import OrtEngine, shrink
from mova_runtime.engines.ort_binding import OrtBinding, opened
from mova_runtime.engines.protocol import Cache, Inputs
from mova_runtime.errors import BackendError

_PAST, _PRESENT = "past_key_values.", "present."
_EMBEDDINGS, _LAST, _TOTAL = "inputs_embeds", "seqlens_k", "total_sequence_length"


class InPlaceEngine(OrtEngine):
    """A session of such a graph, or of a part of one."""

    cache: Cache = "shared"

    def __init__(self, session: Any, name: str, size: int) -> None:
        """`size`: bytes of its files."""
        super().__init__(session, name, size)
        self._inputs = [given.name for given in session.get_inputs()]

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`: inputs and outputs are those of a graph whose cache grows.

        Buffers are made that are as long as the cache is after the run.

        Raises:
            BackendError: more than one row of a batch, or one with gaps; and as `Engine.run`.
        """
        opened(self.name, self._session)
        given = self._in_place(arrays(inputs))
        buffers = {name.replace(_PAST, _PRESENT): given[name] for name in self._inputs if name.startswith(_PAST)}
        with contextlib.closing(self.bind()) as binding:
            for name in self._inputs:
                if name.startswith(_PAST):
                    binding.share(name.replace(_PAST, _PRESENT), name, given[name])
                else:
                    binding.set(name, given[name])
            binding.run()
            names = outputs or self._outputs
            return {name: buffers[name] if name in buffers else np.array(binding.get(name)) for name in names}

    def bind(self) -> InPlaceBinding:
        """See `Engine.bind`."""
        session = opened(self.name, self._session)
        binding = InPlaceBinding(session, self.name, self._outputs, tidy=lambda: shrink(session))
        self._bindings.add(binding)
        return binding

    def _in_place(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The session's inputs, of those of a graph whose cache grows."""
        if missing := sorted({"attention_mask", "position_ids"} - {*given}):
            raise self._refused(f"an input is missing, {', '.join(missing)}")
        mask, positions = given["attention_mask"], given["position_ids"]
        past, total = mask.shape[-1] - positions.shape[-1], mask.shape[-1]
        if len(mask) != 1 or len(positions) != 1:
            raise self._refused("it takes one prompt at a time")
        if not mask.all() or not np.array_equal(positions, np.arange(past, total)[None]):
            raise self._refused("it reads all of what is before a token, and nothing else")
        found = {
            **given,
            _LAST: np.array([total - 1], np.int32),
            _TOTAL: np.array(total, np.int32),
        }
        for name in self._inputs:
            if name not in found:
                raise self._refused(f"an input is missing, {name}")
            if name.startswith(_PAST):
                found[name] = self._longer(name, found[name], past, total)
        return found

    def _longer(self, name: str, cache: np.ndarray, past: int, total: int) -> np.ndarray:
        """A copy of a layer's keys or values with room for what is new."""
        if cache.ndim != 4 or cache.shape[2] != past:
            raise self._refused(f"{name} is {list(cache.shape)}, and {past} tokens were read before")
        buffer = np.zeros((*cache.shape[:2], total, cache.shape[3]), cache.dtype)
        buffer[:, :, :past] = cache
        return buffer

    def _refused(self, why: str) -> BackendError:
        return BackendError(f"ort: {self.name!r} failed: {why}")


class InPlaceBinding(OrtBinding):
    """Like any other, with outputs that are written where inputs are read."""

    def __init__(self, session: Any, name: str, outputs: Sequence[str], tidy: Callable[[], None]) -> None:
        """See `OrtBinding`."""
        super().__init__(session, name, outputs, tidy=tidy)
        self._capacities: dict[str, int] = {}

    def share(self, output: str, name: str, array: np.ndarray) -> None:
        """See `Binding.share`."""
        opened(self._name, self._session)
        # Of another array ONNX Runtime would make a copy, and write into that.
        if array.ndim != 4 or not (array.flags.c_contiguous and array.flags.writeable):
            raise BackendError(f"ort: {self._name!r}: the array for {output!r} can't be written where it is")
        import onnxruntime as ort  # noqa: PLC0415  # a session is there

        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._held[name] = self._held[output] = array
        self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output(output, value)
        self._made = [made for made in self._made if made != output]
        self._capacities[name] = array.shape[2]

    def run(self) -> None:
        """See `Binding.run`."""
        opened(self._name, self._session)
        self._check()
        super().run()

    def get(self, output: str) -> np.ndarray:
        """See `Binding.get`."""
        return self._held[output] if output in self._held else super().get(output)

    def _check(self) -> None:
        """See that what is new fits: ONNX Runtime 1.23 would write beyond a buffer's end."""
        total, last, new = (self._held.get(name) for name in (_TOTAL, _LAST, _EMBEDDINGS))
        if total is None or last is None:
            return  # that an input is missing is told by the session
        count = int(total.flat[0]) if total.size == 1 else -1
        first = count - (new.shape[1] if new is not None else 1)
        if last.size != 1 or last.flat[0] != count - 1 or not 0 <= first < count <= self._capacity:
            raise BackendError(
                f"ort: {self._name!r} failed: {_TOTAL} {total.tolist()} and {_LAST} {last.tolist()} do not fit each "
                f"other, what is new, or buffers of {self._capacity} tokens"
            )

    @property
    def _capacity(self) -> int:
        """Tokens that the shortest buffer has room for."""
        return min(self._capacities.values(), default=0)
