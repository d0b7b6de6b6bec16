"""Greedy decoding against a language model of arithmetic, whose every token can be told beforehand.

Its embeddings are numbers. The next token is Σ position·number over all it has read, modulo the vocabulary; the cache
holds the numbers read so far, so a lost or doubled entry, a wrong position or a wrong mask shows in the tokens.
"""

from dataclasses import replace

import numpy as np
import pytest

from mova_runtime.bundle.manifest import File, Language
from mova_runtime.language.decoder import PREFILL_CHUNK, Decoder
from mova_runtime.language.prompt import Prompt

VOCABULARY, HIDDEN, LAYERS, HEADS, HEAD_DIM = 17, 3, 2, 2, 4
NEVER = -1
FILE = File("x", 1, "0")
LANGUAGE = Language(
    tokenizer=FILE, bos=None, embeddings=FILE, hidden=HIDDEN, layers=LAYERS, key_value_heads=HEADS, head_dim=HEAD_DIM,
    context=64, max_prompt=64, clean_up_spaces=False,
)  # fmt: skip
EMBEDDINGS = np.repeat(np.arange(VOCABULARY, dtype=np.float32)[:, None], HIDDEN, axis=1)
CACHE = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]


class ArithmeticBinding:
    def __init__(self, engine):
        self.engine, self.inputs, self.outputs = engine, {}, {}

    def set(self, name, array):
        self.inputs[name] = array

    def carry(self, output, name):
        self.inputs[name] = self.outputs[output]

    def run(self):
        x, past = self.inputs["inputs_embeds"], self.inputs["past_key_values.0.key"]
        assert x.dtype == np.float32
        assert x.shape[0] == 1
        assert x.shape[2] == HIDDEN
        assert past.shape == (1, HEADS, past.shape[2], HEAD_DIM)
        total = past.shape[2] + x.shape[1]
        assert self.inputs["attention_mask"].dtype == self.inputs["position_ids"].dtype == np.int64
        np.testing.assert_array_equal(self.inputs["attention_mask"], np.ones((1, total)))
        np.testing.assert_array_equal(self.inputs["position_ids"], np.arange(past.shape[2], total)[None])
        new = np.broadcast_to(x[:, None, :, :1], (1, HEADS, x.shape[1], HEAD_DIM))
        for name in CACHE:
            before = self.inputs[f"past_key_values.{name}"]
            np.testing.assert_array_equal(before, past)
            self.outputs[f"present.{name}"] = np.concatenate((before, new), axis=2)
        read = self.outputs["present.0.key"][0, 0, :, 0]
        logits = np.zeros((1, x.shape[1], VOCABULARY), np.float32)
        logits[0, -1, following(read)] = 1
        self.outputs["logits"] = logits
        self.engine.runs.append(x.shape[1])

    def get(self, output):
        return self.outputs[output]

    def close(self):
        self.engine.open -= 1


class ArithmeticEngine:
    name = "llm"

    def __init__(self):
        self.runs, self.open = [], 0

    def bind(self):
        self.open += 1
        return ArithmeticBinding(self)


def following(read):
    return int(np.dot(np.arange(1, len(read) + 1), read)) % VOCABULARY


def foretold(prompt, visual, count):
    read = [*prompt.before, *visual[:, 0].astype(int), *prompt.after]
    tokens = []
    for _ in range(count):
        tokens.append(following(np.array(read)))
        read.append(tokens[-1])
    return tokens


PROMPT = Prompt((1, 5), (7, 2, 3))
VISUAL = np.repeat(np.array([[4.0], [9.0], [2.0], [11.0]], np.float32), HIDDEN, axis=1)
LENGTH = 9


def decoded(limit, stop=NEVER, context=64, prompt=PROMPT, visual=VISUAL):
    engine = ArithmeticEngine()
    decoder = Decoder(engine, EMBEDDINGS, replace(LANGUAGE, context=context))
    return list(decoder.generate(prompt, visual, limit, stop)), decoder.finish, engine.runs


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
    assert decoded(5, prompt=Prompt((), ()))[0] == foretold(Prompt((), ()), VISUAL, 5)


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
    engine = ArithmeticEngine()
    decoder = Decoder(engine, EMBEDDINGS, LANGUAGE)
    first = list(decoder.generate(PROMPT, VISUAL, 6, NEVER))
    assert list(decoder.generate(PROMPT, VISUAL, 6, NEVER)) == first


def test_an_answer_that_is_given_up_lets_go_of_its_binding():
    engine = ArithmeticEngine()
    answer = Decoder(engine, EMBEDDINGS, LANGUAGE).generate(PROMPT, VISUAL, 6, NEVER)
    next(answer)
    assert engine.open == 1
    answer.close()
    assert engine.open == 0


def test_two_answers_interleaved():
    decoder = Decoder(ArithmeticEngine(), EMBEDDINGS, LANGUAGE)
    other = Prompt((3,), (8,))
    pairs = list(
        zip(decoder.generate(PROMPT, VISUAL, 8, NEVER), decoder.generate(other, VISUAL, 8, NEVER), strict=True)
    )
    assert [a for a, _ in pairs] == foretold(PROMPT, VISUAL, 8)
    assert [b for _, b in pairs] == foretold(other, VISUAL, 8)


def test_embeddings_of_another_precision():
    decoder = Decoder(ArithmeticEngine(), EMBEDDINGS.astype(np.float16), LANGUAGE)
    assert list(decoder.generate(PROMPT, VISUAL, 6, NEVER)) == foretold(PROMPT, VISUAL, 6)
