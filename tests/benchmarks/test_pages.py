"""Tables in pages are those of the results that lie beside the scripts."""

from __future__ import annotations

import copy

import full_size
import pytest
from pages import END, mark, with_table

from bench_results import full_size as made_up


def test_a_table_stands_between_its_marks() -> None:
    page = f"a\n{mark('one.py')}old\n{END}\nb\n{mark('two.py')}other\n{END}\n"
    assert with_table(page, "two.py", "new\n") == f"a\n{mark('one.py')}old\n{END}\nb\n{mark('two.py')}new\n{END}\n"


@pytest.mark.parametrize("page", ["", "text\n", mark("one.py"), END])
def test_a_page_without_marks(page: str) -> None:
    with pytest.raises(ValueError, match=r"no place for the table of benchmarks/one\.py"):
        with_table(page, "one.py", "new\n")


def test_the_page_has_the_tables_of_the_results() -> None:
    page = full_size.PAGE.read_text(encoding="utf-8")
    assert with_table(page, full_size.SCRIPT, full_size.tables(full_size.kept())) == page


def test_runs_are_joined() -> None:
    """Each contender once, as the first run found it; requests of the run that has them."""
    whole = made_up()
    narrow, wide = copy.deepcopy(whole), copy.deepcopy(whole)
    for run, precision in ((narrow, "bf16"), (wide, "fp32")):
        for found in run["components"].values():
            found["contenders"] = [one for one in found["contenders"] if one["label"].endswith(precision)]
            found["ratios"] = {k: v for k, v in found["ratios"].items() if k.endswith(precision)}
        run["routes"], run["everything"] = [], None
    again = copy.deepcopy(whole)
    for found in again["components"].values():
        for one in found["contenders"]:
            one["run"] = None
        found["ratios"] = {ours: dict.fromkeys(theirs) for ours, theirs in found["ratios"].items()}
    assert full_size.tables(full_size.joined([narrow, wide, again])) == full_size.tables(full_size.joined([whole]))


def test_what_is_missing_is_a_dash() -> None:
    results = made_up()
    sam = results["components"]["sam"]
    sam["operations"] = None
    sam["contenders"] = [one for one in sam["contenders"] if one["label"] in ("ort fp32", "torch bf16")]
    sam["contenders"][0] |= {"run": None, "load_cold": None, "memory": None}
    times, memory, _ = (
        line.strip("| ").split(" | ")
        for line in full_size.tables(full_size.joined([results])).splitlines()
        if line.startswith("| sam |")
    )
    theirs = sam["contenders"][1]["run"]["median"]
    assert times[:6] == ["sam", "–", "–", "–", "–", "–"]
    assert float(times[6]) == pytest.approx(theirs, abs=0.06)
    assert times[8] == "–"
    assert memory[1].startswith("– / ")
    assert memory[1].endswith("; –")
    assert memory[2:4] == ["–", "–"]


def test_requests_and_what_one_expert_takes_of_everything() -> None:
    results = made_up()
    results["routes"][0] |= {"first_visual_token": None, "second_question": None, "memory": None, "hidden": None}
    lines = full_size.tables(full_size.joined([results])).splitlines()
    none, one = lines[-2 - len(results["routes"]) :][:2]
    assert none == "| none | – | – | – | – | – | – | –, – | – |"
    told = results["routes"][1]
    assert one.split(" | ")[0] == f"| {', '.join(told['experts'])}"
    assert float(one.split(" | ")[1]) == pytest.approx(told["first_visual_token"]["fresh"], abs=0.06)
    assert lines[-1].startswith("Everything loaded at once, without a language model: ")
    assert lines[-1].endswith("a request with one expert, on average: **0.31** of that.")
    results["everything"] = None
    assert "Everything" not in full_size.tables(full_size.joined([results]))
