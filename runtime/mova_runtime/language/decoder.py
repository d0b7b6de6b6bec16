"""Decoding: embeddings in, tokens out, one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from time import perf_counter
from typing import Literal

import numpy as np

from mova_runtime.bundle.manifest import Language
from mova_runtime.engines.protocol import Engine
from mova_runtime.language.cache import Cache, cache_of
from mova_runtime.language.generation import Generation
from mova_runtime.language.kept import Memo
from mova_runtime.language.passage import Passage, embed, passage
from mova_runtime.language.prompt import Prompt
from mova_runtime.language.sampling import Sampler

PREFILL_CHUNK = 512
"""The prompt is read so many tokens at a time: attention then scores few tokens against those after them, and its
scores take less memory. Measured on 1,390 tokens: 1.1 to 1.4 times as fast as reading all at once."""

Finish = Literal["stop", "length", "context", "settled", "cancelled"]
"""Why an answer ended: the model said so, or a stop sequence came; as many tokens as were allowed; no room left; the
router's outcome can no longer change; the caller does not want more."""


class Decoder:
    """One answer of the language model. The cache stays with the engine; only logits come to the host."""

    def __init__(self, engine: Engine, embeddings: np.ndarray, language: Language, memo: Memo | None = None) -> None:
        """`embeddings` [vocabulary, hidden], may be memory-mapped: only the rows of tokens that occur are read."""
        self._engine = engine
        self._embeddings = embeddings
        self._language = language
        self._memo = memo
        self.finish: Finish = "length"
        self.reused = 0
        """Tokens of the prompt that were not read again."""

    def generate(
        self, prompt: Prompt, images: Sequence[np.ndarray], wanted: Generation, stop: int
    ) -> Generator[int, None, None]:
        """The next token, again and again, the stop token included.

        Args:
            prompt: token ids around the images.
            images: visual tokens [tokens, hidden] float32 of each.
            wanted: how many tokens at most, but no more than the context has room for, and how they are chosen.
            stop: the id that ends the answer.

        Yields:
            Token ids; `finish` tells afterwards why they ended.
        """
        read = passage(prompt, images, self._embeddings)
        room = self._language.context - len(read)
        self.finish = "length" if wanted.max_new_tokens <= room else "context"
        most, memo = min(wanted.max_new_tokens, room), self._memo
        past = memo.past(read.marks) if memo else ()
        with contextlib.closing(self._engine.bind()) as binding:
            cache = cache_of(self._engine, binding, self._language, past, len(read) + most)
            self.reused = cache.length
            start, said = perf_counter(), []  # type: tuple[float, list[int]]
            try:
                for token in self._speak(cache, read, most, stop, wanted):
                    said.append(token)
                    yield token
            except GeneratorExit:  # its caller has heard enough
                self._remember(cache, read, said, perf_counter() - start)
                raise
            self._remember(cache, read, said, perf_counter() - start)

    def _speak(self, cache: Cache, read: Passage, most: int, stop: int, wanted: Generation) -> Iterator[int]:
        """At most so many tokens after what is read."""
        x, sampler = read.embeddings[None, cache.length :], Sampler(wanted.sampling)
        for remaining in range(most, 0, -1):
            for start in range(0, x.shape[1], PREFILL_CHUNK):
                if wanted.cancelled:
                    self.finish = "cancelled"
                    return
                cache.read(x[:, start : start + PREFILL_CHUNK])
            token = sampler.pick(cache.logits)
            if token == stop:
                self.finish = "stop"
            yield token
            if token == stop or remaining == 1:
                return
            x = embed((token,), self._embeddings)[None]

    def _remember(self, cache: Cache, read: Passage, said: Sequence[int], seconds: float) -> None:
        """Keep the prompt's beginning for later ones, unless it is there."""
        memo = self._memo
        if memo is None or cache.length < len(read):  # nobody waited for its end
            return
        marks = (*read.marks, *said)[: cache.length]
        if count := memo.wanted(marks):
            share = count / max(cache.length - self.reused, 1)
            memo.keep(marks[:count], cache.taken(count), seconds * share)
