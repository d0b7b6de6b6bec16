"""Stop sequences, against a search in the whole text: however it is cut, the same comes out, and as early as it can."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mova_runtime.errors import QuestionError
from mova_runtime.language.ending import Ending

TEXTS = st.text(alphabet="ab\n é👩\u200d", max_size=24) | st.text(alphabet="ab", max_size=24) | st.text(max_size=12)
STOPS = st.lists(st.text(alphabet="ab\né👩", min_size=1, max_size=6), max_size=4)


def before(text, stops):
    """The text up to the stop that is complete first; of those complete with the same character, the longest."""
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(found)[1]] if found else text


def open_end(text, stops):
    """How many characters at the text's end may be the beginning of a stop."""
    beginnings = [stop[:length] for stop in stops for length in range(1, len(stop))]
    return max((len(one) for one in beginnings if text.endswith(one)), default=0)


def pieces_of(text, cuts):
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


def passed_on(stops, pieces):
    """What each piece brought, with the end's; and whether a stop was met."""
    ending = Ending(stops)
    return [*(ending.add(piece) for piece in pieces), ending.end()], ending.done


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, stops=STOPS, cuts=st.lists(st.integers(0, 24), max_size=8))
@example(text="aab", stops=["ab"], cuts=[1, 2])
@example(text="aaab", stops=["aab"], cuts=[3])
@example(text="abab", stops=["abb", "bab"], cuts=[])
@example(text="abc", stops=["b", "abc"], cuts=[])
@example(text="abc", stops=["bc", "abc", "c"], cuts=[1, 2])
def test_however_a_text_is_cut(text, stops, cuts):
    pieces = pieces_of(text, cuts)
    assert "".join(pieces) == text
    given_on, done = passed_on(stops, pieces)
    joined = "".join(given_on)
    assert joined == before(text, stops)
    assert done == any(stop in text for stop in stops)
    assert not any(stop in joined for stop in stops)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, stops=STOPS)
def test_no_more_is_held_back_than_may_become_a_stop(text, stops):
    ending, sent = Ending(stops), ""
    for count, character in enumerate(text, 1):
        sent += ending.add(character)
        seen = text[:count]
        if any(stop in seen for stop in stops):
            assert ending.done, "told with the stop's last character"
            assert sent == before(seen, stops)
        else:
            assert not ending.done
            assert sent == seen[: count - open_end(seen, stops)]


def test_without_stops_everything_passes_at_once():
    assert passed_on((), ["one", "", " two"]) == (["one", "", " two", ""], False)
    assert Ending().add("x") == "x"


def test_a_stop_that_is_split_over_pieces():
    assert passed_on(["User:"], ["Yes.\nU", "se", "r", ": and", " you"]) == (["Yes.\n", "", "", "", "", ""], True)
    assert passed_on(["User:"], list("a User:x")) == (["a", " ", *[""] * 7], True)


def test_a_stop_that_never_completes_is_text():
    assert passed_on(["User:"], ["the Use", "d"]) == (["the ", "Used", ""], False)
    assert passed_on(["User:"], ["the User"]) == (["the ", "User"], False)
    assert passed_on(["\n\n"], ["a\n", "b\n"]) == (["a", "\nb", "\n"], False)


@pytest.mark.parametrize("pieces", [["###x"], ["#", "##x"], list("###x"), ["", "###", ""]])
def test_a_stop_at_the_very_first_character(pieces):
    given_on, done = passed_on(["###"], pieces)
    assert "".join(given_on) == ""
    assert done


def test_after_a_stop_nothing_comes():
    ending = Ending(["."])
    assert ending.add("a.b.c") == "a"
    assert ending.add("more") == ending.end() == ending.add("again") == ""
    assert ending.done


def test_the_end_is_told_once():
    ending = Ending(["ab"])
    assert ending.add("xa") == "x"
    assert (ending.end(), ending.end()) == ("a", "")
    assert not ending.done


def test_the_first_that_is_complete_ends_the_text():
    assert passed_on(["abcd", "c"], ["abcd"]) == (["ab", ""], True)
    assert passed_on(["bc", "abc"], ["xabc"]) == (["x", ""], True)
    assert passed_on(["ab", "ab"], ["xab"]) == (["x", ""], True)


def test_characters_are_compared_as_they_are():
    assert passed_on(["é"], ["e\u0301 É é!"])[0][0] == "e\u0301 É "
    assert passed_on(["👩"], ["👩\u200d👧"]) == (["", ""], True)
    assert passed_on(["STOP"], ["stop"]) == (["stop", ""], False)
    assert passed_on(["日本"], ["今日", "本"]) == (["今", "", ""], True)


def test_a_stop_that_repeats_itself_takes_no_longer():
    """A search that begins anew after every mismatch would take minutes."""
    stop = "a" * 20_000 + "b"
    text = "a" * 60_000
    ending = Ending([stop])
    assert sum(len(ending.add(text[start : start + 3])) for start in range(0, len(text), 3)) == 40_000
    assert ending.add("b") == ""
    assert ending.done


@pytest.mark.parametrize("stops", ["\n", "", b"x", 5, None])
def test_stops_that_are_no_sequence_of_texts(stops):
    with pytest.raises(QuestionError, match=r"^(stop sequences are a sequence|a stop sequence is text)"):
        Ending(stops)


@pytest.mark.parametrize(
    ("stop", "told"),
    [("", "is empty"), (3, "not int"), (None, "not NoneType"), (b"x", "not bytes"), ("\ud800", "surr")],
)
def test_a_stop_that_is_none(stop, told):
    with pytest.raises(QuestionError, match=f"^a stop sequence .*{told}"):
        Ending(["fine", stop])
