"""Writes docs/api.md from the docstrings of mova_runtime's public names: `python docs/api.py`.

It reads the source and imports nothing of it, so the page is the same on every Python.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
RUNTIME = ROOT / "runtime"

GROUPS = {
    "Opening a bundle": ("open", "Runtime"),
    "What requests return": ("Answer", "Routing", "Stats", "Served", "Visual", "Totals"),
    "How an answer is to be": ("How", "Cancel"),
    "Models from outside": ("LanguageModel", "Router"),
}
"""The page's sections, and the public names in them; errors follow."""

RETURNED = {
    "Chat": "mova_runtime.chat",
    "Choice": "mova_runtime.engines.choice",
    "Sampling": "mova_runtime.language.sampling",
}
"""What public names give and nobody makes: class and module."""

HEAD = """# API

Every public name of `mova_runtime`, from its docstring. Written by `python docs/api.py`, and seen by a test to be up
to date.

```python
import mova_runtime as mova
```
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """All of docs/api.md."""
    public = public_names()
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts += [f"## {title}\n", *(part for name in names for part in described(public[name], name))]
    parts += ["## What `rt.chat` and `rt.choice` are, and what a language model is told\n"]
    parts += [part for name, module in RETURNED.items() for part in described(module, name)]
    errors = [name for name in public if name.endswith("Error")]
    parts += ["## Errors\n", "[troubleshooting.md](troubleshooting.md) has their messages.\n", *table(public, errors)]
    return "\n".join(parts).rstrip() + "\n"


def public_names() -> dict[str, str]:
    """By name in `mova_runtime.__all__`, the module that defines it."""
    tree = source("mova_runtime")
    imported = {
        alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    (listed,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and names(node) == ["__all__"]]
    return {name: imported.get(name) or "mova_runtime" for name in ast.literal_eval(listed)}


def source(module: str) -> ast.Module:
    """A module's syntax tree."""
    path = RUNTIME.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def described(module: str, name: str) -> Iterator[str]:
    """A name's heading, how it is written, and what its docstring says; a class's public members follow."""
    tree = source(module)
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            assert isinstance(following, ast.Expr), f"{name} has a docstring"
            yield f"### {name}\n\n{code(ast.unparse(node))}\n\n{prose(ast.literal_eval(following.value))}\n"
        elif isinstance(node, Function) and node.name == name:
            yield f"### {name}\n\n{code(signature(node))}\n\n{prose(docstring(node))}\n"
        elif isinstance(node, ast.ClassDef) and node.name == name:
            yield f"### {name}\n\n{fields(node)}{prose(docstring(node))}\n"
            yield from (member(name, one) for one in node.body if isinstance(one, Function) and is_public(one))


def member(owner: str, node: Function) -> str:
    """A method or a property."""
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    if "property" in marks:
        kind = ast.unparse(node.returns) if node.returns else ""
        return f"#### {owner}.{node.name}\n\n{code(f'{node.name}: {kind}')}\n\n{prose(docstring(node))}\n"
    return f"#### {owner}.{node.name}()\n\n{code(signature(node))}\n\n{prose(docstring(node))}\n"


def is_public(node: Function) -> bool:
    """Whether users call it."""
    return not node.name.startswith("_") and ast.get_docstring(node) is not None


def signature(node: Function) -> str:
    """A call, on one line where that is short, else a line a parameter."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    shown = [written(one, value) for one, value in zip(plain, defaults, strict=True) if one.arg not in ("self", "cls")]
    if arguments.vararg:
        shown.append(f"*{written(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [written(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        shown.append(f"**{written(arguments.kwarg, None)}")
    gives = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({', '.join(shown)}){gives}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{node.name}(", *(f"    {one}," for one in shown), f"){gives}"])


def written(argument: ast.arg, default: ast.expr | None) -> str:
    """A parameter with its type and default."""
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return argument.arg + kind + (f" = {ast.unparse(default)}" if default else "")


def fields(node: ast.ClassDef) -> str:
    """A class's annotated fields as code."""
    lines = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
    return f"{code(chr(10).join(lines))}\n\n" if lines else ""


def docstring(node: ast.AST) -> str:
    """It has one: the linter sees to that."""
    return ast.get_docstring(node) or ""  # type: ignore[arg-type]


def prose(text: str) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines = inspect.cleandoc(text).splitlines()
    out: list[str] = []
    section = False
    for line in lines:
        if line in ("Args:", "Raises:", "Returns:", "Yields:"):
            out += [f"{line.removesuffix(':').replace('Args', 'Arguments')}:", ""]
            section = True
        elif section and line.startswith("    ") and (found := re.match(r" {4}(\w[\w, *]*): (.*)", line)):
            out.append(f"- `{found[1]}`: {escaped(found[2])}")
        elif section and line.startswith("    "):
            out.append(f"  {escaped(line.strip())}")
        else:
            section = section and not line.strip()
            out.append(escaped(line))
    return "\n".join(out).strip()


def escaped(line: str) -> str:
    """What Markdown would take for a tag is text; what stands between backquotes stays."""
    pieces = line.split("`")
    return "`".join(piece.replace("<", "\\<") if i % 2 == 0 else piece for i, piece in enumerate(pieces))


def table(public: dict[str, str], errors: list[str]) -> Iterator[str]:
    """Each error, what it derives from, what it says."""
    yield "| error | is a | raised where |\n|---|---|---|"
    for name in errors:
        for node in source(public[name]).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                base = ", ".join(f"`{ast.unparse(one)}`" for one in node.bases)
                yield f"| `{name}` | {base} | {' '.join(docstring(node).split())} |"


def names(node: ast.Assign) -> list[str]:
    """What is assigned to."""
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def code(text: str) -> str:
    """A block that is not meant to be run."""
    return f"```text\n{text}\n```"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
