"""How alike two language models go on, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mova_export.agreement import PROMPTS, agreement
from mova_runtime.bundle.manifest import Agreement


def test_a_model_agrees_with_itself() -> None:
    logits = [np.random.default_rng(seed).normal(size=(1, 1, 50)).astype(np.float32) for seed in range(5)]
    assert agreement(logits, logits) == Agreement(5, 1.0, 0.0)
    shifted = agreement(logits, [found + 3 for found in logits])
    assert shifted.tokens == 1
    assert shifted.divergence == pytest.approx(0, abs=1e-9), "a constant changes nothing"


def test_by_hand() -> None:
    half, quarter = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    found = agreement([half, quarter], [quarter, quarter])
    assert (found.prompts, found.tokens) == (2, 0.5)
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert found.divergence == pytest.approx(first / 2, rel=0.05)


def test_logits_far_from_zero() -> None:
    assert agreement([np.array([1e4, 0.0])], [np.array([0.0, -1e4])]) == Agreement(1, 1.0, 0.0)


def test_prompts_are_many_and_different() -> None:
    assert len(set(PROMPTS)) == len(PROMPTS) == 32
