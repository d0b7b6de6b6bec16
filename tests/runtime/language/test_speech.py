"""Tokens as text: pieces, stop sequences, and a listener who has heard enough."""

import random
from pathlib import Path

import pytest

from mova_runtime.bundle.manifest import Expert
from mova_runtime.language.speech import Said, never, speech
from mova_runtime.language.tokenizer import Tokenizer
from mova_runtime.routing.listener import Listener
from mova_runtime.routing.parse import is_settled, parse
from tokenizer_files import write_byte_level

EXPERTS = tuple(Expert(name.lower(), name, "clip") for name in "ABCDEFG")


class Speaker:
    """Says a text byte by byte."""

    reused = 0

    def __init__(self, text: str) -> None:
        self.finish, self._text, self.said = "length", text, 0

    def generate(self, *_):  # type: ignore[no-untyped-def]
        for byte in self._text.encode():
            self.said += 1
            yield byte


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    write_byte_level(tmp_path / "t.json")
    return Tokenizer(tmp_path / "t.json")


def spoken(tokenizer, text, stops=(), enough=never):  # type: ignore[no-untyped-def]
    speaker, said = Speaker(text), Said([])
    pieces = list(speech(speaker.generate(), speaker, tokenizer, stops, said, enough))
    assert "".join(pieces) == said.text
    assert all(pieces)
    return said, speaker.said


def test_text_as_it_is(tokenizer: Tokenizer) -> None:
    said, heard = spoken(tokenizer, " A cat, é 😀 there. ")
    assert (said.text, said.finish) == ("A cat, é 😀 there.", "length")
    assert heard == len(said.tokens)


def test_nothing_at_all(tokenizer: Tokenizer) -> None:
    assert spoken(tokenizer, "")[0].text == ""
    assert spoken(tokenizer, "  ")[0].text == ""


@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        ("one two three", ("two",), "one"),
        ("one two three", ("three", "two"), "one"),
        ("one\n\nUser: more", ("\n\n",), "one"),
        ("stop at once", ("stop",), ""),
        ("never said", ("said so",), "never said"),
        ("the end.", ("end.",), "the"),
        ("Hello there friend.\nUSER: x", ("USER:",), "Hello there friend."),
        ("Hello to all of you   ASSISTANT:", ("ASSISTANT:",), "Hello to all of you"),
        ("A  long   one, with    spaces \n end", ("end",), "A  long   one, with    spaces"),
    ],
)
def test_stop_sequences(tokenizer: Tokenizer, text: str, stops: tuple[str, ...], wanted: str) -> None:
    said, heard = spoken(tokenizer, text, stops)
    assert said.text == wanted
    assert said.finish == ("stop" if wanted != text else "length")
    assert heard <= len(text) or wanted == text


def test_no_token_is_asked_for_after_a_stop(tokenizer: Tokenizer) -> None:
    assert spoken(tokenizer, "ab|" + "x" * 100, ("|",))[1] < 10


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("A", False),
        ("A,B,C", False),
        ("A,B,C,", True),
        (",,,", True),
        ("none", False),
        ("GFEDCBA", True),
        ("A, B, C, D", True),
    ],
)
def test_settled_is_when_three_pieces_are_complete_or_all_are_named(text: str, settled: bool) -> None:
    assert is_settled(text, EXPERTS) == settled


@pytest.mark.parametrize(
    "text", ["A,B,C,D,E", ",,,ABC", "none", "GFEDCBA,,", "x,y,B z,A", "B\x12,C,A\x0c,,G,F", "é,A,é,B"]
)
def test_the_router_is_heard_no_longer_than_it_decides(tokenizer: Tokenizer, text: str) -> None:
    named: list[str] = []
    said, heard = spoken(tokenizer, text, enough=Listener(tokenizer, EXPERTS, named.append))
    assert parse(said.text, EXPERTS) == parse(text, EXPERTS)
    assert sorted(named) == sorted(parse(text, EXPERTS)), "each named once"
    if text.count(",") > 3:
        assert heard < len(text.encode())
        assert said.finish == "settled"


def test_200_random_routers_are_heard_to_the_same_end(tokenizer: Tokenizer) -> None:
    saved = 0
    for seed in range(200):
        draw = random.Random(seed)
        text = "".join(draw.choices("ABCDEFG,, \né", k=16))
        said, _ = spoken(tokenizer, text, enough=Listener(tokenizer, EXPERTS, lambda name: None))
        whole, _ = spoken(tokenizer, text)
        assert parse(said.text, EXPERTS) == parse(whole.text, EXPERTS), text
        assert whole.text.startswith(said.text)
        saved += len(whole.tokens) - len(said.tokens)
    assert saved > 200
