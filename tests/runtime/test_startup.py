"""Starting is quick because it does little: nothing heavy is imported and no engine loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

RUNS = 7
"""The quickest of so many counts: what else the machine does can only slow it."""

IMPORT_SECONDS, OPEN_SECONDS = 0.15, 0.1


def quickest(statement: str, setup: str = "") -> float:
    code = f"import time\n{setup}\nstart = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"
    times = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        times.append(float(done.stdout))
    return min(times)


def test_import() -> None:
    assert quickest("import mova_runtime") < IMPORT_SECONDS


def test_open(bundle: Callable[[int], Path]) -> None:
    assert quickest(f"mova_runtime.open({str(bundle(2))!r})", "import mova_runtime") < OPEN_SECONDS
