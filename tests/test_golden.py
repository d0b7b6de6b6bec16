"""The whole path against the published implementation: every golden seed, case and forced routing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mova_runtime as mova
from reference_data import EXPERTS, GOLDEN_SEEDS, Case, arrays, cases, relative_l2

ALL_CASES = [case for seed in GOLDEN_SEEDS for case in cases(seed)]
INPUTS = {"clip": "pixel_clip", "dinov2": "pixel_dinov2", "high": "pixel_high", "flattened": "flattened"}

# Float32 on both sides; what differs is the order of sums. Measured: at most 3e-6.
FEATURE_TOLERANCE = 1e-4
PIXEL_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def runtime(bundle: Callable[[int], Path]) -> Iterator[Callable[[int], mova.Runtime]]:
    opened: dict[int, mova.Runtime] = {}

    def of(seed: int) -> mova.Runtime:
        if seed not in opened:
            opened[seed] = mova.open(bundle(seed))
        return opened[seed]

    yield of
    for each in opened.values():
        each.close()


def identify(case: Case) -> str:
    return f"seed{case.seed}-{case.image.stem}"


@pytest.mark.parametrize("case", ALL_CASES, ids=identify)
def test_preprocessing(case: Case, runtime: Callable[[int], mova.Runtime]) -> None:
    inputs = runtime(case.seed).preprocess(case.image)
    assert set(inputs) == set(INPUTS)
    for name, golden in INPUTS.items():
        assert inputs[name].dtype == np.float32
        np.testing.assert_allclose(inputs[name], case.array(golden), rtol=0, atol=PIXEL_TOLERANCE, err_msg=name)


@pytest.mark.parametrize("case", ALL_CASES, ids=identify)
def test_features(case: Case, runtime: Callable[[int], mova.Runtime]) -> None:
    rt = runtime(case.seed)
    assert relative_l2(rt.features(case.image, "base"), case.array("base")) < FEATURE_TOLERANCE
    for index, name in enumerate(EXPERTS):
        if case.has(f"expert{index}"):
            assert relative_l2(rt.features(case.image, name), case.array(f"expert{index}")) < FEATURE_TOLERANCE, name


def test_golden_features_cover_what_was_routed() -> None:
    covered = {name for case in ALL_CASES for index, name in enumerate(EXPERTS) if case.has(f"expert{index}")}
    assert covered == {name for case in ALL_CASES for name in case.experts}


@pytest.mark.parametrize("case", ALL_CASES, ids=identify)
def test_visual_tokens(case: Case, runtime: Callable[[int], mova.Runtime]) -> None:
    rt = runtime(case.seed)
    assert (
        relative_l2(rt.encode(case.image, case.question, ()).tokens, case.array("visual_routing")) < FEATURE_TOLERANCE
    )
    fused = rt.encode(case.image, case.question, case.experts)
    assert fused.tokens.dtype == np.float32
    assert relative_l2(fused.tokens, case.array("visual")) < FEATURE_TOLERANCE


FORCED = [(seed, name) for seed in GOLDEN_SEEDS for name in arrays(seed) if name.startswith("forced.")]


@pytest.mark.parametrize(("seed", "name"), FORCED)
def test_forced_routing(seed: int, name: str, runtime: Callable[[int], mova.Runtime]) -> None:
    case = cases(seed)[0]
    experts = [expert for expert, bit in zip(EXPERTS, name.removeprefix("forced."), strict=True) if bit == "1"]
    fused = runtime(seed).encode(case.image, case.question, experts)
    assert relative_l2(fused.tokens, arrays(seed)[name]) < FEATURE_TOLERANCE
    weighed = fused.gates.sum(axis=-1)
    np.testing.assert_allclose(weighed, 1.0 if experts else 0.0, atol=1e-6)
    assert (fused.gates > 0).sum(axis=-1).max(initial=0) <= 3


def test_forced_routings_are_none_one_three_and_seven() -> None:
    assert {name.count("1") for _, name in FORCED} == {0, 1, 3, 7}


@pytest.mark.parametrize("case", ALL_CASES, ids=identify)
def test_routing(case: Case, runtime: Callable[[int], mova.Runtime]) -> None:
    routing = runtime(case.seed).route(case.image, case.question)
    assert list(routing.tokens) == case.routing_tokens
    assert (routing.text, routing.experts) == (case.routing_text, case.experts)


@pytest.mark.parametrize("case", ALL_CASES, ids=identify)
def test_tokens(case: Case, runtime: Callable[[int], mova.Runtime]) -> None:
    answer = runtime(case.seed).answer(case.image, case.question, max_new_tokens=case.max_new_tokens)
    heard = len(answer.routing.tokens)  # no more than decides it
    assert list(answer.routing.tokens) == case.routing_tokens[:heard]
    assert answer.routing.text == case.routing_text[: len(answer.routing.text)]
    assert heard == len(case.routing_tokens) or answer.routing.text.count(",") == 3
    assert answer.routing.experts == case.experts
    assert list(answer.tokens) == case.answer_tokens
    assert answer.text == case.answer
