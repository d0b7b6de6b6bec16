"""A runtime that answers at once, in this process or in one of its own."""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mova_runtime
from mova_runtime import ImageError

EXPERTS = ("dinov2", "vary", "codetr", "pix2struct", "deplot", "biomedclip", "sam")
PAUSE = "MOVA_TEST_PAUSE"
"""Seconds that an answer takes in a process of its own."""


@dataclass
class FakeRuntime:
    """Answers with a text that depends on all it was given.

    errors: by question, what asking it raises; asked: questions in the order they came.
    """

    errors: dict[str, BaseException] = field(default_factory=dict)
    seconds: float = 0.0
    asked: list[str] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    opened: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = "one"

    def open(self, path: Path, **options: Any) -> FakeRuntime:
        """Stands in for `mova_runtime.open`."""
        self.opened = {"path": path, **options}
        return self

    @property
    def choice(self) -> Any:
        backend = self.opened.get("backend", "auto").partition(",")[0]
        precision = self.opened.get("precision") or "fp32"
        return SimpleNamespace(backend="ort" if backend == "auto" else backend, precision=precision)

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(
            vision=SimpleNamespace(experts=[SimpleNamespace(name=name) for name in EXPERTS]),
            language=SimpleNamespace(context=self.opened.get("max_context") or 2048),
            provenance=SimpleNamespace(model_type="mova_llama", checkpoint={"config.json": self.checkpoint}),
        )

    def answer(self, image: Path, question: str, experts: Any = None, max_new_tokens: int = 128) -> Any:
        self.asked.append(question)
        self.images.append(image)
        time.sleep(self.seconds)
        if question in self.errors:
            raise self.errors[question]
        if not image.is_file():
            raise ImageError(f"{image}: can't be opened (No such file or directory)")
        number = zlib.crc32(repr((image.name, question)).encode())
        chosen = EXPERTS[number % 3 : number % 3 + 2] if experts is None else tuple(experts)
        here = threading.current_thread().name
        stages = ({"name": "base", "ms": 2000.0, "thread": here}, {"name": "load sam", "ms": 500.0, "thread": "other"})
        stats = SimpleNamespace(finish="stop", prompt_tokens=100, stages=stages, cache={"hits": 1, "misses": 2})
        return SimpleNamespace(
            text=f" number {number} \n",
            tokens=tuple(range(min(3, max_new_tokens))),
            routing=SimpleNamespace(experts=chosen, text="" if experts is not None else "A,B"),
            stats=stats,
        )

    def __enter__(self) -> FakeRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def main() -> int:
    """`mova`, with such a runtime."""
    from mova_export.cli import main as mova

    mova_runtime.open = FakeRuntime(seconds=float(os.environ.get(PAUSE, "0"))).open  # type: ignore[assignment]
    return mova()


if __name__ == "__main__":
    sys.exit(main())
