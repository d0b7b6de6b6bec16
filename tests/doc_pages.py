"""The commands and Python examples that pages show, as they stand there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = ("", "sh", "bash", "console")
_INLINE = re.compile(r"(?<!`)`(mova \w+ [^`\n]*(?:BUNDLE|CHECKPOINT|--preset|DIR)[^`\n]*)`(?!`)")
_COMMENT = re.compile(r"\s+#\s.*$")
_ENVIRONMENT = re.compile(r"^~/mova/bin/(?=mova )")


@dataclass(frozen=True)
class Shown:
    """A command or a piece of Python, and the page that it is on."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0]}"


def commands() -> list[Shown]:
    """Every line of a block without a language, and what is given in a sentence or a table as a command to type."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [block for language, block in _FENCE.findall(text) if language in _SHELL]
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        lines += _INLINE.findall(_FENCE.sub("", text))
        plain = [_ENVIRONMENT.sub("", _COMMENT.sub("", line).strip()) for line in lines]
        found += [Shown(page.name, line) for line in dict.fromkeys(plain) if line]
    return found


def examples() -> list[Shown]:
    """Every block of Python."""
    return [
        Shown(page.name, code)
        for page in PAGES
        for language, code in _FENCE.findall(page.read_text(encoding="utf-8"))
        if language == "python"
    ]
