"""Several ways to compute the same: each is compared with a reference, and those that are right are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from on_gpu.agreement import agree, poisoned
from on_gpu.clock import Timed, measure
from on_gpu.report import Section
from on_gpu.setting import NotThereError, Setting

OURS = "ours"

Way = Callable[[int], Any]
"""Takes the number of a set of inputs; returns a tensor, or a tuple that begins with the one to compare."""


@dataclass(frozen=True)
class Contest:
    """ways: by name, ours with names that begin with OURS; wanted: what set 0 gives, float32; dtype: of the inputs.

    operations, moved: floating-point operations, and bytes moved at least, of one run.
    """

    name: str
    ways: Mapping[str, Way]
    wanted: Tensor
    dtype: torch.dtype
    sets: int
    operations: float = 0
    moved: float = 0


def hold(contest: Contest, setting: Setting, section: Section) -> dict[str, Timed]:
    """Check all, time what is right; nothing is timed where ours is wrong."""
    sound: dict[str, Way] = {}
    for name, way in contest.ways.items():
        label = f"{contest.name}: {name}"
        found = outcome(label, lambda way=way: way(0), name.startswith(OURS), section)
        if found is not None and section.check(agree(label, found, contest.wanted, contest.dtype)):
            sound[name] = way
    wrong = [name for name in contest.ways if name.startswith(OURS) and name not in sound]
    if not setting.timed or wrong or not sound:
        return {}
    timed = measure(sound, contest.sets, setting.repeats)
    section.time(contest.name, timed, contest.operations, contest.moved)
    return timed


def outcome(label: str, way: Callable[[], Any], ours: bool, section: Section) -> Tensor | None:
    """The first output of a way; None where it is not there, or, not being ours, fails for whatever reason."""
    try:
        with poisoned() if ours else nullcontext():
            found = way()
    except NotThereError as error:
        section.missing[label] = str(error)
        return None
    except Exception as error:
        if ours:
            raise
        section.missing[label] = " ".join(str(error).split())[:200]
        return None
    return found[0] if isinstance(found, tuple) else found


def compiled(setting: Setting, function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile`d where there is a GPU; else calling it says that there is none."""
    if setting.gpu:
        return torch.compile(function, dynamic=False)

    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise NotThereError("nothing is compiled without a GPU")

    return refuse
