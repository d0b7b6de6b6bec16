"""A language model of arithmetic, whose every token can be told beforehand.

Its embeddings are numbers. The next token is Σ position·number over all it has read, modulo the vocabulary; the cache
holds the numbers read so far, so a lost or doubled entry, a wrong position or a wrong mask shows in the tokens.
"""

import numpy as np

from mova_runtime.bundle.manifest import File, Language
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
    """Of a growing cache."""

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


class SharedBinding:
    """Of a cache in one buffer."""

    def __init__(self, engine):
        self.engine, self.inputs, self.buffers, self.logits = engine, {}, {}, None

    def set(self, name, array):
        assert not name.startswith("past"), "it is shared"
        self.inputs[name] = array

    def share(self, output, name, array):
        assert output.replace("present", "past_key_values") == name
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        self.buffers[output.removeprefix("present.")] = array

    def run(self):
        x, last, total = (self.inputs[name] for name in ("inputs_embeds", "seqlens_k", "total_sequence_length"))
        assert last.dtype == total.dtype == np.int32
        assert (last.shape, total.shape) == ((1,), ())
        assert last[0] == total - 1
        past = int(total) - x.shape[1]
        assert list(self.buffers) == CACHE
        for buffer in self.buffers.values():
            assert buffer.shape[:2] == (1, HEADS)
            assert buffer.shape[3] == HEAD_DIM
            assert total <= buffer.shape[2]
            np.testing.assert_array_equal(buffer[0, :, :past], self.buffers["0.key"][0, :, :past])
            buffer[0, :, past:total] = x[0, None, :, :1]
        read = self.buffers["0.key"][0, 0, :total, 0]
        self.logits = np.zeros((1, 1, VOCABULARY), np.float32)
        self.logits[0, 0, following(read)] = 1
        self.engine.runs.append(x.shape[1])

    def get(self, output):
        assert output == "logits"
        return self.logits

    def close(self):
        self.engine.open -= 1


class ArithmeticEngine:
    """Notes how many tokens each run read, and how many bindings are open."""

    name = "llm"

    def __init__(self, cache="growing"):
        self.cache, self.runs, self.open = cache, [], 0

    def bind(self):
        self.open += 1
        return ArithmeticBinding(self) if self.cache == "growing" else SharedBinding(self)


def following(read):
    return int(np.dot(np.arange(1, len(read) + 1), read)) % VOCABULARY


def foretold(prompt, visual, count):
    read = [*prompt.before, *visual[:, 0].astype(int), *prompt.after]
    tokens = []
    for _ in range(count):
        tokens.append(following(np.array(read)))
        read.append(tokens[-1])
    return tokens


PROMPT = Prompt(((1, 5), (7, 2, 3)))
VISUAL = np.repeat(np.array([[4.0], [9.0], [2.0], [11.0]], np.float32), HIDDEN, axis=1)
