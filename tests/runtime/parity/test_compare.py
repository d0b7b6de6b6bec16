"""The figures of a difference against their definitions, and which of them notices what."""

import json

import numpy as np
import pytest

from mova_runtime.bundle.manifest import PRECISIONS
from mova_runtime.bundle.schema import to_json
from mova_runtime.parity.bars import BARS
from mova_runtime.parity.compare import compare

ROWS, CHANNELS = 2304, 64


@pytest.fixture
def expected():
    return np.random.default_rng(0).standard_normal((1, ROWS, CHANNELS)).astype(np.float32)


def test_figures(expected):
    found = expected.copy()
    found[0, 7, 5] += 3
    difference = compare("features", found, expected)
    x, y = found.ravel().astype(np.float64), expected.ravel().astype(np.float64)
    assert difference.output == "features"
    assert difference.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
    assert difference.relative_l2 == pytest.approx(3 / np.linalg.norm(y), rel=1e-6)
    assert difference.max_abs == pytest.approx(3, rel=1e-6)
    assert difference.worst == (0, 7, 5)
    assert difference.worst_row == pytest.approx(3 / np.sqrt((y**2).sum() / ROWS), rel=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_has_a_bar_that_the_same_array_passes(expected, precision):
    assert BARS[precision].passes(compare("x", expected, expected))
    assert BARS[precision].passes(compare("x", expected * np.float32(1 + 1e-5), expected))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("another scale, which no cosine notices", lambda x: x * 1.5),
        ("one token of thousands", lambda x: np.where(np.arange(ROWS)[:, None] == 1000, x[:, ::-1], x)),
        ("one token lost", lambda x: np.where(np.arange(ROWS)[:, None] == 3, 0, x)),
        ("tokens in another order", lambda x: np.roll(x, 1, axis=1)),
        ("NaN", lambda x: np.where(np.arange(ROWS)[:, None] == 9, np.nan, x)),
        ("infinity", lambda x: np.where(np.arange(ROWS)[:, None] == 9, np.inf, x)),
        ("zeros", np.zeros_like),
        ("another shape", lambda x: x[:, 1:]),
    ],
)
def test_a_fault_passes_no_bar(expected, precision, fault, spoil):
    assert not BARS[precision].passes(compare("x", spoil(expected), expected)), fault


def test_one_lost_token_is_seen_by_its_row_alone(expected):
    spoilt = expected.copy()
    spoilt[0, 3] = 0
    difference = compare("x", spoilt, expected)
    assert difference.cosine > BARS["bf16"].cosine
    assert difference.relative_l2 < BARS["bf16"].relative_l2
    assert difference.worst_row > BARS["int4"].worst_row


def test_zeros_and_nothing():
    zeros, nothing = np.zeros((2, 3)), np.zeros((0, 3))
    assert BARS["fp32"].passes(compare("x", zeros, zeros))
    assert not BARS["int4"].passes(compare("x", np.ones((2, 3)), zeros))
    assert BARS["fp32"].passes(compare("x", nothing, nothing))
    assert BARS["fp32"].passes(compare("x", np.float32(1), np.float32(1)))


def test_what_the_manifest_keeps_is_rounded(expected):
    noise = np.random.default_rng(1).standard_normal(expected.shape)
    parity = compare("x", expected + 1e-2 * noise, expected).rounded()
    assert json.dumps(to_json(parity)) == json.dumps(
        {"output": "x", "relative_l2": 0.01, "max_abs": parity.max_abs, "cosine": 0.99995}
    )
    assert compare("x", expected, expected).rounded().cosine == 1.0
