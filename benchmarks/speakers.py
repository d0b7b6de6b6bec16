"""Who is compared as a language model alone: a bundle's, decoded as requests decode, and the same weights in torch.

Each has a process of its own, see `stand_by.py`. Both read the same ids and pick the likeliest token. torch is imported
where torch is measured, and nowhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mova_export.bench import memory
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Precision
from mova_runtime.engines.choice import choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.language.decoder import Decoder
from mova_runtime.language.generation import Generation
from mova_runtime.language.prompt import Prompt
from mova_runtime.trace import Trace

MOST = 64
"""Tokens that may be asked for after a prompt."""

_NEVER = -1
"""A stop id that no token has."""

Found = dict[str, Any]


def prompt_ids(vocabulary: int, tokens: int, seed: int = 0) -> list[int]:
    """The same prompt for everybody."""
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocabulary, tokens)]


@dataclass
class Speaker:
    """What both have: a vocabulary and threads; tokens are asked for step by step."""

    vocabulary: int
    threads: int
    _tokens: Iterator[int] = field(default_factory=lambda: iter(()), init=False)

    def load(self) -> Found:
        """Get ready; `seconds` it took, bytes at the `peak` and what is `held` after a prompt was read."""
        raise NotImplementedError

    def forget(self) -> None:
        """Let go of the last prompt, if there was one."""
        if isinstance(self._tokens, Generator):
            self._tokens.close()

    def begin(self, tokens: int, seed: int = 0, cache: str = "") -> int:
        """Read a prompt of so many tokens; the token that follows it."""
        self._tokens = self._speak(prompt_ids(self.vocabulary, tokens, seed), cache)
        return next(self._tokens)

    def go_on(self, count: int) -> list[int]:
        """So many more tokens, `MOST` altogether."""
        return list(itertools.islice(self._tokens, count))

    def _speak(self, ids: list[int], cache: str) -> Iterator[int]:
        raise NotImplementedError

    def _held(self, before: memory.Level, tokens: int = 32) -> Found:
        """Memory since then, once a prompt was read and let go of."""
        self.begin(tokens)
        self.go_on(1)
        self.forget()
        peak = memory.peak(None).beyond(before).host
        return {"held": memory.now(None).beyond(before).host, "peak": peak}


@dataclass
class Ours(Speaker):
    """A bundle's language model in one precision, in ONNX Runtime on the processor."""

    bundle: Path
    precision: Precision

    def load(self) -> Found:
        """See `Speaker.load`; `cache`: whether it grows or is shared."""
        import onnxruntime  # noqa: F401  # is no part of a model's memory

        opened = Bundle.open(self.bundle)
        loader = Loader(opened, choose_in_order(opened, "ort", self.precision), self.threads)
        before = memory.now(None)
        memory.forget_peak()
        start = perf_counter()
        engine = loader.load(LANGUAGE_MODEL, Trace(), final=True).engine
        file = opened.manifest.language.embeddings
        assert file, "the bundle has the language model"
        table = load_array(opened.checked_path(file), mapped=True)
        self._decoder = Decoder(engine, table, opened.manifest.language)
        return {"seconds": perf_counter() - start, "cache": engine.cache, **self._held(before)}

    def _speak(self, ids: list[int], cache: str) -> Iterator[int]:
        return self._decoder.generate(Prompt((tuple(ids),)), [], Generation(MOST), _NEVER)


@dataclass
class Theirs(Speaker):
    """transformers' Llama in eager torch, bfloat16.

    cache: "dynamic" grows by a copy with each token, "static" has room for all of them from the start.
    """

    model: str
    seed: int

    def load(self) -> Found:
        """See `Speaker.load`; making random weights is nobody's load."""
        import torch
        from llamas import RandomLlama

        torch.set_num_threads(self.threads)
        before = memory.now(None)
        start = perf_counter()
        llama: Any = RandomLlama(self.model, self.seed).load(LANGUAGE_MODEL)
        for parameter in llama.parameters():  # not the whole module: positions stay float32
            parameter.data = parameter.data.to(torch.bfloat16)
        llama.tie_weights()
        self._llama = llama
        memory.now(None)
        memory.forget_peak()
        return {"seconds": perf_counter() - start, **self._held(before)}

    def _speak(self, ids: list[int], cache: str) -> Iterator[int]:
        import torch
        from transformers import DynamicCache, StaticCache

        length = len(ids) + MOST
        past = StaticCache(self._llama.config, length) if cache == "static" else DynamicCache()
        x, at = torch.tensor([ids]), 0
        for _ in range(MOST):
            # Entered for each step: inference mode must not leak out of a suspended generator.
            with torch.inference_mode():
                position = torch.arange(at, at + x.shape[1])
                logits = self._llama(
                    x, past_key_values=past, cache_position=position, use_cache=True, logits_to_keep=1
                ).logits
                token = int(logits[0, -1].argmax())
                x, at = torch.tensor([[token]]), at + len(position)
            yield token
