"""The table of registers in docs/kernels.md: of the kernels as they are, and without spills."""

from __future__ import annotations

import json
from typing import Any

import kernel_table
import pytest
from pages import with_table

from mova_kernels.targets import TARGETS
from mova_kernels.variants import variants


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kernel_table.RESULTS.read_text(encoding="utf-8"))
    return found


def test_the_page_has_the_table_of_the_results(results: dict[str, Any]) -> None:
    page = kernel_table.PAGE.read_text(encoding="utf-8")
    assert kernel_table.table(results) in page
    assert with_table(page, kernel_table.SCRIPT, kernel_table.table(results)) == page


def test_the_results_are_of_these_kernels(results: dict[str, Any]) -> None:
    """Names, tiles and other constants; `python benchmarks/kernel_table.py` writes them anew."""
    assert results["shape"] == vars(kernel_table.SHAPE)
    assert list(results["targets"]) == list(TARGETS)
    for target in TARGETS.values():
        for dtype, found in results["targets"][target.capability].items():
            wanted = variants(kernel_table.SHAPE, dtype, target)
            made = {name: (one["constants"], one["warps"]) for name, one in found["kernels"].items()}
            assert made == {one.name: (one.constants, one.num_warps) for one in wanted}


def test_no_kernel_spills_or_needs_more_shared_memory_than_there_is(results: dict[str, Any]) -> None:
    for target in TARGETS.values():
        for found in results["targets"][target.capability].values():
            for name, one in found["kernels"].items():
                assert one["spills"] == 0, f"{name} on {target}"
                assert one["shared"] <= target.shared, f"{name} on {target}"


def test_spills_would_be_seen(results: dict[str, Any]) -> None:
    results = json.loads(json.dumps(results))
    results["targets"]["sm_87"]["bf16"]["kernels"]["pool"]["spills"] = 24
    (line,) = [line for line in kernel_table.table(results).splitlines() if line.startswith("| pool ")]
    assert line.count("(spills 24 B)") == 1
