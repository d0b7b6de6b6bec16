"""Decoding against a language model of arithmetic, whose every token can be told beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from arithmetic_language import (
    EMBEDDINGS,
    HIDDEN,
    LANGUAGE,
    NEVER,
    PROMPT,
    VISUAL,
    VOCABULARY,
    ArithmeticEngine,
    foretold,
)
from mova_runtime.language.decoder import PREFILL_CHUNK, Decoder
from mova_runtime.language.generation import Generation
from mova_runtime.language.prompt import Prompt
from mova_runtime.language.sampling import Sampling

LENGTH = 9


@pytest.fixture(autouse=True, params=["growing", "shared"])
def form(request):
    """Of the cache."""
    global cache
    cache = request.param


def decoded(limit, stop=NEVER, context=64, prompt=PROMPT, visual=VISUAL):
    engine = ArithmeticEngine(cache)
    decoder = Decoder(engine, EMBEDDINGS, replace(LANGUAGE, context=context))
    return list(decoder.generate(prompt, [visual], Generation(limit), stop)), decoder.finish, engine.runs


def test_tokens_by_arithmetic():
    tokens, finish, runs = decoded(12)
    assert tokens == foretold(PROMPT, VISUAL, 12)
    assert len(set(tokens)) > 3, "a model that always says the same would prove little"
    assert finish == "length"
    assert runs == [LENGTH] + [1] * 11, "the prompt in one run, then a token a run, and none too many"


@pytest.mark.parametrize("length", [PREFILL_CHUNK - 1, PREFILL_CHUNK, PREFILL_CHUNK + 1, 2 * PREFILL_CHUNK + 7])
def test_a_long_prompt_is_read_in_chunks(length):
    numbers = np.arange(length - 5) % VOCABULARY
    visual = np.repeat(numbers.astype(np.float32)[:, None], HIDDEN, axis=1)
    tokens, _, runs = decoded(6, context=length + 10, visual=visual)
    assert tokens == foretold(PROMPT, visual, 6)
    assert sum(runs[:-5]) == length
    assert max(runs) <= PREFILL_CHUNK
    assert len(runs[:-5]) == -(-length // PREFILL_CHUNK)


def test_without_image_or_text_around_it():
    nothing = np.zeros((0, HIDDEN), np.float32)
    assert decoded(5, visual=nothing)[0] == foretold(PROMPT, nothing, 5)
    assert decoded(5, prompt=Prompt(((), ())))[0] == foretold(Prompt(((), ())), VISUAL, 5)


@pytest.mark.parametrize("at", range(6))
def test_the_stop_token_is_included_and_the_last(at):
    told = foretold(PROMPT, VISUAL, 12)
    stop = told[at]
    first = told.index(stop)
    tokens, finish, runs = decoded(12, stop=stop)
    assert tokens == told[: first + 1]
    assert finish == "stop"
    assert len(runs) == first + 1


def test_the_stop_token_as_the_last_that_is_allowed():
    told = foretold(PROMPT, VISUAL, 3)
    assert told[2] not in told[:2]
    assert decoded(3, stop=told[2])[:2] == (told, "stop")


@pytest.mark.parametrize(
    ("limit", "room", "count", "finish"),
    [
        (1, 1, 1, "length"),
        (2, 1, 1, "context"),
        (10, 4, 4, "context"),
        (4, 4, 4, "length"),
        (3, 4, 3, "length"),
        (10**9, 2, 2, "context"),
    ],
)
def test_the_context_bounds_the_answer(limit, room, count, finish):
    tokens, why, runs = decoded(limit, context=LENGTH + room)
    assert tokens == foretold(PROMPT, VISUAL, count)
    assert why == finish
    assert sum(runs) <= LENGTH + room


def test_one_answer_leaves_nothing_to_the_next():
    engine = ArithmeticEngine(cache)
    decoder = Decoder(engine, EMBEDDINGS, LANGUAGE)
    first = list(decoder.generate(PROMPT, [VISUAL], Generation(6), NEVER))
    assert list(decoder.generate(PROMPT, [VISUAL], Generation(6), NEVER)) == first


def test_an_answer_that_is_given_up_lets_go_of_its_binding():
    engine = ArithmeticEngine(cache)
    answer = Decoder(engine, EMBEDDINGS, LANGUAGE).generate(PROMPT, [VISUAL], Generation(6), NEVER)
    next(answer)
    assert engine.open == 1
    answer.close()
    assert engine.open == 0


def test_two_answers_interleaved():
    decoder = Decoder(ArithmeticEngine(cache), EMBEDDINGS, LANGUAGE)
    other = Prompt(((3,), (8,)))
    pairs = list(
        zip(
            decoder.generate(PROMPT, [VISUAL], Generation(8), NEVER),
            decoder.generate(other, [VISUAL], Generation(8), NEVER),
            strict=True,
        )
    )
    assert [a for a, _ in pairs] == foretold(PROMPT, VISUAL, 8)
    assert [b for _, b in pairs] == foretold(other, VISUAL, 8)


def test_embeddings_of_another_precision():
    decoder = Decoder(ArithmeticEngine(cache), EMBEDDINGS.astype(np.float16), LANGUAGE)
    assert list(decoder.generate(PROMPT, [VISUAL], Generation(6), NEVER)) == foretold(PROMPT, VISUAL, 6)


def test_a_drawn_answer_is_one_the_seed_repeats():
    def drawn(seed):
        wanted = Generation(12, Sampling(temperature=5.0, seed=seed))
        return list(Decoder(ArithmeticEngine(cache), EMBEDDINGS, LANGUAGE).generate(PROMPT, [VISUAL], wanted, NEVER))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


class After:
    """A caller who has had enough after so many questions whether he has."""

    def __init__(self, times):
        self.times = times

    def is_set(self):
        self.times -= 1
        return self.times < 0


@pytest.mark.parametrize("runs", [0, 1, 2, 5])
def test_cancelled_between_two_runs(runs):
    engine = ArithmeticEngine(cache)
    decoder = Decoder(engine, EMBEDDINGS, LANGUAGE)
    said = list(decoder.generate(PROMPT, [VISUAL], Generation(12, cancel=After(runs)), NEVER))
    assert said == foretold(PROMPT, VISUAL, runs)
    assert decoder.finish == "cancelled"
    assert len(engine.runs) == runs
    assert engine.open == 0


def test_cancelled_within_a_long_prompt():
    visual = np.zeros((3 * PREFILL_CHUNK, HIDDEN), np.float32)
    engine = ArithmeticEngine(cache)
    decoder = Decoder(engine, EMBEDDINGS, replace(LANGUAGE, context=4 * PREFILL_CHUNK))
    assert list(decoder.generate(PROMPT, [visual], Generation(12, cancel=After(2)), NEVER)) == []
    assert engine.runs == [PREFILL_CHUNK] * 2
