"""What the runtime needs, and what it must never need: a device has neither torch nor the exporter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from reference_data import IMAGES, cases

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime" / "mova_runtime"
KERNELS = ROOT / "kernels" / "mova_kernels"
EMBED = ROOT / "runtime" / "embed" / "mova_embed"
HEAVY = (
    "torch",
    "transformers",
    "onnx",
    "optimum",
    "onnxscript",
    "safetensors",
    "mova_export",
    "mova_kernels",
)

BACKENDS = ("onnxruntime", "openvino", "cuda", "nvmath")  # TensorRT is imported by a name that depends on its flavour

FOR_TYPES = ("typing_extensions",)
"""Imported under TYPE_CHECKING only."""

BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
"""


def python(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_blocker_blocks():
    code = BLOCK + "\ntry:\n    import torch\nexcept ImportError as error:\n    print(error)"
    assert python(code) == "torch is blocked"


def test_answers_with_the_exporters_packages_blocked(bundle):
    case = cases(2)[0]
    code = BLOCK + (
        "import mova_runtime as mova\n"
        "with mova.open(sys.argv[1]) as rt:\n"
        "    print(list(rt.answer(sys.argv[2], sys.argv[3], max_new_tokens=int(sys.argv[4])).tokens))\n"
        f"assert not set({HEAVY!r}) & set(sys.modules)"
    )
    assert python(code, bundle(2), case.image, case.question, case.max_new_tokens) == str(case.answer_tokens)


def test_importing_and_opening_load_nothing_slow(bundle):
    code = (
        "import sys\n"
        "slow = {'numpy', 'PIL', 'onnxruntime', 'tokenizers'}\n"
        "import mova_runtime as mova\n"
        "print(sorted(slow & set(sys.modules)))\n"
        "mova.open(sys.argv[1])\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    assert python(code, bundle(2)).splitlines() == ["[]", "[]"]


@pytest.mark.parametrize("arguments", ["--help", "--version", "run --help", "doctor"])
def test_the_command_needs_the_exporter_for_exporting_only(arguments):
    code = BLOCK.replace("'mova_export', ", "") + (
        "from mova_export.cli import main\n"
        "try:\n    main(sys.argv[1].split())\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    assert python(code, arguments)


def test_the_command_runs_a_bundle_without_the_exporters_packages(bundle):
    code = BLOCK.replace("'mova_export', ", "") + (
        "from mova_export.cli import main\n"
        "options = ['--question', 'Why?', '--experts', 'none', '--max-new-tokens', '2', '--json']\n"
        "sys.exit(main(['run', sys.argv[1], '--image', sys.argv[2], *options]))"
    )
    assert python(code, bundle(2), IMAGES / "chart.png").startswith('{"answer": ')


def test_exporting_without_its_packages_says_what_to_install(tmp_path):
    code = BLOCK.replace("'mova_export', ", "") + (
        "from mova_export.cli import main\n"
        "sys.stderr = sys.stdout\n"
        "print(main(['export', sys.argv[1], '--out', sys.argv[2]]))"
    )
    message, status = python(code, tmp_path, tmp_path / "out").splitlines()
    assert "exporting needs torch; install the project with its `export` extra" in message
    assert status == "2"


def imported(file):
    """Top-level names of everything a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("file", sorted(RUNTIME.rglob("*.py")), ids=lambda file: str(file.relative_to(RUNTIME)))
def test_a_file_of_the_runtime_imports_what_it_may(file):
    allowed = {"mova_runtime", "numpy", "PIL", "tokenizers", *BACKENDS, *FOR_TYPES, *sys.stdlib_module_names}
    assert set(imported(file)) <= allowed


def test_the_runtime_does_not_know_who_embeds_it():
    assert not any("mova_embed" in imported(file) or "cffi" in imported(file) for file in RUNTIME.rglob("*.py"))


@pytest.mark.parametrize("file", sorted(EMBED.rglob("*.py")), ids=lambda file: str(file.relative_to(EMBED)))
def test_a_file_of_the_library_imports_what_it_may(file):
    assert set(imported(file)) <= {"mova_embed", "mova_runtime", "numpy", "cffi", *sys.stdlib_module_names}


def test_what_runs_inside_the_library_needs_nothing_to_build_it():
    code = (
        "import sys\n"
        "sys.modules['cffi'] = None\n"
        "import mova_embed.boundary\n"
        "print(sorted({'numpy', 'PIL', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    )
    assert python(code) == "[]"


@pytest.mark.parametrize("file", sorted(KERNELS.rglob("*.py")), ids=lambda file: str(file.relative_to(KERNELS)))
def test_a_file_of_the_kernels_imports_neither_neighbour(file):
    assert not {"mova_export", "mova_runtime"} & set(imported(file))


@pytest.mark.parametrize("module", FOR_TYPES)
def test_what_is_for_types_is_not_needed(module):
    code = f"import sys\nsys.modules[{module!r}] = None\nimport mova_runtime, mova_runtime.chat, mova_runtime.request"
    python(code)


def test_the_packages_are_there():
    assert len(list(RUNTIME.rglob("*.py"))) > 20
    assert len(list(KERNELS.rglob("*.py"))) > 3
    assert len(list(EMBED.rglob("*.py"))) > 10
