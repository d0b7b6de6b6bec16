"""Peak memory of requests with one expert each, beside a process that has every engine loaded."""

from __future__ import annotations

import argparse
from statistics import mean
from typing import Any

from contenders import Ours
from stand_by import StandBy

from mova_runtime.bundle import Bundle

RUNS = 2
"""Of the process that has everything: in the first one, engines are checked."""


def peaks(given: argparse.Namespace, bundle: Bundle) -> dict[str, Any]:
    """MiB at the peak of a process: by expert, their mean, with everything in memory, and the mean's share of that.

    Raises:
        MovaError: it can't be measured.
    """
    experts = [expert.name for expert in bundle.manifest.vision.experts]

    def first_request(expert: str, **bounds: Any) -> StandBy:
        process = StandBy(expert, Ours, bundle.root, (expert,), given.threads, {**given.options, **bounds})
        process.ask("fresh")
        if given.answer:
            process.ask("answer")
        return process

    found: dict[str, Any] = {"request": "answer" if given.answer else "encode", "budget": given.memory_budget}
    for _ in range(RUNS):
        with first_request(experts[0]) as process:
            found["engines"] = process.ask("everything")
            process.ask("named")  # a request while they are all there
            found |= process.ask("choice")
            found["everything"] = process.ask("memory")["peak"]
    found["one_expert"] = {}
    for expert in experts:
        with first_request(expert, memory_budget=given.memory_budget) as process:
            found["one_expert"][expert] = process.ask("memory")["peak"]
    found["mean"] = mean(found["one_expert"].values())
    found["share"] = found["mean"] / found["everything"]
    return found
