"""The keys and values of what the language model has read, in either form that an engine has them.

Growing: every run returns the cache with what it read behind it, and the next run is given that. It is what any
backend can do; a step of decoding writes the whole cache again. Shared: an engine that attends inside one buffer
writes what it read behind what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from mova_runtime.bundle.manifest import Language
from mova_runtime.engines.protocol import Binding, Engine

Past = Sequence[np.ndarray]
"""Keys and values [key/value heads, tokens, head dim] float32 of every layer: key, value, key, value and so on."""


class Cache(Protocol):
    """What one answer has read so far."""

    length: int
    """Tokens in it."""

    def read(self, x: np.ndarray) -> None:
        """Read embeddings [1, tokens, hidden] behind what is there."""

    @property
    def logits(self) -> np.ndarray:
        """[vocabulary] float32, of the token that follows all that was read."""

    def taken(self, tokens: int) -> list[np.ndarray]:
        """A copy of the first tokens' part."""


def cache_of(engine: Engine, binding: Binding, language: Language, past: Past, capacity: int) -> Cache:
    """A cache that begins with what was read before.

    Args:
        engine: of the language model.
        binding: of that engine; used by nobody else.
        language: its sizes.
        past: of the tokens that are not read again; may be empty.
        capacity: tokens that there will be at most.
    """
    if engine.cache == "shared":
        return SharedCache(binding, language, past, capacity)
    return GrowingCache(binding, language, past)


class GrowingCache:
    """The graph's outputs become its inputs."""

    def __init__(self, binding: Binding, language: Language, past: Past) -> None:
        self.length = past[0].shape[1] if past else 0
        self._binding = binding
        self._names = list(_names(language))
        none = np.empty((language.key_value_heads, 0, language.head_dim), np.float32)
        self._first: Past | None = past or [none] * len(self._names)

    def read(self, x: np.ndarray) -> None:
        """See `Cache.read`."""
        binding, total = self._binding, self.length + int(x.shape[1])
        for index, name in enumerate(self._names):
            if self._first is not None:
                binding.set(f"past_key_values.{name}", np.ascontiguousarray(self._first[index][None]))
            else:
                binding.carry(f"present.{name}", f"past_key_values.{name}")
        binding.set("inputs_embeds", x)
        binding.set("attention_mask", np.ones((1, total), np.int64))
        binding.set("position_ids", np.arange(self.length, total, dtype=np.int64)[None])
        binding.run()
        self.length, self._first = total, None

    @property
    def logits(self) -> np.ndarray:
        """See `Cache.logits`."""
        found: np.ndarray = self._binding.get("logits")[0, -1]
        return found

    def taken(self, tokens: int) -> list[np.ndarray]:
        """See `Cache.taken`."""
        return [self._binding.get(f"present.{name}")[0, :, :tokens].copy() for name in self._names]


class SharedCache:
    """One buffer a layer for keys, one for values, as long as the answer can become.

    Memory that no token has reached is not touched, so the system does not give it.
    """

    def __init__(self, binding: Binding, language: Language, past: Past, capacity: int) -> None:
        self.length = past[0].shape[1] if past else 0
        self._binding = binding
        self._capacity = capacity
        self._buffers = []
        for index, name in enumerate(_names(language)):
            buffer = np.zeros((1, language.key_value_heads, capacity, language.head_dim), np.float32)
            if past:
                buffer[0, :, : self.length] = past[index]
            binding.share(f"present.{name}", f"past_key_values.{name}", buffer)
            self._buffers.append(buffer)

    def read(self, x: np.ndarray) -> None:
        """See `Cache.read`."""
        total = self.length + int(x.shape[1])
        assert total <= self._capacity, "the decoder sees to it"
        self._binding.set("inputs_embeds", x)
        self._binding.set("seqlens_k", np.array([total - 1], np.int32))
        self._binding.set("total_sequence_length", np.array(total, np.int32))
        self._binding.run()
        self.length = total

    @property
    def logits(self) -> np.ndarray:
        """See `Cache.logits`."""
        found: np.ndarray = self._binding.get("logits")[0, -1]
        return found

    def taken(self, tokens: int) -> list[np.ndarray]:
        """See `Cache.taken`."""
        return [buffer[0, :, :tokens].copy() for buffer in self._buffers]


def _names(language: Language) -> Iterator[str]:
    for layer in range(language.layers):
        for part in ("key", "value"):
            yield f"{layer}.{part}"
