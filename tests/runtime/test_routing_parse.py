"""The router's words as experts, and a caller's own choice."""

import pytest

from mova_runtime.bundle.manifest import Expert
from mova_runtime.errors import ExpertError
from mova_runtime.routing.parse import check, parse
from reference_data import EXPERTS

KNOWN = tuple(Expert(name, letter, "high") for name, letter in zip(EXPERTS, "ABCDEFG", strict=True))


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("", ""), ("none", ""), ("None", ""), (" ", ""), (",,,", ""), ("\ufffd\x12", ""), ("123 !?", ""),
        ("A", "A"), ("G", "G"), ("A,B,C", "ABC"), ("C, B, A", "ABC"), ("A,A,A", "A"), (" B ,\nF", "BF"),
        ("BFG", "BFG"), ("ABCDEFG", "ABCDEFG"), ("A,B,C,D", "ABC"), ("A,B,C,D,E,F,G", "ABC"),
        (",,A,B", "A"), (",,,A", ""),
        ("a,b,c", ""), ("A.", "A"), ("(D)", "D"), ("HIJ", ""), ("Answer: B", "AB"),
        ("BF,G,,A", "BFG"), ("A;B;C;D", "ABCD"),
        ("\uff21", ""), (",CBDOCBDOCB\x12,CBD", "BCD"),
    ],
)  # fmt: skip
def test_answers_of_the_router(text, letters):
    assert parse(text, KNOWN) == tuple(EXPERTS["ABCDEFG".index(letter)] for letter in letters)


def test_a_caller_may_name_any_in_any_order():
    assert check((), KNOWN) == ()
    assert check(("sam", "dinov2"), KNOWN) == ("dinov2", "sam")
    assert check(["vary"], KNOWN) == ("vary",)
    assert check({"sam", "vary"}, KNOWN) == ("vary", "sam")
    assert check(reversed(EXPERTS), KNOWN) == EXPERTS


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("clip",),
            "unknown expert 'clip'; one of dinov2, vary, codetr, pix2struct, deplot, biomedclip, sam",
        ),
        (("SAM",), "unknown expert 'SAM'"),
        (("sam", ""), "unknown expert ''"),
        ((None,), "unknown expert None"),
        (([],), "unknown expert"),
        (("sam", "vary", "sam"), "an expert stands twice in sam, vary, sam"),
        ("sam", "a sequence of names, not 'sam'"),
        (b"sam", "unknown expert 115"),
        (5, "a sequence of names, not 5"),
    ],
)
def test_a_choice_that_is_none(names, message):
    with pytest.raises(ExpertError, match=message.replace("(", r"\(")):
        check(names, KNOWN)
