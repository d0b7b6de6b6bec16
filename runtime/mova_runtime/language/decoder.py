"""Greedy decoding: embeddings in, tokens out, one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np

from mova_runtime.bundle.manifest import Language
from mova_runtime.engines.protocol import Binding, Engine
from mova_runtime.errors import BundleError
from mova_runtime.language.prompt import Prompt

PREFILL_CHUNK = 512
"""The prompt is read so many tokens at a time: attention then scores few tokens against those after them, and its
scores take less memory. Measured on 1,390 tokens: 1.1 to 1.4 times as fast as reading all at once."""

Finish = Literal["stop", "length", "context"]


class Decoder:
    """One answer of the language model. The cache stays with the engine; only logits come to the host."""

    def __init__(self, engine: Engine, embeddings: np.ndarray, language: Language) -> None:
        """`embeddings` [vocabulary, hidden], may be memory-mapped: only the rows of tokens that occur are read."""
        self._engine = engine
        self._embeddings = embeddings
        self._language = language
        self.finish: Finish = "length"

    def generate(self, prompt: Prompt, visual: np.ndarray, max_new_tokens: int, stop: int) -> Iterator[int]:
        """The most likely token, again and again, the stop token included.

        Args:
            prompt: token ids around the image.
            visual: [tokens, hidden] float32.
            max_new_tokens: at most so many, and no more than the context has room for.
            stop: the id that ends the answer.

        Yields:
            Token ids; `finish` tells afterwards why they ended.
        """
        x = np.concatenate((self._embed(prompt.before), visual, self._embed(prompt.after)))[None]
        room = self._language.context - x.shape[1]
        self.finish = "length" if max_new_tokens <= room else "context"
        with contextlib.closing(self._engine.bind()) as binding:
            yield from self._speak(binding, x, min(max_new_tokens, room), stop)

    def _speak(self, binding: Binding, x: np.ndarray, most: int, stop: int) -> Iterator[int]:
        """At most so many tokens after embeddings [1, tokens, hidden]."""
        past = 0
        for remaining in range(most, 0, -1):
            for start in range(0, x.shape[1], PREFILL_CHUNK):
                past = self._read(binding, x[:, start : start + PREFILL_CHUNK], past)
            token = int(binding.get("logits")[0, -1].argmax())
            if token == stop:
                self.finish = "stop"
            yield token
            if token == stop or remaining == 1:
                return
            x = self._embed((token,))[None]

    def _read(self, binding: Binding, x: np.ndarray, past: int) -> int:
        """Let the model read [1, tokens, hidden] after `past` others; how many it has read then."""
        language = self._language
        total = past + int(x.shape[1])
        empty = np.empty((1, language.key_value_heads, 0, language.head_dim), np.float32)
        for layer in range(language.layers):
            for part in ("key", "value"):
                if past:
                    binding.carry(f"present.{layer}.{part}", f"past_key_values.{layer}.{part}")
                else:
                    binding.set(f"past_key_values.{layer}.{part}", empty)
        binding.set("inputs_embeds", x)
        binding.set("attention_mask", np.ones((1, total), np.int64))
        binding.set("position_ids", np.arange(past, total, dtype=np.int64)[None])
        binding.run()
        return total

    def _embed(self, tokens: tuple[int, ...]) -> np.ndarray:
        if max(tokens, default=0) >= len(self._embeddings):
            raise BundleError(
                f"the tokenizer gave token {max(tokens)}, the language model knows {len(self._embeddings)}; "
                "the checkpoint's tokenizer and weights don't belong together"
            )
        rows: np.ndarray = self._embeddings[list(tokens)]
        return np.asarray(rows, np.float32)
