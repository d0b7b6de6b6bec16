"""The page of results: everything is told, nothing is fetched, and whatever is missing breaks nothing."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from bench_results import full_size
from mova_export.bench.page import render

ROOT = Path(__file__).parents[2]
SECTIONS = [
    *("summary", "overview", "latency", "ratios", "memory", "load"),
    *("routes", "timeline", "hidden", "share", "numbers"),
]


def parsed(page: str) -> ElementTree.Element:
    """The page as XML, so whatever is not closed or escaped is an error."""
    head, _, rest = page.partition("\n")
    assert head == "<!doctype html>"
    return ElementTree.fromstring(rest)


def words(element: ElementTree.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def sections(page: str) -> dict[str, ElementTree.Element]:
    return {section.attrib["id"]: section for section in parsed(page).iter("section")}


def small() -> dict[str, Any]:
    """One of everything that a page can show: quick to draw many times."""
    results = full_size()
    text, failed = results["components"]["text"], results["components"]["codetr"]["contenders"][1]
    text["contenders"] = [text["contenders"][0], failed, text["contenders"][-1]]
    text["fastest"] = "ort fp32"
    base = {"contenders": results["components"]["base"]["contenders"][:1], "fastest": "ort fp32"}
    results["components"] = {"text": text, "base": base}
    results["routes"] = results["routes"][-1:]
    (route,) = results["routes"]
    route["stages"] = route["stages"][:6]
    route["first_answer_token"] = {"fresh": 3.0, "resident": 2.0}
    route["tokens_per_second"] = 12.5
    results["machine"]["gpu"] = {"name": "Orin", "capability": "sm_87", "driver": "540.4", "memory_bytes": 2**36}
    first = text["contenders"][0]
    first["energy"] = {"joules_per_run": 0.5, "watts": 12.25, "clocks": {"sm": 1300.5, "memory": 3199.0}}
    first["device_memory"] = {"loaded": 2**29, "peak": 2**30}
    return results


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in results, containers included."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(len(value), 2)):
            yield from places(value[key], (*path, key))


def put(results: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(results)
    within = changed
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = value
    return changed


def test_all_sections_are_there_and_in_order() -> None:
    assert list(sections(render(full_size()))) == SECTIONS


def test_nothing_is_fetched_and_nothing_runs() -> None:
    page = render(full_size())
    tree = parsed(page)
    tags = {element.tag for element in tree.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "foreignObject"}
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert name not in {"href", "src", "srcset", "style"}, (element.tag, name)
            assert not name.startswith("on")
            assert "http" not in value.replace("http-equiv", "") or name == "http-equiv", (element.tag, name)
    assert not re.search(r"@import|@font-face|url\((?!#)", page)
    assert "https://" not in page
    assert "http://" not in page


def test_the_header_says_what_where_and_with_what() -> None:
    header = parsed(render(full_size())).find(".//header")
    assert header is not None
    told = words(header)
    for fact in (
        "mova-8b on AMD EPYC 9R14",
        "2 cores, 24.0 GiB, Linux 6.1.0",
        "10 components, 3.96 billion parameters",
        "3f6b0d5a3f6b0d5a",
        "onnxruntime 1.31.1, openvino 2026.4.1, torch 2.13.0",
        "commit 37ab81865ae1",
        "2026-11-22T18:04:11+00:00, load average 0.12 before and 2.04 after",
        "repeats 5",
        "backends ort, openvino",
        "mova bench mova-8b --against torch",
    ):
        assert fact in told, fact


def test_the_summary_draws_the_conclusions() -> None:
    told = words(sections(render(full_size()))["summary"])
    assert (
        "openvino bf16 is our fastest for base, dinov2, vary, codetr, pix2struct, deplot, biomedclip, sam and" in told
    )
    assert "openvino fp32 is our fastest for text." in told
    # text's fastest of ours beside the faster torch, not beside the slower one that would flatter it
    assert re.search(r"text least: 1\.23 of torch bf16\. 9 of 10 components are faster than torch\.", told)
    assert "(no expert) to" in told
    assert "31.1 % of the memory that everything takes (5.10 GiB of 16.4 GiB)" in told
    assert "1 of 50 could not be measured" in told
    assert "busy" not in told
    assert "did not come to its end" not in told


def test_a_benchmark_that_was_ended_is_told() -> None:
    results = full_size() | {"complete": False}
    assert "did not come to its end" in words(sections(render(results))["summary"])


def test_a_busy_machine_is_told() -> None:
    results = full_size()
    results["load"]["start"] = 1.6
    assert "busy when this began (load average 1.60 on 2 cores)" in words(sections(render(results))["summary"])


def test_bars_are_as_long_as_their_values_and_whiskers_reach_from_p10_to_p95() -> None:
    results = full_size()
    panel = sections(render(results))["latency"].findall(".//div[@class='panels']/div")[0]
    runs = results["components"]["base"]["contenders"]
    most = max(run["run"]["p95"] for run in runs)
    drawings = [svg for svg in panel.iter("svg") if "drawing" in svg.attrib["class"]]
    assert len(drawings) == len(runs) == 5
    for run, drawing in zip(runs, drawings, strict=True):
        (solid,) = (box for box in drawing.iter("rect") if box.attrib["class"] == "solid")
        assert float(solid.attrib["width"].rstrip("%")) == pytest.approx(100 * run["run"]["median"] / most, abs=0.01)
        (whisker,) = (
            line
            for line in drawing.iter("line")
            if line.attrib["class"] == "whisker" and line.attrib["x1"] != line.attrib["x2"]
        )
        ends = [float(whisker.attrib[side].rstrip("%")) for side in ("x1", "x2")]
        assert ends == pytest.approx([100 * run["run"][key] / most for key in ("p10", "p95")], abs=0.01)


def test_one_colour_a_contender_and_torch_apart() -> None:
    latency = sections(render(full_size()))["latency"]
    seen: dict[str, set[str]] = {}
    for bar in latency.iter("div"):
        drawing = bar.find("svg")
        if bar.attrib["class"].startswith("bar") and drawing is not None and "drawing" in drawing.attrib["class"]:
            seen.setdefault(bar[0].text or "", set()).add(drawing.attrib["class"])
    assert seen == {
        "ort fp32": {"drawing c1"},
        "openvino fp32": {"drawing c2"},
        "openvino bf16": {"drawing c3"},
        "torch fp32": {"drawing t1"},
        "torch bf16": {"drawing t2"},
    }


def test_the_table_has_every_number_and_the_reason_where_there_is_none() -> None:
    rows = [[words(cell) for cell in row] for row in sections(render(full_size()))["numbers"].iter("tr")]
    assert rows[0][:6] == ["contender", "median", "p10–p90", "p95", "first run", "runs/s"]
    assert len(rows) == 1 + 10 + 50
    assert ["base"] in rows
    ours = next(row for row in rows if row[0] == "openvino bf16")
    assert ours[1:4] == ["2.12 s", "2.07–2.23 s", "2.31 s"]
    assert ours[-2:] == ["89.7 %", "6.4e-03"]
    assert ["openvino fp32", "openvino: can't load 'codetr': there is no room for it (7.9 GiB are needed, 6.2 GiB are free)"] in rows  # fmt: skip  # noqa: E501


def test_what_only_a_gpu_has_is_shown_where_it_is() -> None:
    assert "energy a run" not in words(sections(render(full_size()))["numbers"])
    page = sections(render(small()))
    told = words(page["numbers"])
    for fact in ("energy a run", "500 mJ", "12.2 W", "sm 1,300 MHz, memory 3,199 MHz", "512 MiB"):
        assert fact in told, fact
    assert "On the device" in words(page["memory"])
    assert "Orin, sm_87, 540.4, 64.0 GiB" in render(small())


def test_parity_that_fails_is_told() -> None:
    results = small()
    judged = results["components"]["text"]["contenders"][0]["parity"]
    cells = [words(cell) for cell in sections(render(results))["numbers"].iter("td")]
    assert "3.1e-06" in cells
    judged["passed"] = False
    assert "failed, 3.1e-06" in [words(cell) for cell in sections(render(results))["numbers"].iter("td")]
    judged |= {"passed": True, "relative_l2": None}
    assert "passed" in [words(cell) for cell in sections(render(results))["numbers"].iter("td")]


def test_texts_are_escaped_wherever_they_come_from() -> None:
    evil = "<script>alert('x')</script>&\"\u0000\ud800"
    for path in places(small()):
        value: Any = small()
        for key in path:
            value = value[key]
        if isinstance(value, str):
            page = render(put(small(), path, evil))
            assert "<script" not in page, path
            parsed(page)
            page.encode()
    results = json.loads(json.dumps(small()).replace('"text"', json.dumps(evil)))
    assert "&lt;script&gt;" in render(results)
    parsed(render(results))


@pytest.mark.parametrize(
    "wrong", [None, "?", float("nan"), -1.0, 1e-320, pytest.param(10**400, id="huge"), [], [None], {"": None}]
)
def test_anything_may_be_missing_or_wrong(wrong: Any) -> None:
    for path in places(small()):
        parsed(render(put(small(), path, wrong)))


def test_any_key_may_be_absent() -> None:
    for path in places(small()):
        if path and isinstance(path[-1], str):
            results = small()
            within = results
            for key in path[:-1]:
                within = within[key]
            del within[path[-1]]
            parsed(render(results))


@pytest.mark.parametrize(
    ("emptied", "left_out"),
    [
        ({"routes": []}, {"routes", "timeline", "hidden"}),
        ({"components": {}}, {"overview", "latency", "ratios", "memory", "load", "share", "numbers"}),
        ({"components": {}, "matrix_rate": {"ort fp32": 1e9}, "routes": None}, {"overview", "latency", "ratios"}),
    ],
)
def test_parts_without_anything_are_left_out(emptied: dict[str, Any], left_out: set[str]) -> None:
    results = full_size() | emptied
    if "matrix_rate" not in emptied and "components" in emptied:
        results["matrix_rate"] = {}
    assert not left_out & set(sections(render(results)))


def test_without_torch_nothing_is_said_of_it() -> None:
    results = full_size()
    for component in results["components"].values():
        component["contenders"] = [run for run in component["contenders"] if run["ours"]]
        component["ratios"] = {}
    page = sections(render(results))
    assert "ratios" not in page
    assert "orch" not in words(page["summary"])
    assert "Hatched" not in words(page["latency"])


def test_nothing_at_all_is_still_a_page() -> None:
    assert sections(render({})) == {}


def test_it_needs_neither_torch_nor_onnx_nor_numpy() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'numpy', 'openvino', 'onnxruntime'): sys.modules[name] = None\n"
        "from mova_export.bench.page import render\n"
        "print(len(render({})) > 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_wheel_has_the_style() -> None:
    builder = WheelBuilder(str(ROOT))
    names = {file.distribution_path for file in builder.recurse_included_files()}
    assert "mova_export/bench/page/page.css" in names
