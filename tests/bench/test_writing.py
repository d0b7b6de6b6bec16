"""What a run leaves on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mova_export.bench.writing import check_writable, finite, write, write_json
from mova_export.errors import BenchError


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    write(link, "text")
    assert link.is_symlink()
    assert target.read_text() == "text"
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_what_is_no_file_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BenchError, match="is no file"):
        check_writable(tmp_path / "pipe")
    with pytest.raises(BenchError, match="can't be written"):
        check_writable(Path("/proc/bench.json"))
    check_writable(tmp_path / "new.json")
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [float("nan"), 1.0], "b": {"c": float("-inf")}, "d": (2, None, "e", True)})
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": [None, 1.0], "b": {"c": None}, "d": [2, None, "e", True]}
    assert finite(1.5) == 1.5
