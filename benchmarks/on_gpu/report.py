"""What a run found: checks, times, goals, and what was not there; section by section."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from on_gpu.agreement import Check
from on_gpu.clock import Timed
from on_gpu.setting import NotThereError


@dataclass(frozen=True)
class Goal:
    """A figure of merit and what it should be: at least the bar, or at most."""

    name: str
    value: float
    bar: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar


@dataclass
class Section:
    """One section's findings.

    facts: single numbers; missing: what was not there, and why; failed: what broke it off.
    """

    checks: list[Check] = field(default_factory=list)
    times: dict[str, dict[str, Any]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: str = ""

    def check(self, check: Check) -> bool:
        """Keep a check; whether it passed."""
        self.checks.append(check)
        return check.passed

    def time(self, what: str, timed: dict[str, Timed], operations: float = 0, moved: float = 0) -> None:
        """Keep times of contenders, with the rates that follow from so many operations or bytes."""
        self.times[what] = {
            name: {
                **asdict(one),
                **({"operations_per_second": operations / one.seconds.median} if operations else {}),
                **({"bytes_per_second": moved / one.seconds.median} if moved else {}),
            }
            for name, one in timed.items()
        }

    def goal(self, name: str, value: float, bar: float, *, at_least: bool = False) -> None:
        """Keep a figure of merit."""
        self.goals.append(Goal(name, value, bar, at_least))

    @property
    def sound(self) -> bool:
        """Nothing was found wrong."""
        return not self.failed and all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "checks": [{**asdict(check), "passed": check.passed} for check in self.checks],
            "times": self.times,
            "goals": [{**asdict(goal), "met": goal.met} for goal in self.goals],
            "facts": self.facts,
            "missing": self.missing,
            "failed": self.failed,
        }


def attempt(name: str, work: Callable[[Section], None]) -> Section:
    """Do a section; whatever befalls it stays in it."""
    section = Section()
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        work(section)
    except NotThereError as error:
        section.missing[name] = str(error)
    except Exception:  # noqa: BLE001  # the other sections are worth their time all the same
        section.failed = traceback.format_exc()
        print(section.failed, file=sys.stderr, flush=True)
    return section


def table(sections: dict[str, Section]) -> Iterable[str]:
    """The run in short: what is wrong or missing first, then times and goals."""
    for name, section in sections.items():
        passed = sum(check.passed for check in section.checks)
        worst = max((check.error / check.bar for check in section.checks if check.bar), default=0.0)
        yield f"{name:12} {passed} of {len(section.checks)} checks passed, worst at {worst:.2f} of its bar"
        yield from (f"  WRONG {check.name}: {check.error:.2e}, {check.bar:.0e} allowed" for check in _wrong(section))
        yield from (f"  not there: {what}: {why}" for what, why in section.missing.items())
        if section.failed:
            yield f"  BROKE OFF {section.failed.strip().splitlines()[-1]}"
    for section in sections.values():
        yield from (f"{fact}: {value:.3g}" for fact, value in section.facts.items())
        for what, contenders in section.times.items():
            yield what
            yield from (f"  {contender:34} {_times(found)}" for contender, found in contenders.items())
    goals = [goal for section in sections.values() for goal in section.goals]
    yield from (f"{'met   ' if goal.met else 'MISSED'} {_goal(goal)}" for goal in goals)


def _wrong(section: Section) -> list[Check]:
    return [check for check in section.checks if not check.passed]


def _times(found: dict[str, Any]) -> str:
    spread = found["seconds"]
    text = f"{spread['median'] * 1e6:9.1f} µs ({spread['p10'] * 1e6:.1f} to {spread['p90'] * 1e6:.1f})"
    if rate := found.get("operations_per_second"):
        text += f"  {rate / 1e12:6.1f} TFLOP/s"
    if rate := found.get("bytes_per_second"):
        text += f"  {rate / 1e12:6.2f} TB/s"
    return text if found.get("graph", True) else f"{text}  launched by the host"


def _goal(goal: Goal) -> str:
    return f"{goal.name}: {goal.value:.2f}, goal {'≥' if goal.at_least else '≤'} {goal.bar}"
