"""Which token follows: the most likely one, or one drawn from the likely ones."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from numbers import Real

import numpy as np

from mova_runtime.errors import BackendError, QuestionError

_BLOCK = 512


@dataclass(frozen=True)
class Sampling:
    """How tokens are picked; the default is the most likely one, always.

    temperature: 0 is greedy; what logits are divided by, so that below 1 the likely become likelier.
    top_p: tokens are drawn from the smallest set whose probabilities reach this sum, the likeliest first; 1 is all.
    seed: the same gives the same tokens for the same logits; None draws anew each time.

    Raises:
        QuestionError: temperature is not a number from 0 up, top_p not one above 0 and at most 1, or seed neither None
            nor a whole number from 0 up.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= _number(self.temperature) < math.inf:
            raise QuestionError(f"temperature must be a number from 0 up, not {self.temperature!r}")
        if not 0 < _number(self.top_p) <= 1:
            raise QuestionError(f"top_p must be a number above 0 and at most 1, not {self.top_p!r}")
        if self.seed is not None and not _is_seed(self.seed):
            raise QuestionError(f"seed must be a whole number from 0 up, or None, not {self.seed!r}")


class Sampler:
    """Picks the tokens of one answer. With a seed, two samplers pick alike."""

    def __init__(self, sampling: Sampling) -> None:
        """`sampling` has been checked; a greedy one makes no random numbers."""
        self._temperature = float(sampling.temperature)
        self._top_p = float(sampling.top_p)
        seed = None if sampling.seed is None else operator.index(sampling.seed)
        self._generator = np.random.Generator(np.random.PCG64(seed)) if self._temperature else None
        self._room = np.empty((2, 0))
        """Kept between tokens: a megabyte that is new costs more than the sums in it."""

    def pick(self, logits: np.ndarray) -> int:
        """The next token's id; of equally likely ones the lowest where one must be preferred.

        Args:
            logits: [vocabulary] float32; minus infinity for a token that must not occur.

        Raises:
            BackendError: they hold NaN or plus infinity, or allow no token.
        """
        likeliest = int(logits.argmax())  # the first NaN, if there is one
        if not math.isfinite(logits[likeliest]):
            raise BackendError(
                f"the language model's logits hold {float(logits[likeliest])}, so no token is the likeliest; "
                "see `mova verify`, or use another precision or backend"
            )
        if self._generator is None:
            return likeliest
        return self._draw(self._generator, logits, logits[likeliest])

    def _draw(self, generator: np.random.Generator, logits: np.ndarray, largest: np.float32) -> int:
        """A token of the smallest set that reaches `top_p`, by its probability.

        Nothing is sorted. A token is drawn from all of them; it belongs to the set if those before it, by probability
        and then by id, do not reach `top_p`. If it does not, neither does any that comes after it: they are left out,
        and another one is drawn. That happens to one draw of ten at 0.9, and each time about half of what is too much
        goes.
        """
        if self._room.shape[1] != len(logits):
            self._room = np.empty((2, len(logits)))
        weights, likelier = self._room
        np.subtract(logits, largest, out=weights, dtype=np.float64)
        with np.errstate(over="ignore"):  # of a temperature near 0: minus infinity, whose probability is 0
            weights /= self._temperature
        np.exp(weights, out=weights)
        enough = self._top_p * float(weights.sum()) if self._top_p < 1 else math.inf
        while True:
            drawn = _drawn(generator, weights)
            before = weights > weights[drawn]
            before[:drawn] |= weights[:drawn] == weights[drawn]
            if np.multiply(weights, before, out=likelier).sum() < enough:
                return drawn
            weights, likelier = likelier, weights


def _drawn(generator: np.random.Generator, weights: np.ndarray) -> int:
    """A position, each as likely as its weight: first a block of them, so that few running sums are made."""
    starts = np.arange(0, len(weights), _BLOCK)
    start = int(starts[_position(generator, np.add.reduceat(weights, starts))])
    return start + _position(generator, weights[start : start + _BLOCK])


def _position(generator: np.random.Generator, weights: np.ndarray) -> int:
    """Where the running sum passes a random share of the whole."""
    sums = np.cumsum(weights)
    total = float(sums[-1])
    # Below the total even where that is near the smallest number there is, and the product is rounded up.
    point = min(generator.random() * total, math.nextafter(total, 0))
    return int(np.searchsorted(sums, point, side="right"))


def _number(value: object) -> float:
    """NaN for what is not a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_seed(value: object) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) >= 0  # type: ignore[arg-type]
    except TypeError:
        return False
