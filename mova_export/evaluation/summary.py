"""What a run did, and what was there before it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from mova_export.evaluation.progress import duration
from mova_export.evaluation.record import Run
from mova_export.evaluation.shard import Shard
from mova_runtime import Answer

FORMAT = "mova-eval"
VERSION = 1

SHOWN = 0.01
"""Of the time that answering took: a stage's share from which on it has a line for people."""

Kind = Literal["line", "image", "question", "memory"]
"""What was wrong: the question's line, its image, the question itself, or it needs more memory than there is."""


@dataclass(frozen=True)
class Failure:
    """A question without an answer. line: of the question file; kind and why: what was wrong."""

    line: int
    kind: Kind
    why: str


@dataclass
class Summary:
    """Counts of a run as it goes on.

    total: questions that fall to it, bad lines included; before: how many of them had an answer; routes: how often each
    set of experts was used, in all answers that there are. All else is of this run alone. stages: seconds in the thread
    that asked, by name; ahead: in others, where engines are loaded ahead; answering: seconds that all its answers took;
    seconds: of the run, from its first question on.
    """

    run: Run
    shard: Shard
    total: int
    before: int
    routes: Counter[tuple[str, ...]]
    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    finishes: Counter[str] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=dict)
    ahead: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    prompt_tokens: int = 0
    hits: int = 0
    misses: int = 0
    answering: float = 0.0
    seconds: float = 0.0

    def add(self, answer: Answer, seconds: float) -> None:
        """Count an answer that took so many seconds, in the thread that asked for it."""
        self.answered += 1
        self.routes[answer.routing.experts] += 1
        self.finishes[answer.stats.finish] += 1
        self.tokens += len(answer.tokens)
        self.prompt_tokens += answer.stats.prompt_tokens
        self.hits += answer.stats.cache["hits"]
        self.misses += answer.stats.cache["misses"]
        self.answering += seconds
        here = threading.current_thread().name
        for stage in answer.stats.stages:
            where = self.stages if stage["thread"] == here else self.ahead
            where[stage["name"]] = where.get(stage["name"], 0.0) + stage["ms"] / 1000

    @property
    def experts(self) -> Counter[str]:
        """How often each expert was used, in all answers that there are."""
        counts: Counter[str] = Counter()
        for experts, times in self.routes.items():
            counts.update(dict.fromkeys(experts, times))
        return counts

    @property
    def rate(self) -> float:
        """Answers a minute, in this run."""
        return 60 * self.answered / self.seconds if self.seconds else 0.0

    @property
    def missing(self) -> int:
        """Questions without an answer."""
        return self.total - self.before - self.answered

    def to_json(self) -> dict[str, Any]:
        """Plain data; times in seconds, shares from 0 to 1 of the time that answering took."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model_id": self.run.model_id,
            "options": self.run.options.to_json(),
            "shard": str(self.shard),
            "questions": self.total,
            "answered": {"before": self.before, "now": self.answered},
            "failed": dict(Counter(failure.kind for failure in self.failures)),
            "failures": [vars(failure) for failure in self.failures],
            "routes": [{"experts": list(route), "answers": times} for route, times in self.routes.most_common()],
            "experts": dict(self.experts.most_common()),
            "finish": dict(self.finishes.most_common()),
            "seconds": round(self.seconds, 3),
            "questions_a_minute": round(self.rate, 3),
            "stages": [
                {"name": name, "seconds": round(seconds, 3), "share": round(self._share(seconds), 4)}
                for name, seconds in _longest_first(self.stages)
            ],
            "ahead": [{"name": name, "seconds": round(seconds, 3)} for name, seconds in _longest_first(self.ahead)],
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "cache": {"hits": self.hits, "misses": self.misses},
        }

    def lines(self) -> Iterable[str]:
        """For people."""
        there = self.before + self.answered
        yield f"{there} of {self.total} questions answered: {self.answered} by this run, {self.before} before it"
        if self.failures:
            kinds = Counter(failure.kind for failure in self.failures)
            yield "not answered, and why: " + ", ".join(f"{kind} {times}" for kind, times in kinds.most_common())
        if there:
            yield f"experts of all {there} answers:"
            for route, times in self.routes.most_common():
                yield f"  {', '.join(route) or 'none':<40} {times:>7} {times / there:>6.1%}"
            if counts := self.experts:
                yield "  each: " + ", ".join(f"{name} {times}" for name, times in counts.most_common())
        if self.answered:
            yield f"time of this run: {duration(self.seconds)}, {self.rate:.1f} answers a minute"
            shown = dict(one for one in _longest_first(self.stages) if self._share(one[1]) >= SHOWN)
            shown["other"] = max(self.answering - sum(shown.values()), 0.0)
            for name, seconds in shown.items():
                yield f"  {name:<40} {seconds:>9.2f} s {self._share(seconds):>6.1%}"
            if self.ahead:
                yield f"  beside it, engines loaded ahead of their use: {sum(self.ahead.values()):.2f} s"
            yield f"tokens: {self.tokens} said, {self.prompt_tokens} read in answers' prompts"
            yield f"feature cache: {self.hits} found, {self.misses} computed"

    def _share(self, seconds: float) -> float:
        return seconds / self.answering if self.answering else 0.0


def _longest_first(seconds: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda one: -one[1])
