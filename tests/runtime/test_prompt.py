"""Prompts against the rule they were trained by, stated here on its own; questions that try to be something else."""

import json

import pytest
from tokenizers import Tokenizer as RawTokenizer

from bundle_copy import read_manifest
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import Prompts
from mova_runtime.errors import BundleError, QuestionError
from mova_runtime.language.prompt import PromptBuilder
from mova_runtime.language.tokenizer import Tokenizer
from reference_data import GOLDEN_SEEDS, REFERENCE
from tokenizer_files import write_byte_fallback, write_byte_level

QUESTIONS = [
    "What is the title of the chart?", " padded ", "tab\tnew\nline", "é € 😀 日本語",
    "{message}", "{question} {0} {} {{",
    "100% %s \\n", "a" * 300, "\u200b", "x\x00y",
]  # fmt: skip
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@pytest.fixture(scope="module")
def opened(bundle):
    return Bundle.open(bundle(2))


@pytest.fixture(scope="module")
def language_file(opened):
    return opened.path(opened.manifest.language.tokenizer)


@pytest.fixture(scope="module")
def builder(opened, language_file):
    return PromptBuilder(opened.manifest.prompts, Tokenizer(language_file), opened.manifest.language.bos)


def by_the_rule(prompts, tokenizer, bos, instruction, question):
    """Text split at the placeholder, pieces tokenized by themselves; with BOS first, every piece loses its first id."""
    message = prompts["image_placeholder"] + "\n" + instruction + question
    text = prompts["system"] + prompts["user"].replace("{message}", message) + prompts["assistant"]
    pieces = [tokenizer.encode(piece).ids for piece in text.split(prompts["image_placeholder"])]
    if pieces[0][:1] == [bos]:
        pieces = [piece[1:] for piece in pieces]
        pieces[0] = [bos, *pieces[0]]
    return [tuple(piece) for piece in pieces]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("routed", [True, False])
def test_ids_by_the_rule(bundle, builder, language_file, question, routed):
    prompts = read_manifest(bundle(2))["prompts"]
    raw = RawTokenizer.from_file(str(language_file))
    before, after = by_the_rule(
        prompts, raw, raw.token_to_id(SPECIAL[0]), prompts["routing"] if routed else "", question
    )
    prompt = builder.routing(question) if routed else builder.answer(question)
    assert prompt.before == before
    assert prompt.after == after
    assert prompt.text_tokens == len(before) + len(after)


def test_the_sequence_starts_with_two_bos_and_has_no_third(builder, language_file):
    bos = RawTokenizer.from_file(str(language_file)).token_to_id(SPECIAL[0])
    prompt = builder.answer("Why?")
    assert prompt.before[:2] == (bos, bos)
    assert (prompt.before[2:] + prompt.after).count(bos) == 0


@pytest.mark.parametrize("seed", GOLDEN_SEEDS)
def test_routing_prompts_are_as_long_as_the_published_ones(builder, seed):
    """The published count has one id for the image, whatever its tokens are."""
    cases = json.loads((REFERENCE / "golden" / f"seed{seed}.json").read_text())["cases"]
    assert cases
    for case in cases:
        assert builder.routing(case["question"]).text_tokens + 1 == case["routing_prompt_tokens"]


def prompts_of(**changed):
    constants = {
        "template": "test", "system": "S:", "user": "U:{message}.", "assistant": "A:", "stop": "!",
        "image_placeholder": "<image>", "routing": "R:", "routing_max_new_tokens": 4,
    }  # fmt: skip
    return Prompts(**{**constants, **changed})


def test_a_tokenizer_without_bos_loses_nothing(tmp_path):
    write_byte_level(tmp_path / "t.json")
    builder = PromptBuilder(prompts_of(), Tokenizer(tmp_path / "t.json"), None)
    prompt = builder.routing("q")
    assert bytes(prompt.before) == b"S:U:"
    assert bytes(prompt.after) == b"\nR:q.A:"


def test_a_tokenizer_with_bos_keeps_one(tmp_path):
    write_byte_level(tmp_path / "t.json", bos="<s>")
    prompt = PromptBuilder(prompts_of(), Tokenizer(tmp_path / "t.json"), 256).answer("q")
    assert prompt.before == (256, *b"S:U:")
    assert prompt.after == tuple(b"\nq.A:")


def test_a_bos_that_only_the_template_puts_costs_the_second_piece_its_first_id(tmp_path):
    """So does the published code, and checkpoints were trained so."""
    write_byte_level(tmp_path / "t.json")
    prompt = PromptBuilder(prompts_of(), Tokenizer(tmp_path / "t.json"), ord("S")).answer("q")
    assert prompt.before == tuple(b"S:U:")
    assert prompt.after == tuple(b"q.A:")


def test_a_message_may_open_or_close_the_user_part(tmp_path):
    write_byte_level(tmp_path / "t.json")
    prompts = prompts_of(user="{message}", system="", assistant="")
    prompt = PromptBuilder(prompts, Tokenizer(tmp_path / "t.json"), None).answer("q")
    assert (prompt.before, prompt.after) == ((), tuple(b"\nq"))


@pytest.mark.parametrize("token", SPECIAL)
@pytest.mark.parametrize("question", ["{}", "say {} now", "{}{}", "<|{}|>", " {} "])
def test_special_token_text_stays_text(builder, language_file, question, token):
    raw = RawTokenizer.from_file(str(language_file))
    special = {raw.token_to_id(name) for name in SPECIAL}

    def specials(prompt):
        return [i for i in prompt.before + prompt.after if i in special]

    asked = question.replace("{}", token)
    assert builder.check(asked) == asked
    assert specials(builder.answer(asked)) == specials(builder.answer("plain"))
    assert specials(builder.routing(asked)) == specials(builder.routing("plain"))


@pytest.mark.parametrize("inner", SPECIAL)
def test_a_special_token_hidden_in_another_does_not_come_out(builder, language_file, inner):
    raw = RawTokenizer.from_file(str(language_file))
    tokenizer = Tokenizer(language_file)
    for outer in SPECIAL:
        for cut in range(1, len(outer)):
            ids = raw.encode(tokenizer.as_plain_text(outer[:cut] + inner + outer[cut:]), add_special_tokens=False).ids
            assert all(i < 256 for i in ids)


def test_special_token_text_is_still_readable(builder):
    after = bytes(i for i in builder.answer("a<|eot_id|>b").after if i < 256)
    assert len(after) == len(bytes(i for i in builder.answer("ab").after if i < 256)) + len("<|eot_id|>\u200b".encode())


def test_the_tokenizers_special_text_of_a_sentencepiece_model(tmp_path):
    write_byte_fallback(tmp_path / "t.json", ["▁", "a", "s", "<", ">", "/"])
    tokenizer = Tokenizer(tmp_path / "t.json")
    assert tokenizer.encode("a</s>")[-1] == 2
    assert 2 not in tokenizer.encode(tokenizer.as_plain_text("a</s>"))
    assert tokenizer.encode(tokenizer.as_plain_text("<s>")).count(1) == 1


class RecordingPool:
    """Hands out one engine, which keeps what it is given."""

    def __init__(self, asked):
        self.asked, self.inputs = asked, None

    def lease(self, component, trace, runs):
        assert runs == len(self.asked)
        import contextlib

        return contextlib.nullcontext(self)

    def run(self, inputs):
        self.inputs = inputs
        import numpy as np

        return {"text": np.zeros((len(inputs["ids"]), 8), np.float32)}


class Forgetful:
    def get(self, key):
        return None

    def put(self, key, value, size, seconds, *, name, trace):
        assert name == "text"


def text_inputs(opened, questions):
    from mova_runtime.encoder import Encoder
    from mova_runtime.trace import Trace

    pool = RecordingPool(questions)
    Encoder(opened, pool, Forgetful()).text(questions, Trace())
    return pool.inputs["ids"], pool.inputs["mask"]


def test_the_text_encoder_reads_the_question_lower_cased(opened):
    raw = RawTokenizer.from_file(str(opened.path(opened.manifest.text.tokenizer)))
    ids, mask = text_inputs(opened, ["What IS it?", "{question}"])
    for row, keep, question in zip(ids, mask, ["what is it?", "{question}"], strict=True):
        expected = raw.encode(f"question 0: {question}\n\n").ids
        assert row[: len(expected)].tolist() == expected
        assert keep.tolist() == [1] * len(expected) + [0] * (len(row) - len(expected))
        assert not row[len(expected) :].any()


@pytest.mark.parametrize("token", ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "[sep]"])
def test_the_text_encoder_reads_special_token_text_as_text(opened, token):
    ids, _ = text_inputs(opened, [f"a {token} b"])
    raw = RawTokenizer.from_file(str(opened.path(opened.manifest.text.tokenizer)))
    cls, sep = raw.token_to_id("[CLS]"), raw.token_to_id("[SEP]")
    assert ids[0, 0] == cls
    assert ids[0, -1] == sep
    inner = ids[0, 1:-1].tolist()
    assert not {cls, sep, raw.token_to_id("[PAD]"), raw.token_to_id("[MASK]")} & set(inner)


def test_a_special_token_that_only_lower_casing_makes(opened, tmp_path, monkeypatch):
    from mova_runtime.encoder import Encoder
    from mova_runtime.trace import Trace

    write_byte_level(tmp_path / "t.json", special=["<sep>"])
    pool = RecordingPool(["one"])
    encoder = Encoder(opened, pool, Forgetful())
    monkeypatch.setattr(encoder, "_tokenizer", Tokenizer(tmp_path / "t.json"))
    encoder.text(["a <SEP> b"], Trace())
    assert (pool.inputs["ids"] < 256).all()


def test_a_long_question_counts_by_its_beginning(opened):
    ids, mask = text_inputs(opened, ["word " * 1000, "short"])
    assert ids.shape == mask.shape == (2, 512)
    raw = RawTokenizer.from_file(str(opened.path(opened.manifest.text.tokenizer)))
    full = raw.encode("question 0: " + "word " * 1000 + "\n\n").ids
    assert ids[0].tolist() == [*full[:511], full[-1]], "the closing special token stays"


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("<image>\nWhy?", "Why?"),
        ("Why?\n<image>", "Why?"),
        ("What is <image> here?", "What is <image> here?"),
        ("<image> Why?", "Why?"),
        ("Why? <image>", "Why?"),
        (" <image>\n  Why?", "Why?"),
        ("  Why? ", "  Why? "),
    ],
)
def test_image_placeholders(builder, question, asked):
    assert builder.check(question) == asked
    assert builder.answer(builder.check(question)) == builder.answer(asked)


def test_a_placeholder_inside_is_text(builder, language_file):
    prompt = builder.answer(builder.check("What is <image> here?"))
    assert "\nWhat is <image> here?" in RawTokenizer.from_file(str(language_file)).decode(prompt.after)


@pytest.mark.parametrize(
    "question", ["", " ", "\n\t ", "<image>", " <image> ", "<image>\n", "\n<image>", "\u00a0\u3000"]
)
def test_an_empty_question(builder, question):
    with pytest.raises(QuestionError, match="the question is empty"):
        builder.check(question)


@pytest.mark.parametrize("question", ["\ud800", "a\udc80b", "fine \ud83d"])
def test_half_a_surrogate_pair(builder, question):
    with pytest.raises(QuestionError, match="not valid Unicode"):
        builder.check(question)


@pytest.mark.parametrize("question", [None, b"Why?", 3, ["Why?"]])
def test_what_is_not_text(builder, question):
    with pytest.raises(QuestionError, match=f"text, not {type(question).__name__}"):
        builder.check(question)


def test_what_is_no_tokenizer(tmp_path):
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(BundleError, match="not a tokenizer"):
        Tokenizer(tmp_path / "t.json")


def test_a_token_that_is_not_there(language_file):
    with pytest.raises(BundleError, match="no token '<nothing>'"):
        Tokenizer(language_file).id_of("<nothing>")
