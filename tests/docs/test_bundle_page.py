"""docs/bundle.md is enough to read a bundle: its keys and types are the code's and a bundle's, and its reader reads."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from bundle_copy import copy_bundle, read_manifest
from mova_runtime.bundle.engine import EngineRecord
from mova_runtime.bundle.kernels import AdapterWeights, KernelSet
from mova_runtime.bundle.manifest import Manifest

PAGE = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
PLAIN: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def tables() -> dict[str, dict[str, str]]:
    """By the name of a table of keys, its types by key."""
    found = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", text.partition("\n## ")[0], re.MULTILINE)
        found[name] = {key: kind.strip() for key, kind in rows}
    return found


TABLES = tables()


def dataclasses_of(kind: Any) -> set[type]:
    """A dataclass, and all that its fields hold."""
    if not dataclasses.is_dataclass(kind):
        return {one for argument in typing.get_args(kind) for one in dataclasses_of(argument)}
    return {kind, *(one for hint in typing.get_type_hints(kind).values() for one in dataclasses_of(hint))}


DESCRIBED = {kind for root in (Manifest, EngineRecord, KernelSet, AdapterWeights) for kind in dataclasses_of(root)}


def test_there_is_a_table_for_each_kind_of_object():
    assert set(TABLES) == {kind.__name__ for kind in DESCRIBED}
    assert len(TABLES) > 20


@pytest.mark.parametrize("kind", sorted(DESCRIBED, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_a_table_has_the_fields_of_its_class(kind):
    fields = dataclasses.fields(kind)
    assert list(TABLES[kind.__name__]) == [field.name for field in fields]
    section = PAGE.partition(f"### {kind.__name__}\n")[2].partition("\n##")[0]
    optional = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| \*optional\*", section, re.MULTILINE))
    assert optional == {field.name for field in fields if field.default is not dataclasses.MISSING}


def complaints(value: Any, kind: str, where: str) -> list[str]:
    """What of a value the page does not know, or knows otherwise."""
    for many, items in (
        ("map of ", value.items() if isinstance(value, dict) else None),
        ("list of ", enumerate(value) if isinstance(value, list) else None),
    ):
        if kind.startswith(many):
            if items is None:
                return [f"{where}: no {kind}"]
            return [one for key, item in items for one in complaints(item, kind[len(many) :], f"{where}.{key}")]
    told: list[str] = []
    for option in kind.split(" or "):
        if option in PLAIN:
            if type(value) in PLAIN[option]:
                return []
        elif isinstance(value, dict):
            table = TABLES[option]
            told += [f"{where}.{key}: not on the page" for key in value if key not in table]
            told += [
                one for key, item in value.items() if key in table
                for one in complaints(item, table[key], f"{where}.{key}")
            ]  # fmt: skip
            return told
    return [f"{where}: {value!r} is no {kind}"]


def test_a_bundle_is_what_the_page_says(bundle):
    assert not complaints(read_manifest(bundle(2)), "Manifest", "manifest")


def test_the_page_is_held_against_a_bundle(bundle):
    """The same with manifests that it does not describe."""
    manifest = read_manifest(bundle(2))
    manifest["components"]["sam"]["colour"] = 1
    manifest["vision"]["grid"] = "8"
    manifest["preprocessing"]["pad_colour"]["clip"] = [1, 2, None]
    told = complaints(manifest, "Manifest", "manifest")
    assert [one.partition(":")[0] for one in told] == [
        "manifest.vision.grid",
        "manifest.preprocessing.pad_colour.clip.2",
        "manifest.components.sam.colour",
    ]


def read(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the page's reader, with nothing of ours to import."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert "mova_" not in code
    (tmp_path / "reader.py").write_text(code, encoding="utf-8")
    command = [sys.executable, tmp_path / "reader.py", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True)


@pytest.mark.parametrize("component", ["sam", "text", "adapter", "llm"])
def test_the_pages_reader_runs_a_component(bundle, tmp_path, component):
    done = read(tmp_path, bundle(2), component)
    assert done.returncode == 0, done.stderr
    told = read_manifest(bundle(2))["components"][component]
    outputs = sum(len(probe["outputs"]) for probe in (told["probe"], *told["more_probes"]))
    assert done.stdout.count("differs from torch by") == outputs


def test_the_pages_reader_notices_other_bytes(bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    file = copied / read_manifest(copied)["components"]["text"]["probe"]["outputs"]["text"]["path"]
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = read(tmp_path, copied, "text")
    assert done.returncode
    assert "AssertionError: components/text/probe/text.npy" in done.stderr
