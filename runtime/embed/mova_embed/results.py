"""What a call found, in memory that C reads: made when it is asked for, and there until the result is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mova_embed.status import RefusedError, Status

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.engines.protocol import Array

TEXTS = ("text", "json", "experts")
"""By the number that the C side asks for."""

_DTYPES = {"float32": 1, "int64": 2}
"""As `mova_dtype`."""


class Result:
    """Texts, tokens and tensors of one call."""

    def __init__(
        self, texts: Mapping[str, str], tokens: Sequence[int] | None = None, tensors: Mapping[str, Array] | None = None
    ) -> None:
        """`texts` by `TEXTS`; `tensors` on the host are the result's own, and writable."""
        self._texts = texts
        self._tokens = tokens
        self._tensors = {} if tensors is None else tensors
        self._memory: dict[str, Any] = {}

    def text(self, ffi: Any, kind: str) -> tuple[Any, int]:
        """A text's pointer and bytes, without the zero at its end.

        Raises:
            RefusedError: the result has no such text.
        """
        if kind not in self._texts:
            raise RefusedError(Status.INVALID_ARGUMENT, f"this result has no {kind}; it has {self._has()}")
        encoded = self._texts[kind].encode("utf-8", "replace")
        return self._stays(kind, lambda: ffi.new("char[]", encoded)), len(encoded)

    def tokens(self, ffi: Any) -> tuple[Any, int]:
        """The tokens' pointer, NULL where there are none, and their number.

        Raises:
            RefusedError: the result has no tokens.
        """
        found = self._tokens
        if found is None:
            raise RefusedError(Status.INVALID_ARGUMENT, f"this result has no tokens; it has {self._has()}")
        if not found:
            return ffi.NULL, 0
        return self._stays("tokens", lambda: ffi.new("int64_t[]", list(found))), len(found)

    def fill(self, ffi: Any, name: str, tensor: Any) -> None:
        """Write a tensor's description to a `mova_tensor`.

        Raises:
            RefusedError: the result has no such tensor.
        """
        array = self._on_host(name)
        tensor.data = ffi.cast("void *", array.__array_interface__["data"][0])
        tensor.rank, tensor.bytes, tensor.dtype = array.ndim, array.nbytes, _DTYPES[array.dtype.name]
        for axis, length in enumerate(array.shape):
            tensor.shape[axis] = length

    def tensor(self, name: str) -> Array:
        """A tensor where it was computed.

        Raises:
            RefusedError: the result has no such tensor.
        """
        if name not in self._tensors:
            raise RefusedError(Status.INVALID_ARGUMENT, f"this result has no tensor {name!r}; it has {self._has()}")
        return self._tensors[name]

    def _on_host(self, name: str) -> np.ndarray:
        import numpy as np  # noqa: PLC0415  # slow to import

        from mova_runtime.engines.host import on_host  # noqa: PLC0415  # imports numpy

        array = self.tensor(name)
        found: np.ndarray = self._stays(f"tensor {name}", lambda: np.ascontiguousarray(on_host(array)))
        return found

    def _stays(self, what: str, make: Any) -> Any:
        """What was made first, whichever thread asked: a pointer to it was given out."""
        if what not in self._memory:
            return self._memory.setdefault(what, make())
        return self._memory[what]

    def _has(self) -> str:
        named = [*self._texts, *(["tokens"] if self._tokens is not None else []), *map(repr, self._tensors)]
        return ", ".join(named)
