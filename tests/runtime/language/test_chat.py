"""Conversations on a real bundle: the same answers as from one prompt read anew, with less to read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mova_runtime as mova
from reference_data import IMAGES, cases

CHART, PHOTO = IMAGES / "chart.png", IMAGES / "photo.png"
QUESTIONS = ("What is shown?", "How many bars are there?", "Which is the highest?")
EXPERTS = ("biomedclip",)


@pytest.fixture(scope="module")
def rt(bundle: Callable[[int], Path]) -> Iterator[mova.Runtime]:
    with mova.open(bundle(2)) as opened:
        yield opened


@pytest.fixture(scope="module")
def forgetful(bundle: Callable[[int], Path]) -> Iterator[mova.Runtime]:
    """A runtime that keeps nothing, and reads every prompt anew."""
    with mova.open(bundle(2), feature_cache=0) as opened:
        yield opened


def test_a_first_question_is_answered_as_by_itself(rt: mova.Runtime) -> None:
    for case in cases(2):
        answer = rt.chat(case.image).ask(case.question, max_new_tokens=case.max_new_tokens)
        assert list(answer.tokens) == case.answer_tokens
        assert answer.routing.experts == case.experts


def test_reading_on_gives_what_reading_anew_gives(rt: mova.Runtime, forgetful: mova.Runtime) -> None:
    remembering, anew = rt.chat(CHART, EXPERTS), forgetful.chat(CHART, EXPERTS)
    for number, question in enumerate(QUESTIONS):
        one, other = (chat.ask(question, max_new_tokens=12) for chat in (remembering, anew))
        assert one.tokens == other.tokens
        assert one.stats.prompt_tokens == other.stats.prompt_tokens
        assert other.stats.reused_tokens == 0
        if number:
            assert one.stats.reused_tokens > 0.6 * one.stats.prompt_tokens
            names = [stage["name"] for stage in one.stats.stages]
            assert not {"base", "biomedclip", "adapter", "text"} & set(names), "the image stays as it was fused"
    assert [question for question, _ in remembering.turns] == list(QUESTIONS)


def test_what_was_said_changes_the_answer(rt: mova.Runtime) -> None:
    chat = rt.chat(CHART, EXPERTS)
    chat.ask(QUESTIONS[0], max_new_tokens=12)
    after = chat.ask(QUESTIONS[1], max_new_tokens=12)
    alone = rt.answer(CHART, QUESTIONS[1], EXPERTS, max_new_tokens=12)
    assert after.tokens != alone.tokens
    assert after.stats.prompt_tokens > alone.stats.prompt_tokens


def test_several_images(rt: mova.Runtime) -> None:
    chat = rt.chat(CHART, EXPERTS)
    first = chat.ask(QUESTIONS[0], max_new_tokens=4)
    second = chat.ask(QUESTIONS[1], PHOTO, max_new_tokens=4)
    third = chat.ask(QUESTIONS[1], max_new_tokens=4)
    one, two, three = (answer.stats.prompt_tokens for answer in (first, second, third))
    assert two - one == three - two + rt.manifest.vision.visual_tokens + 1, "an image, and the line break behind it"
    assert third.stats.reused_tokens > 0.6 * three


def test_other_experts_have_the_image_fused_anew(rt: mova.Runtime) -> None:
    chat = rt.chat(CHART, ("sam",))
    chat.ask(QUESTIONS[0], max_new_tokens=4)
    chat._experts = ("deplot",)
    names = [stage["name"] for stage in chat.ask(QUESTIONS[1], max_new_tokens=4).stats.stages]
    assert "adapter" in names


def test_the_oldest_turns_are_left_out(bundle: Callable[[int], Path]) -> None:
    with mova.open(bundle(2), max_context=600) as rt:
        chat = rt.chat(CHART, ())
        for number in range(12):
            answer = chat.ask(f"Question number {number}, please?", max_new_tokens=8)
            assert answer.stats.prompt_tokens + len(answer.tokens) <= 600
        assert 1 < len(chat.turns) < 12
        assert chat.turns[-1][0] == "Question number 11, please?"
        with pytest.raises(mova.QuestionError, match="too long"):
            chat.ask("why? " * 200)
        assert chat.turns[-1][0] == "Question number 11, please?"


def test_what_is_not_read_to_its_end_was_not_said(rt: mova.Runtime) -> None:
    chat = rt.chat(CHART, EXPERTS)
    pieces = chat.stream(QUESTIONS[0], max_new_tokens=40)
    next(pieces)
    with pytest.raises(mova.MovaError, match="still answering"):
        chat.ask(QUESTIONS[1])
    pieces.close()
    assert chat.turns == ()
    text = "".join(chat.stream(QUESTIONS[0], max_new_tokens=6))
    assert chat.turns == ((QUESTIONS[0], text),)
    chat.clear()
    assert chat.turns == ()


def test_a_question_that_was_cancelled_changes_nothing(bundle: Callable[[int], Path]) -> None:
    """Also where its prompt would have left out all that was said before, and with another image."""
    with mova.open(bundle(2), max_context=700) as rt:
        chat = rt.chat(CHART, ())
        for question in QUESTIONS:
            chat.ask(question, max_new_tokens=4)
        before = chat.turns
        answer = chat.ask("word " * 60, PHOTO, max_new_tokens=64, cancel=Late(3))
        assert answer.stats.finish == "cancelled"
        assert chat.turns == before
        shown = chat.ask(QUESTIONS[0], max_new_tokens=4)
        assert chat.turns == (*before, (QUESTIONS[0], shown.text))
        assert chat._image == CHART


class Late:
    """Is set when it is asked for the n-th time."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("asked", range(6))
def test_whenever_it_is_cancelled(rt: mova.Runtime, asked: int) -> None:
    """A cancel is asked once at a time: what it said is what counts."""
    chat = rt.chat(CHART, EXPERTS)
    answer = chat.ask("Why?", max_new_tokens=40, cancel=Late(asked))
    assert answer.stats.finish == "cancelled"
    assert chat.turns == ()


def test_a_cancel_that_is_seen_once_holds(rt: mova.Runtime) -> None:
    """Also where it came while the router spoke and is gone again."""

    class Pulse(Late):
        def is_set(self) -> bool:
            self.left -= 1
            return self.left == -1

    for asked in range(12):
        answer = rt.answer(CHART, "What is on the table?", max_new_tokens=20, cancel=Pulse(asked))
        assert answer.stats.finish == "cancelled"


def test_cleared_before_a_stream_is_read(rt: mova.Runtime) -> None:
    chat = rt.chat(CHART, EXPERTS)
    chat.ask(QUESTIONS[1], max_new_tokens=2)
    pieces = chat.stream(QUESTIONS[0], max_new_tokens=6)
    chat.clear()
    assert chat.turns == ()
    text = "".join(pieces)
    assert chat.turns == ((QUESTIONS[0], text),)
    assert [one.question for one in chat._conversation.exchanges] == [QUESTIONS[0]]


def test_the_answer_has_room(bundle: Callable[[int], Path]) -> None:
    """Older questions go before an answer is cut off where the context is full."""
    with mova.open(bundle(2), max_context=520) as rt:
        chat = rt.chat(CHART, ())
        ends = [chat.ask(f"What is {number}?", max_new_tokens=64).stats for number in range(12)]
        assert "context" not in [one.finish for one in ends]
        assert max(one.prompt_tokens for one in ends) <= 520 - 64


def test_a_conversation_needs_an_image(rt: mova.Runtime) -> None:
    with pytest.raises(mova.QuestionError, match="begins with an image"):
        rt.chat().ask("Why?")
    assert rt.chat().ask("Why?", CHART, max_new_tokens=2).tokens
    with pytest.raises(mova.ExpertError, match="unknown expert"):
        rt.chat(CHART, ("eye",))
    chat = rt.chat(CHART, EXPERTS)
    with pytest.raises(mova.ImageError):
        chat.ask("Why?", "missing.png")
    assert chat.ask("Why?", max_new_tokens=2).tokens


def test_cancelled_before_it_began(rt: mova.Runtime) -> None:
    cancel = threading.Event()
    cancel.set()
    chat = rt.chat(CHART)
    answer = chat.ask("Why?", cancel=cancel)
    assert (answer.text, answer.tokens, answer.stats.finish) == ("", (), "cancelled")
    assert chat.turns == ()


def test_an_option_that_there_is_not(rt: mova.Runtime) -> None:
    for ask in (rt.chat(CHART, ()).ask, lambda question, **how: rt.answer(CHART, question, (), **how)):
        with pytest.raises(TypeError, match="an answer has no option 'temprature'; it has temperature, top_p, seed"):
            ask("Why?", temprature=1.0)


def test_options_of_an_answer(rt: mova.Runtime) -> None:
    drawn = [rt.answer(CHART, "Why?", (), 12, temperature=3.0, seed=seed).tokens for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    whole = rt.answer(CHART, "Why?", (), 24).text
    stop = whole[len(whole) // 2 :][:2]
    cut = rt.answer(CHART, "Why?", (), 24, stop=stop)
    assert cut.text == whole[: whole.index(stop)].rstrip()
    assert cut.stats.finish == "stop"
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"seed": 1.5}, {"stop": ""}, {"stop": 3}, {"cancel": 3}):
        with pytest.raises(mova.QuestionError):
            rt.answer(CHART, "Why?", (), **wrong)


def test_the_text_before_the_image_and_the_routers_prompt_are_read_once(bundle: Callable[[int], Path]) -> None:
    with mova.open(bundle(2)) as rt:
        first = rt.answer(CHART, QUESTIONS[0], max_new_tokens=2)
        second = rt.answer(CHART, QUESTIONS[1], max_new_tokens=2)
        other = rt.answer(PHOTO, QUESTIONS[1], max_new_tokens=2)

    def reused(answer: mova.Answer) -> list[int]:
        return [stage["reused_tokens"] for stage in answer.stats.stages if "reused_tokens" in stage]

    before = len(rt._model.prompts.answer("x").before) if not rt._closed else reused(first)[1]
    assert reused(first) == [0, before]
    assert reused(second)[0] > 1000, "the router's instruction"
    assert reused(other) == [before, before]
