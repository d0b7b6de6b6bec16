"""docs/troubleshooting.md quotes messages that the source still has, and has a section for each public error."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
GAP = "…"
PACKAGES = (ROOT / "mova_export", ROOT / "runtime" / "mova_runtime", ROOT / "runtime" / "embed" / "mova_embed")


def text_of(node: ast.AST) -> str:
    """A string as it is written, with a gap for what is put in when it is made."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else GAP
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return GAP


def told() -> set[str]:
    """Every string of the source that is more than a word."""
    files = [file for package in PACKAGES for file in package.rglob("*.py")]
    found = set()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
        }
        found |= {
            text_of(node) for node in ast.walk(tree)
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and id(node) not in documentation
        }  # fmt: skip
    in_c = [file.read_text(encoding="utf-8") for package in PACKAGES for file in package.rglob("*.c")]
    found |= {re.sub("%[sd]", GAP, text) for code in in_c for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', code)}
    return {text for text in found if " " in text}


TOLD = told()


def quoted() -> list[str]:
    """Messages in the page's first columns; a backquote within one is written with a stroke before it."""
    rows = re.findall(r"^\| `((?:\\`|[^`])+)`[^|]*\|", PAGE, re.MULTILINE)
    return [row.replace("\\`", "`") for row in rows]


def is_told(message: str) -> bool:
    """Whether some string has the message's words, in their order."""
    return any(holds(text, message.split(GAP)) for text in TOLD)


def holds(text: str, words: list[str]) -> bool:
    at = 0
    for word in words:
        found = text.find(word, at)
        if found < 0:
            return False
        at = found + len(word)
    return True


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_in_the_source(message):
    assert is_told(message)
    assert len(re.sub(r"\W", "", message)) >= 8, "too little to recognise it by"


def test_a_message_that_is_not_there_is_noticed():
    assert not is_told("the runtime is open")
    assert not is_told("…: no such bundle")
    assert len(quoted()) > 70


def errors() -> list[str]:
    """Every class of the files that hold errors."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for package in PACKAGES for file in package.rglob("errors.py")]
    return [node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]


def test_each_public_error_has_a_section_with_a_message():
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(errors())
    assert len(sections) > 15
    assert all(re.search(r"^\| `", text, re.MULTILINE) for text in sections.values())
