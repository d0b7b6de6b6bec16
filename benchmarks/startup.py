"""What a user waits for before the first question: the import, and opening a bundle; in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mova_export.bench.timing import Spread

_REPEATS = 10
_OPEN = """
import sys, time
import mova_runtime
start = time.perf_counter()
mova_runtime.open(sys.argv[1])
print(time.perf_counter() - start)
"""


def startup(bundle: Path) -> dict[str, Spread]:
    """Seconds of `import mova_runtime` (less an empty interpreter's) and of `mova_runtime.open`."""
    with tempfile.TemporaryDirectory() as pycache:
        # Compiled once, as installed: whatever this process was told about .pyc files.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": pycache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(code: str) -> tuple[float, str]:
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code, str(bundle)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            return time.perf_counter() - start, done.stdout

        imports, opens = [], []
        run(_OPEN)
        for _ in range(_REPEATS):
            nothing, _stdout = run("pass")
            imports.append(run("import mova_runtime")[0] - nothing)
            opens.append(float(run(_OPEN)[1]))
    return {"import mova_runtime": Spread.of(imports), "mova_runtime.open": Spread.of(opens)}
