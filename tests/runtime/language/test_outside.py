"""A language model and a router that are the caller's own: what they are given, and what becomes of what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mova_runtime as mova
from reference_data import IMAGES

CHART = IMAGES / "chart.png"


class Parrot:
    """A language model from outside: says the same whatever it is given."""

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.given = tokens, []  # type: tuple[int, ...], list[np.ndarray]

    def generate(self, embeddings: np.ndarray, *, max_new_tokens: int, stop: int, sampling: object) -> Iterator[int]:
        self.given.append(embeddings)
        yield from self.tokens


def test_a_language_model_from_outside(bundle: Callable[[int], Path]) -> None:
    parrot = Parrot(32, 11, 33, 11)  # A,B,
    with mova.open(bundle(2), language_model=parrot) as rt:
        answer = rt.answer(CHART, "Why?")
        assert answer.routing.experts == ("dinov2", "vary")
        assert answer.text == "A,B,"
        assert answer.stats.finish == "stop"
        assert "llm" not in rt.engines_loaded
        assert [given.dtype for given in parrot.given] == [np.float32] * 2
        assert len(parrot.given[1]) == answer.stats.prompt_tokens
        assert rt.answer(CHART, "Why?", (), max_new_tokens=2).text == "A,"
    with pytest.raises(mova.MovaError, match=r"generate\(\)"):
        mova.open(bundle(2), language_model=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [1.5, -1, "a", None, True, 261, 1 << 40])
def test_what_is_no_token_from_outside(bundle: Callable[[int], Path], given: object) -> None:
    with (
        mova.open(bundle(2), language_model=Parrot(given)) as rt,  # type: ignore[arg-type]
        pytest.raises(mova.BackendError, match="no token id"),
    ):
        rt.answer(CHART, "Why?", ())


def test_a_router_from_outside(bundle: Callable[[int], Path]) -> None:
    asked = []

    def router(image: object, question: str) -> list[str]:
        asked.append((type(image).__name__, question))
        return ["sam", "deplot"]

    with mova.open(bundle(2), router=router) as rt:
        answer = rt.answer(CHART, "Why?", max_new_tokens=2)
        assert answer.routing == mova.Routing(("deplot", "sam"), "", ())
        assert rt.route(CHART, "Why?").experts == ("deplot", "sam")
        assert rt.encode(CHART, "word " * 3000).tokens.size, "nobody reads a prompt"
        assert "route" not in [stage["name"] for stage in answer.stats.stages]
    assert asked[:2] == [("Image", "Why?")] * 2
    with mova.open(bundle(2), router=router) as rt:
        rt.route(CHART, "Why?")
        assert rt.engines_loaded == ()
    with mova.open(bundle(2), router=("biomedclip",)) as rt:
        assert rt.answer(CHART, "Why?", max_new_tokens=2).routing.experts == ("biomedclip",)
    with pytest.raises(mova.ExpertError, match="unknown expert"):
        mova.open(bundle(2), router=("eye",))
    with mova.open(bundle(2), router=lambda image, question: ["eye"]) as rt, pytest.raises(mova.ExpertError):
        rt.answer(CHART, "Why?")


def test_a_router_that_changes_its_image(bundle: Callable[[int], Path]) -> None:
    def router(image: Image.Image, question: str) -> list[str]:
        image.thumbnail((20, 20))
        return ["sam"]

    with mova.open(bundle(2)) as rt:
        wanted = rt.encode(CHART, "Why?", ("sam",)).tokens
    with mova.open(bundle(2), router=router) as rt:
        np.testing.assert_array_equal(rt.encode(CHART, "Why?").tokens, wanted)
        np.testing.assert_array_equal(rt.encode(CHART, "Why?", ("sam",)).tokens, wanted)


@pytest.mark.parametrize("fail", [lambda image: [], lambda image, question: 1 / 0])
def test_a_router_that_fails(bundle: Callable[[int], Path], fail: Callable[..., list[str]]) -> None:
    with (
        mova.open(bundle(2), router=fail) as rt,
        pytest.raises(mova.BackendError, match=r"the router from outside failed \((TypeError|ZeroDivisionError): "),
    ):
        rt.answer(CHART, "Why?")


class Broken:
    """A language model from outside that fails in two lines."""

    def generate(self, *_: object, **__: object) -> Iterator[int]:
        raise RuntimeError("boom\nand more")


def test_a_failure_is_one_line(bundle: Callable[[int], Path]) -> None:
    with (
        mova.open(bundle(2), language_model=Broken()) as rt,
        pytest.raises(mova.BackendError, match=r"language model from outside failed \(RuntimeError: boom and more\)"),
    ):
        rt.answer(CHART, "Why?", ())
