"""Routing that ends early, beside routing that is heard out: the script tells them apart, and what was saved."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import routing

from mova_runtime import ParityError

EXPERTS = ("vary", "sam")


def one(tokens: tuple[int, int], speaking: tuple[float, float] = (2.0, 1.0), *, same: bool = True) -> routing.Routed:
    return routing.Routed(EXPERTS, same, tokens, (speaking[0] + 2, speaking[1] + 2), speaking, 0.1)


def test_what_was_saved_is_told_beside_what_tokens_promise() -> None:
    found = routing.summary([one((16, 6)), one((16, 16)), one((16, 11), (2.0, 1.6))])
    assert (found["routings"], found["equal"], found["ended_early"]) == (3, 3, 2)
    assert found["tokens_heard"] == [32, 17]
    assert found["saved_seconds"] == pytest.approx(1.4)
    assert found["promised_seconds"] == pytest.approx(1.5)
    assert found["share_saved"]["median"] == pytest.approx(0.175)


def test_nobody_ended_early() -> None:
    assert "saved_seconds" not in routing.summary([one((16, 16))])


@pytest.fixture
def given(bundle: Callable[[int], Path]) -> argparse.Namespace:
    return argparse.Namespace(seeds=[2], models=3, pace=1.0, bundles=bundle(2).parent)


def test_golden_questions_and_drawn_models(given: argparse.Namespace, tmp_path: Path) -> None:
    found = routing.measure(given, given.bundles)
    assert found["golden"]["routings"] == found["golden"]["equal"] == 3
    assert found["golden"]["ended_early"] > 0
    assert found["drawn"]["routings"] == found["drawn"]["equal"] == 3
    assert found["drawn"]["with_experts"] == found["slow"]["with_experts"] > 0


def test_other_experts_are_noticed(given: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    routed = routing.routed
    monkeypatch.setattr(routing, "routed", lambda *asked: dataclasses.replace(routed(*asked), same=False))
    given.models = 1
    with pytest.raises(ParityError, match="chooses others: golden, drawn, slow"):
        routing.measure(given, given.bundles)
