"""What `mova kernels` is asked for, and mistakes told before anything is made."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from bundle_copy import edited_manifest, file_entry, rewrite
from command_line import MovaCommand, assert_user_error
from kernel_bundles import GRAPH, READ
from mova_export.cli import kernels as command
from mova_export.errors import ExportError
from mova_export.kernels.order import precision_of, targets_for
from mova_export.kernels.parameters import Parameters, open_parameters, shape_of
from mova_kernels.targets import TARGETS
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import (
    read_kernels,
    read_weights,
)
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.errors import BundleError, EngineKeyError

MakePath = Callable[[int], Path]
ORIN = Gpu("Orin", "sm_87", "12.6")


def test_a_precision_is_the_bundles_first_that_kernels_have() -> None:
    @dataclasses.dataclass
    class Bundled:
        precisions: tuple[str, ...]

    asked: list[tuple[tuple[str, ...], str | None, str]] = [
        (("fp32",), None, "bf16"),
        (("fp16", "bf16"), None, "fp16"),
        (("int8", "bf16", "fp16"), None, "bf16"),
        (("fp16",), "bf16", "bf16"),
    ]
    for precisions, name, wanted in asked:
        assert precision_of(Bundled(precisions), name) == wanted  # type: ignore[arg-type]


def test_a_target_is_what_is_named_or_here() -> None:
    assert targets_for(None, ORIN) == (TARGETS["sm_87"],)
    assert targets_for(["sm_120", "sm_80", "sm_120"], ORIN) == (TARGETS["sm_120"], TARGETS["sm_80"])
    with pytest.raises(ExportError, match=r"unknown target sm_75; known: sm_80 \(A100\)"):
        targets_for(None, Gpu("T4", "sm_75", "12.6"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "no NVIDIA GPU to compile for; name --target, of sm_80 (A100), sm_86 (RTX 30, A10), sm_87 (Jetson Orin)"),
        (("--target", "sm_87,sm_85"), "unknown target sm_85; known: sm_80 (A100)"),
        (("--target", ","), "names nothing"),
        (("--target", "sm_87", "--precision", "fp32"), "kernels are compiled for bf16 or fp16, not fp32"),
        (("--target", "sm_87", "--precision", "int4"), "not int4"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: tuple[str, ...], text: str, fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "gpu", lambda: None)
    assert_user_error(mova_command("kernels", fresh, *arguments), text)
    assert not (fresh / "kernels").exists()


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path, mova_command: MovaCommand) -> None:
    assert_user_error(mova_command("kernels", tmp_path, "--target", "sm_87"), "not a bundle")


def test_a_bundle_without_the_adapter_is_told(fresh: Path, mova_command: MovaCommand) -> None:
    with edited_manifest(fresh) as manifest:
        del manifest["components"]["adapter"]
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "exported without component 'adapter'")
    for read in READ.values():
        with pytest.raises(BundleError, match="exported without component 'adapter'"):
            read(Bundle.open(fresh))


def test_a_bundle_of_whole_numbers_has_no_weights_to_pack(fresh: Path, mova_command: MovaCommand) -> None:
    with edited_manifest(fresh) as manifest:
        for component in manifest["components"].values():
            component["artifacts"][0]["precision"] = "int8"
    ran = mova_command("kernels", fresh, "--target", "sm_87")
    assert_user_error(ran, "'adapter' was not exported in bf16 (it has int8); export it with `--precision bf16`")


def renamed(bundle: Path, change: Callable[[str], str]) -> None:
    """The adapter's graph with other names for its weights."""
    model = onnx.load(bundle / GRAPH, load_external_data=False)
    for initializer in model.graph.initializer:
        name = change(initializer.name)
        for node in model.graph.node:
            node.input[:] = [name if one == initializer.name else one for one in node.input]
        initializer.name = name
    rewrite(bundle / GRAPH, model.SerializeToString())
    with edited_manifest(bundle) as manifest:
        manifest["components"]["adapter"]["artifacts"][0]["files"][0] = file_entry(bundle, GRAPH)


def test_a_bundle_of_an_older_version_is_told_to_be_exported_again(fresh: Path, mova_command: MovaCommand) -> None:
    renamed(fresh, lambda name: f"val_{hash(name) % 999}" if name.endswith("w1.weight.T") else name)
    ran = mova_command("kernels", fresh, "--target", "sm_87")
    assert_user_error(
        ran,
        "the adapter's fp32 graph has no weight 'blocks.0.block.mlp.w1.weight': the bundle was exported by an older "
        "version; export it again",
    )
    assert not (fresh / "kernels").exists()


def test_a_damaged_graph_is_not_packed(fresh: Path, mova_command: MovaCommand) -> None:
    weights = fresh / f"{GRAPH}.data"
    rewrite(weights, weights.read_bytes()[:-1] + b"x")
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "its sha256 differs from the manifest's")
    assert not (fresh / "kernels").exists()


def test_an_adapter_that_kernels_do_not_fit_is_told(bundle: MakePath, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(bundle(2))
    parameters = open_parameters(opened, "bf16")
    shapes = {"blocks.0.block.gate.0.weight": (1024, 2047)}
    shape = Parameters.shape
    monkeypatch.setattr(Parameters, "shape", lambda self, name: shapes.get(name) or shape(self, name))
    with pytest.raises(ExportError, match="no kernels for this adapter: text_channels 1023 is no multiple of 16"):
        shape_of(opened, parameters)


@pytest.mark.parametrize("package", ["triton", "onnx_ir"])
def test_without_its_packages_the_extra_is_named(package: str, fresh: Path) -> None:
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == sys.argv[1]:\n"
        "            raise ModuleNotFoundError(f'{name} is blocked', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from mova_export.cli import main\n"
        "sys.exit(main(['kernels', sys.argv[2], '--target', 'sm_87']))"
    )
    done = subprocess.run([sys.executable, "-c", code, package, str(fresh)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"mova: compiling kernels needs {package}; install the project with its `kernels` extra\n"


def test_making_kernels_needs_no_torch() -> None:
    code = (
        "import sys, mova_export.cli.kernels, mova_export.kernels.order, mova_export.kernels.worker\n"
        "print(sorted({'torch', 'transformers', 'onnxruntime', 'onnxscript'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("capability", ["sm_87", "sm_75"])
def test_what_was_never_made_is_told_with_its_command(capability: str, fresh: Path) -> None:
    opened = Bundle.open(fresh)
    way = f"run `mova kernels {fresh} --target {capability} --precision fp16`"
    with pytest.raises(EngineKeyError) as told:
        read_kernels(opened, capability, "fp16")
    assert str(told.value) == f"{fresh} has no kernels for {capability} in fp16; {way}"
    with pytest.raises(EngineKeyError, match="has no adapter weights packed in fp16; run `mova kernels"):
        read_weights(opened, "fp16")
