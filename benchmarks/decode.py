"""The routing prompt to tokens: prefill, and greedy decoding after it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from encode import OURS, TORCH, Case
from subject import QUESTION, Subject
from transformers import DynamicCache

from mova_export.bench.timing import Contender
from mova_runtime.language.decoder import Decoder
from mova_runtime.language.generation import Generation

NEW_TOKENS = 64
ROUTING_TOKENS = 16
_NEVER = -1
"""A stop id that no token has."""


def decode_cases(subject: Subject) -> Iterator[Case]:
    """Prefill (to the first token), and the tokens after the first; both get the same embeddings."""
    base, text, _ = subject.features
    encoder, model = subject.model.encoder, subject.model
    tokens, _gates = encoder.fuse(base, text, [], subject.trace)
    visual = encoder.pool_for_routing(tokens[0])
    prompt = model.prompts.routing(QUESTION)
    llama = subject.modules["llm"]

    def ours() -> Iterator[int]:
        with subject.pool.lease("llm", subject.trace) as engine:
            decoder = Decoder(engine, model.embeddings, model.manifest.language)
            yield from decoder.generate(prompt, [visual], Generation(NEW_TOKENS), _NEVER)

    def theirs() -> Iterator[int]:
        table = llama.get_input_embeddings()
        with torch.inference_mode():
            before, after = (table(torch.tensor(ids)) for ids in (prompt.before, prompt.after))
            x = torch.cat((before, torch.from_numpy(visual), after))[None]
        cache = DynamicCache()
        for _ in range(NEW_TOKENS):
            # Entered for each step: inference mode must not leak out of a suspended generator.
            with torch.inference_mode():
                logits = llama(inputs_embeds=x, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
                token = int(logits[0, -1].argmax())
                x = table(torch.tensor([[token]]))
            yield token

    yield (
        f"prefill, {prompt.text_tokens + len(visual)} tokens",
        {name: Contender(_first, prepare) for name, prepare in ((OURS, ours), (TORCH, theirs))},
    )
    yield (
        f"prompt and {ROUTING_TOKENS} tokens",
        {name: Contender(_routing, prepare) for name, prepare in ((OURS, ours), (TORCH, theirs))},
    )
    yield (
        f"decode, {NEW_TOKENS - 1} tokens",
        {name: Contender(_rest, lambda p=prepare: _started(p())) for name, prepare in ((OURS, ours), (TORCH, theirs))},
    )


def _first(tokens: Iterator[int]) -> dict[str, np.ndarray]:
    return {"tokens": np.array([next(tokens)])}


def _routing(tokens: Iterator[int]) -> dict[str, np.ndarray]:
    return {"tokens": np.array(list(itertools.islice(tokens, ROUTING_TOKENS)))}


def _started(tokens: Iterator[int]) -> Iterator[int]:
    next(tokens)
    return tokens


def _rest(tokens: Iterator[int]) -> dict[str, np.ndarray]:
    return {"tokens": np.array(list(tokens))}
