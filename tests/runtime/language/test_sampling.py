"""Picking tokens, against a reference that sorts: which tokens may be drawn, and how often each is."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mova_runtime.errors import BackendError, MovaError, QuestionError
from mova_runtime.language import sampling
from mova_runtime.language.sampling import Sampler, Sampling

ROUNDING = 1e-12


def logits_of(*values):
    return np.array(values, np.float32)


def drawn(how, logits, count):
    sampler = Sampler(how)
    return [sampler.pick(logits) for _ in range(count)]


def nucleus(logits, temperature, top_p, slack=0.0):
    """By token, its probability within the smallest set that reaches top_p; the likelier first, then the lower id."""
    largest = max(map(float, logits))
    weights = [math.exp((float(one) - largest) / temperature) for one in logits]
    total, reached, kept = math.fsum(weights), 0.0, {}
    for token in sorted(range(len(weights)), key=lambda token: (-weights[token], token)):
        if reached >= top_p + slack:
            break
        kept[token] = weights[token] / total
        reached += kept[token]
    return {token: share / math.fsum(kept.values()) for token, share in kept.items()}


def far_from(counts, expected, number):
    """Pearson's χ² in standard deviations from its mean; rare tokens are counted together."""
    common = {token: share for token, share in expected.items() if share * number >= 5}
    cells = [(counts[token], share * number) for token, share in common.items()]
    if (rest := 1 - math.fsum(common.values())) * number >= 5:
        cells.append((number - sum(counts[token] for token in common), rest * number))
    if len(cells) == 1:
        return 0.0
    freedom = len(cells) - 1
    return (sum((seen - told) ** 2 / told for seen, told in cells) - freedom) / math.sqrt(2 * freedom)


def test_greedy_is_the_default_and_takes_the_likeliest():
    assert Sampling() == Sampling(temperature=0.0, top_p=1.0, seed=None)
    assert Sampler(Sampling()).pick(logits_of(-3, 2, 1, -math.inf)) == 1
    assert set(drawn(Sampling(temperature=0, top_p=0.3, seed=1), logits_of(0, 1, 1, 1), 20)) == {1}
    assert set(drawn(Sampling(temperature=-0.0), logits_of(5, 4.999), 20)) == {0}


def test_a_token_is_a_plain_number():
    for how in (Sampling(), Sampling(1.0, seed=0)):
        assert type(Sampler(how).pick(logits_of(1, 2, 3))) is int


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("size", [2, 11, 1400])
def test_tokens_are_drawn_as_often_as_they_should(temperature, top_p, size):
    """The largest vocabulary takes several blocks of running sums, the last of them not full."""
    logits = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    expected, number = nucleus(logits, temperature, top_p), 6000
    counts = Counter(drawn(Sampling(temperature, top_p, seed=3), logits, number))
    assert counts.keys() <= expected.keys()
    assert far_from(counts, expected, number) < 4


def test_the_test_of_frequencies_can_fail():
    logits = np.random.default_rng(11).standard_normal(11).astype(np.float32)
    counts = Counter(drawn(Sampling(1.0, seed=3), logits, 6000))
    assert far_from(counts, nucleus(logits, 1.2, 1.0), 6000) > 4


@settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=9),
    temperature=st.sampled_from([0.2, 1.0, 4.0]),
    top_p=st.floats(0.001, 1),
    seed=st.integers(0, 2**40),
)
def test_nothing_is_drawn_from_outside_the_set(logits, temperature, top_p, seed):
    if max(logits) == -math.inf:
        logits.append(0.0)
    allowed = nucleus(logits, temperature, top_p, slack=ROUNDING)
    tokens = drawn(Sampling(temperature, top_p, seed), logits_of(*logits), 30)
    assert set(tokens) <= {token for token in allowed if logits[token] > -math.inf}


def test_of_equally_likely_tokens_the_lowest_are_in_the_set():
    equal = np.zeros(8, np.float32)
    assert set(drawn(Sampling(1.0, 0.5, seed=0), equal, 200)) == {0, 1, 2, 3}
    assert set(drawn(Sampling(1.0, 0.51, seed=0), equal, 200)) == {0, 1, 2, 3, 4}
    assert set(drawn(Sampling(1.0, 1.0, seed=0), equal, 200)) == set(range(8))
    assert set(drawn(Sampling(1.0, 0.6, seed=0), logits_of(0, 1, 0, 1, 0), 200)) == {1, 3}


@pytest.mark.parametrize("top_p", [1e-9, 5e-324])
def test_a_tiny_top_p_is_greedy(top_p):
    peaked = np.random.default_rng(1).standard_normal(3000).astype(np.float32)
    assert set(drawn(Sampling(1.0, top_p, seed=0), peaked, 20)) == {int(peaked.argmax())}
    assert set(drawn(Sampling(1.0, top_p, seed=0), np.zeros(3000, np.float32), 20)) == {0}


@pytest.mark.parametrize("temperature", [1e-5, 1e-40, 5e-324])
def test_a_tiny_temperature_leaves_the_likeliest_alone(temperature):
    assert set(drawn(Sampling(temperature, seed=0), logits_of(1, 1.5, -7, 1.499), 50)) == {1}
    assert set(drawn(Sampling(temperature, seed=0), logits_of(2, 1, 2), 50)) == {0, 2}


def test_a_huge_temperature_makes_all_alike():
    counts = Counter(drawn(Sampling(1e300, seed=0), logits_of(-40, 0, 40, 80), 4000))
    assert far_from(counts, dict.fromkeys(range(4), 0.25), 4000) < 4


def test_the_largest_numbers_there_are():
    largest = float(np.finfo(np.float32).max)
    extremes = logits_of(-largest, largest, 0, largest)
    assert set(drawn(Sampling(1.0, seed=0), extremes, 50)) == {1, 3}
    assert Sampler(Sampling()).pick(extremes) == 1


def test_what_must_not_occur_does_not():
    logits = np.full(1000, -math.inf, np.float32)
    logits[[0, 511, 512, 999]] = 0
    for top_p in (1.0, 0.99):
        assert set(drawn(Sampling(1.0, top_p, seed=0), logits, 200)) == {0, 511, 512, 999}
    assert set(drawn(Sampling(1e300, seed=0), logits, 200)) == {0, 511, 512, 999}


@pytest.mark.parametrize("how", [Sampling(), Sampling(0.7, 0.9, 1)], ids=["greedy", "drawn"])
@pytest.mark.parametrize(
    "logits",
    [(0, math.nan, 1), (math.nan,) * 3, (0, math.inf, 1), (-math.inf, -math.inf), (math.inf, math.nan)],
    ids=str,
)
def test_logits_that_are_no_numbers(how, logits):
    with pytest.raises(BackendError, match=r"logits hold (nan|inf|-inf)"):
        Sampler(how).pick(logits_of(*logits))


def test_a_seed_decides():
    logits = np.random.default_rng(5).standard_normal(500).astype(np.float32)
    first = drawn(Sampling(1.0, 0.95, seed=7), logits, 30)
    assert drawn(Sampling(1.0, 0.95, seed=7), logits, 30) == first
    assert drawn(Sampling(1.0, 0.95, seed=np.int64(7)), logits, 30) == first
    assert drawn(Sampling(1.0, 0.95, seed=8), logits, 30) != first
    assert len(set(first)) > 10
    assert len(drawn(Sampling(1.0, seed=2**200), logits, 5)) == 5


def test_a_seed_means_the_same_tomorrow():
    assert drawn(Sampling(1.0, seed=7), np.zeros(1000, np.float32), 4) == [949, 621, 447, 420]


def test_without_a_seed_each_answer_is_its_own():
    equal = np.zeros(1000, np.float32)
    assert drawn(Sampling(1.0), equal, 20) != drawn(Sampling(1.0), equal, 20)


def test_logits_are_left_as_they_were():
    logits = logits_of(1, 2, -math.inf)
    logits.flags.writeable = False
    sampler = Sampler(Sampling(1.0, 0.5, 0))
    sampler.pick(logits)
    np.testing.assert_array_equal(logits, logits_of(1, 2, -math.inf))
    assert sampler.pick(logits_of(3)) == 0, "another vocabulary"


def test_numbers_that_are_almost_nothing():
    """Their product with a random number is rounded up to their sum."""

    class Largest:
        def random(self):
            return math.nextafter(1, 0)

    assert sampling._drawn(Largest(), np.array([0.0, 5e-324, 0.0])) == 1


@pytest.mark.parametrize("temperature", [0, 1, 0.5, np.float32(0.7), 1e308])
@pytest.mark.parametrize("top_p", [1, 0.1, np.float32(0.5), 5e-324])
@pytest.mark.parametrize("seed", [None, 0, np.uint8(3), 10**30])
def test_what_makes_sense_is_taken(temperature, top_p, seed):
    assert Sampler(Sampling(temperature, top_p, seed)).pick(logits_of(0, -math.inf)) == 0


@pytest.mark.parametrize("bad", [-1, -1e-9, math.nan, math.inf, -math.inf, True, None, "1", 1j, 10**400, np.ones(1)])
def test_a_temperature_that_is_none(bad):
    with pytest.raises(QuestionError, match=r"^temperature must be a number from 0 up, not "):
        Sampling(temperature=bad)


@pytest.mark.parametrize("bad", [0, 0.0, -0.5, 1.0001, 2, 10**400, math.nan, math.inf, True, None, "0.9"])
def test_a_top_p_that_is_none(bad):
    with pytest.raises(QuestionError, match=r"^top_p must be a number above 0 and at most 1, not "):
        Sampling(temperature=1.0, top_p=bad)


@pytest.mark.parametrize("bad", [-1, 1.0, True, False, "7", math.nan, (1, 2)])
def test_a_seed_that_is_none(bad):
    with pytest.raises(QuestionError, match=r"^seed must be a whole number from 0 up, or None, not "):
        Sampling(seed=bad)
    assert issubclass(QuestionError, MovaError)
