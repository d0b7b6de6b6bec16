"""Whether a model answers within a limit: a small one stands for MoVA-8B, in the same processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edge
import pytest

from mova_export.checkpoint.load import Checkpoint
from mova_export.export import export
from mova_runtime.bundle import Bundle

MakePath = Callable[[int], Path]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, checkpoint: MakePath) -> Path:
    """A language model that is there already, and no towers."""
    work = tmp_path_factory.mktemp("edge")
    export(Checkpoint(checkpoint(2)), work / f"{edge.PRESET}-4-bits", components=["llm"], precisions=["int4"])
    return work


def measure(monkeypatch: pytest.MonkeyPatch, bundle: Path, work: Path, *more: str) -> tuple[int, dict[str, Any]]:
    given = [str(bundle), "--work", str(work), "--out", str(work / "edge.json"), "--backend", "ort,llm=ort:int4"]
    monkeypatch.setattr(sys, "argv", ["edge.py", *given, "--precision", "fp32", *more])
    status = edge.main()
    return status, json.loads((work / "edge.json").read_text())


def chosen(one: dict[str, Any]) -> list[str]:
    return [name for name in one["served"] if name not in ("base", "text", "adapter", "llm")]


def test_requests_within_a_limit(monkeypatch: pytest.MonkeyPatch, bundle: MakePath, work: Path) -> None:
    status, found = measure(monkeypatch, bundle(2), work, "--experts", "routed,sam+vary@3")
    assert status == 0
    opened = Bundle.open(work / f"{edge.PRESET}-4-bits")
    assert {one.precision for name in ("sam", "llm") for one in opened.component(name).artifacts} == {"fp32", "int4"}
    assert opened.manifest.vision == Bundle.open(bundle(2)).manifest.vision
    routed, named = found["requests"].values()
    assert routed["peak_bytes"] != named["peak_bytes"]
    assert {"sam", "vary", "llm"} <= set(named["served"])
    for one in (routed, named):
        assert one["error"] is None
        assert 100 << 20 < one["peak_bytes"] < 1 << 30
        assert 0 < one["tokens"] <= edge.TOKENS
    first, _, *rows = edge.table(found).splitlines()
    assert [row.count("|") for row in rows] == [first.count("|")] * 2
    assert rows[0].startswith(
        f"| {', '.join(chosen(routed)) or 'none'}, chosen by the model | {routed['prompt_tokens']}, "
    )
    assert rows[1].startswith("| vary, sam | ")
    assert named["prompt_tokens"] > routed["prompt_tokens"]


@pytest.mark.parametrize(
    ("more", "told"),
    [(["--limit", "16MiB"], None), (["--budget", "1MiB"], "needs"), (["--max-context", "8"], "too short")],
)
def test_more_than_the_limit_and_what_fails(
    monkeypatch: pytest.MonkeyPatch, bundle: MakePath, work: Path, more: list[str], told: str | None
) -> None:
    status, found = measure(monkeypatch, bundle(2), work, "--experts", "none", *more)
    assert status == 1
    (one,) = found["requests"].values()
    assert told is None if one["error"] is None else told in one["error"]
