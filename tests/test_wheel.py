"""What a user installs: the wheel with the `cpu` extra alone answers from a bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

from reference_data import cases

ROOT = Path(__file__).parents[1]


def test_the_wheel_answers_without_torch(bundle: Callable[[int], Path], tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "mova_embed",
        "mova_export",
        "mova_kernels",
        "mova_runtime",
    }
    assert {"mova_embed/mova.hpp", "mova_embed/c/functions.h", "mova_embed/c/start.c"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)

    venv.create(tmp_path / "venv", with_pip=True)
    pip = [tmp_path / "venv" / "bin" / "python", "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--no-compile", f"{wheel}[cpu]"], check=True, capture_output=True)
    listed = subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True)
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"numpy", "pillow", "tokenizers", "onnxruntime", "mova-export"} <= installed
    assert not {"torch", "transformers", "onnx", "optimum"} & installed

    case = cases(2)[0]
    command = [tmp_path / "venv" / "bin" / "mova", "run", bundle(2), "--image", case.image, "--question", case.question]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    run = subprocess.run(
        [*map(str, command), "--json", "--max-new-tokens", str(case.max_new_tokens)],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert json.loads(run.stdout)["tokens"] == case.answer_tokens
