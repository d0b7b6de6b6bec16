"""Every command and example of README and docs runs here, on the tiny bundle, or is told why not."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import doc_elsewhere as elsewhere
import doc_pages as pages
import doc_workplace as workplace
import mova_runtime as mova
from command_line import Done, MovaCommand

HERE = [one for one in pages.commands() if elsewhere.why_no_command(one.page, one.text) is None]
EXAMPLES = [one for one in pages.examples() if elsewhere.why_no_example(one.page, one.text) is None]


@pytest.fixture(scope="module")
def root(bundle: Callable[[int], Path], checkpoint: Callable[[int], Path], tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    workplace.prepare(folder, bundle(2), checkpoint(2))
    return folder


@pytest.fixture(scope="module")
def done() -> dict[str, Done]:
    """What was run: commands that come to the same here run once."""
    return {}


@pytest.mark.parametrize("shown", HERE, ids=str)
def test_a_command_runs(shown: pages.Shown, root: Path, done: dict[str, Done], mova_command: MovaCommand, monkeypatch):
    assert re.search(r"\bmova \w+", shown.text), f"neither one of ours nor in the table of doc_elsewhere.py: {shown}"
    monkeypatch.chdir(root)
    command = workplace.small(shown.text)
    if command not in done:
        done[command] = workplace.run(command, root, mova_command)
    found = done[command]
    assert found.status == 0, f"{command}\n{found.output}\n{found.error}"


@pytest.mark.parametrize("shown", EXAMPLES, ids=str)
def test_an_example_runs(shown: pages.Shown, root: Path, monkeypatch):
    monkeypatch.chdir(root)
    code = shown.text.replace('precision="int4"', 'precision="fp32"')  # all that the tiny bundle has
    with mova.open("BUNDLE") as rt:
        names = {"mova": mova, "json": json, "rt": rt, "image": "photo.jpg", "question": "Why?", "file": io.StringIO()}
        many = {"images": ["photo.jpg"] * 2, "questions": ["Why?", "Where?"], "experts": [("sam",), ()]}
        exec(compile(code, shown.page, "exec"), {**names, **many})


@pytest.mark.parametrize("key", elsewhere.COMMANDS, ids=str)
def test_each_reason_is_for_something(key: tuple[str, str]):
    page, pattern = key
    assert [one for one in pages.commands() if re.fullmatch(page, one.page) and re.fullmatch(pattern, one.text)], (
        "no page has such a command"
    )


def test_each_reason_of_an_example_is_for_something():
    told = {elsewhere.why_no_example(one.page, one.text) for one in pages.examples()}
    assert set(elsewhere.EXAMPLES.values()) <= told


def test_commands_are_found():
    assert len({one.text for one in HERE}) > 20
    assert {one.text.split()[1] for one in HERE if one.text.startswith("mova ")} >= {
        "export", "build", "kernels", "run", "eval", "inspect", "verify", "bench", "doctor",
    }  # fmt: skip
    assert len(EXAMPLES) > 5


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("README.md", "rm -rf BUNDLE"),
        ("jetson.md", "mova run BUNDLE --image photo.jpg --question Why"),
        ("workstation.md", "mova run BUNDLE --backend tensorrt-rtx,adapter=cuda:bf16 --fallback ort:fp32"),
        ("README.md", "sudo reboot"),
    ],
)
def test_what_no_reason_covers(page: str, command: str):
    assert elsewhere.why_no_command(page, command) is None
