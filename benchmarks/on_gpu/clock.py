"""Times on the GPU: contenders in turn, each as replays of a graph, so that what the host does is not in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mova_export.bench.timing import Spread

REGION_SECONDS = 1e-3
"""What lies between two events at least: they tick in half microseconds."""

WARM_UP = 3


@dataclass(frozen=True)
class Timed:
    """Seconds of one run on the GPU. `graph`: whether it was replayed; else launches by the host may count too."""

    seconds: Spread
    graph: bool


def measure(contenders: Mapping[str, Callable[[int], Any]], sets: int, repeats: int) -> dict[str, Timed]:
    """Time contenders beside each other.

    Args:
        contenders: by name; each is called with the number of the set of inputs to work on.
        sets: sets of inputs, taken in turn so that a run doesn't find its inputs in the cache.
        repeats: timed regions of each.
    """
    passes = {name: _one_pass(run, sets) for name, run in contenders.items()}
    loops = {name: max(1, math.ceil(REGION_SECONDS / _region(go, 1))) for name, (go, _) in passes.items()}
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(repeats):
        for name, (go, _) in passes.items():
            times[name].append(_region(go, loops[name]) / loops[name] / sets)
    return {name: Timed(Spread.of(times[name]), graph) for name, (_, graph) in passes.items()}


def _one_pass(run: Callable[[int], Any], sets: int) -> tuple[Callable[[], None], bool]:
    """All sets once: the replay of a graph, or calls where the work can't be captured."""

    def plainly() -> None:
        for index in range(sets):
            run(index)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            plainly()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            plainly()
    except RuntimeError:
        torch.cuda.synchronize()
        return plainly, False
    return graph.replay, True


def _region(go: Callable[[], None], loops: int) -> float:
    """Seconds between two events around so many passes."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(loops):
        go()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
