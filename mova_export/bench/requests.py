"""Whole requests in a process of their own: what the router's choices cost, from the bundle's folder to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from time import perf_counter
from typing import Any

import numpy as np

import mova_runtime as mova
from mova_export.bench import memory
from mova_export.bench.subject import EngineSubject
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.engines.choice import choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.prefetch import THREAD
from mova_runtime.images.decode import decode
from mova_runtime.trace import Trace, loading

Answer = dict[str, Any]

QUESTIONS = ("Which bar is the tallest, and what is its value?", "Who drew this chart, and when?")
TOKENS = 16
"""Of an answer, at most."""

_IMAGE = resources.files("mova_export.demo") / "chart.png"
_ADAPTER = "adapter"


def know(bundle: str, backend: str, precision: str, threads: int, components: Sequence[str]) -> Answer:
    """Have engines checked and measured that never were on this machine, so that no request that is timed does it."""
    opened = Bundle.open(bundle)
    loader = Loader(opened, choose_in_order(opened, backend, precision), threads)
    unknown = [name for name in components if not loader.is_known(name)]
    for name in unknown:
        loader.load(name, Trace(), final=True).engine.close()
    return {"checked": unknown}


def route(
    bundle: str, backend: str, precision: str, threads: int, experts: Sequence[str], memory_budget: int | None
) -> Answer:
    """A request in a fresh process, one about another image, and a second question about that.

    Everything is counted from before the bundle is opened, or from when the question is asked. The peak is that of the
    first request, the libraries included.
    """
    image = decode(_IMAGE.read_bytes())
    other = np.ascontiguousarray(np.asarray(image)[:, ::-1])
    start = perf_counter()
    with mova.open(
        bundle, backend=backend, precision=precision, threads=threads, memory_budget=memory_budget
    ) as runtime:
        clock = perf_counter()
        fresh = _ask(runtime, image, QUESTIONS[0], experts, start, clock)
        peak = memory.peak(None).host
        resident = _ask(runtime, other, QUESTIONS[0], experts, perf_counter(), clock)
        second = _ask(runtime, other, QUESTIONS[1], experts, perf_counter(), clock)
    speaks = resident["first_answer_token"] is not None
    return {
        "first_visual_token": {"fresh": fresh["first_visual_token"], "resident": resident["first_visual_token"]},
        "first_answer_token": {"fresh": fresh["first_answer_token"], "resident": resident["first_answer_token"]}
        if speaks
        else None,
        "tokens_per_second": resident["tokens_per_second"],
        "second_question": second["first_answer_token"] or second["first_visual_token"],
        "memory": {"peak": peak},
        "hidden": fresh["hidden"],
        "stages": fresh["stages"],
    }


def everything(bundle: str, engines: Sequence[Sequence[Any]], threads: int) -> Answer:
    """All of these (component, backend, precision) loaded at once, and each run on its probe: the peak of it."""
    opened = Bundle.open(bundle)
    subjects = [EngineSubject(opened, name, backend, precision, threads) for name, backend, precision in engines]
    for subject in subjects:
        subject.start()
        subject.load()
    for subject in subjects:
        subject.run()
    return {"peak": memory.peak(None).host}


def _ask(
    runtime: mova.Runtime, image: Any, question: str, experts: Sequence[str], start: float, clock: float
) -> Answer:
    """A request; times in seconds from its start.

    Args:
        runtime: to ask.
        image: what about.
        question: asked.
        experts: to use.
        start: when it began.
        clock: when the runtime's trace began.
    """
    before = len(_stages(runtime, clock))
    if LANGUAGE_MODEL in runtime.manifest.components:
        runtime.answer(image, question, experts, TOKENS)
    else:
        runtime.encode(image, question, experts)
    stages = [{**stage, "start": stage["start"] - start} for stage in _stages(runtime, clock)[before:]]
    fused = [stage["start"] + stage["duration"] for stage in stages if stage["name"].startswith(_ADAPTER)]
    hidden = loading([{**stage, "ms": stage["duration"] * 1e3} for stage in stages], THREAD)
    return {
        "first_visual_token": max(fused, default=None),
        **_spoken(stages),
        "hidden": {
            "loading": hidden["ms"] / 1e3,
            "waited": hidden["exposed_ms"] / 1e3,
            "hidden": hidden["hidden_ms"] / 1e3,
        },
        "stages": stages,
    }


def _spoken(stages: Sequence[Answer]) -> Answer:
    """When the answer's first token came, and how fast those after it; None where there are none."""
    answers = [stage for stage in stages if stage["name"] == "answer"]
    if not answers or not answers[0]["facts"]["tokens"]:
        return {"first_answer_token": None, "tokens_per_second": None}
    facts = answers[0]["facts"]
    more, seconds = facts["tokens"] - 1, facts["rest_ms"] / 1e3
    first = answers[0]["start"] + facts["first_token_ms"] / 1e3
    return {"first_answer_token": first, "tokens_per_second": more / seconds if more and seconds else None}


def _stages(runtime: mova.Runtime, clock: float) -> list[Answer]:
    """All requests' stages so far, by their start: `name`, `start` and `duration` in seconds, `thread`, `facts`."""
    events = runtime.trace()["traceEvents"]
    threads = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    return [
        {
            "name": event["name"],
            "start": clock + event["ts"] / 1e6,
            "duration": event["dur"] / 1e6,
            "thread": threads[event["tid"]],
            "facts": event["args"],
        }
        for event in events
        if event["ph"] == "X"
    ]
