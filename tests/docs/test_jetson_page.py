"""docs/jetson.md: a `.pth` file makes the system's TensorRT importable in a virtual environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "jetson.md").read_text(encoding="utf-8")


def test_the_pages_pth_file(tmp_path: Path):
    system = tmp_path / "dist-packages"
    (system / "tensorrt").mkdir(parents=True)
    (system / "tensorrt" / "__init__.py").write_text("__version__ = '10.3.0'")
    home = tmp_path / "home"
    venv.create(home / "mova", with_pip=False)
    own = home / "mova" / "bin" / "python"
    ask = [own, "-c", "import tensorrt; print(tensorrt.__version__)"]
    assert subprocess.run(ask, capture_output=True, cwd=tmp_path).returncode, "not importable before"

    block = next(block for block in re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if ".pth" in block)
    _, *lines = block.splitlines()  # the environment is there
    program = "\n".join(lines).replace("python3 -c", f"{sys.executable} -c")
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(system)}
    subprocess.run(["bash", "-e", "-c", program], check=True, env=environment)
    done = subprocess.run(ask, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("10.3.0\n", "")
