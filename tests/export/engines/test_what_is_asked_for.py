"""Targets and precisions that engines are built for, and mistakes told in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_copy import edited_manifest, file_entry, rewrite
from command_line import MovaCommand, assert_user_error
from engine_bundles import RTX, needs_tensorrt_rtx
from mova_export.cli import build as command
from mova_export.engines.build import Source
from mova_export.engines.order import order, precision_of
from mova_export.engines.targets import TARGETS, targets_for
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.engines.trt import library
from mova_runtime.errors import BackendError

MakePath = Callable[[int], Path]
pytestmark = needs_tensorrt_rtx
A10 = Gpu("NVIDIA A10", "sm_86", "13.0")


def test_tensorrt_builds_for_the_gpu_at_hand() -> None:
    assert targets_for("tensorrt", None, A10) == (TARGETS["sm_86"],)
    assert targets_for("tensorrt", ["sm_86"], A10) == (TARGETS["sm_86"],)
    orin = Gpu("Orin", "sm_87", "12.6")
    assert targets_for("tensorrt", None, orin)[0].devices == "Jetson Orin"
    unheard_of = Gpu("NVIDIA X", "sm_130", "14.0")
    assert targets_for("tensorrt", None, unheard_of)[0].devices == "NVIDIA X"
    with pytest.raises(ExportError, match=r"a NVIDIA A10 \(sm_86\), not for sm_89 \(RTX 40, L4\)"):
        targets_for("tensorrt", ["sm_86", "sm_89"], A10)
    with pytest.raises(ExportError, match="this machine has none; run this command on the device"):
        targets_for("tensorrt", None, None)


def test_tensorrt_rtx_builds_for_what_is_named_or_here() -> None:
    assert [target.capability for target in targets_for("tensorrt-rtx", ["sm_120", "sm_80"], A10)] == [
        "sm_120",
        "sm_80",
    ]
    assert targets_for("tensorrt-rtx", None, A10) == (TARGETS["sm_86"],)
    with pytest.raises(ExportError, match=r"sm_90 \(H100, H200\): no target of TensorRT-RTX"):
        targets_for("tensorrt-rtx", None, Gpu("NVIDIA H200", "sm_90", "13.0"))
    with pytest.raises(ExportError, match=r"sm_130 \(NVIDIA X\): no target of TensorRT-RTX"):
        targets_for("tensorrt-rtx", None, Gpu("NVIDIA X", "sm_130", "14.0"))


def test_the_library_has_every_target_that_the_table_says(bundle: MakePath) -> None:
    has = library.load("tensorrt-rtx").ComputeCapability
    knows = {name for name, target in TARGETS.items() if hasattr(has, f"SM{target.number}")}
    assert knows == {name for name, target in TARGETS.items() if target.rtx} | {"sm_75"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (RTX, "no NVIDIA GPU to build for; name --target, of sm_80 (A100), sm_86"),
        ((*RTX, "--target", "sm_85"), "unknown target sm_85; known: sm_75 (RTX 20, T4), sm_80 (A100)"),
        ((*RTX, "--target", ","), "names nothing"),
        ((*RTX, "--target", "sm_86,sm_87"), "sm_87 (Jetson Orin): no target of TensorRT-RTX, build with TensorRT on"),
        ((*RTX, "--target", "sm_75"), "sm_75 (RTX 20, T4): no target of TensorRT-RTX"),
        ((*RTX, "--target", "sm_86", "--precision", "bf16"), "'base' was not exported in bf16 (it has fp32)"),
        ((*RTX, "--target", "sm_86", "--precision", "int8"), "TensorRT engines are fp32, fp16, bf16, not int8"),
        ((*RTX, "--target", "sm_86", "--precision", "fp12"), "TensorRT engines are fp32, fp16, bf16, not fp12"),
        ((*RTX, "--target", "sm_86", "--only", "deplot,eyes"), "no component eyes in the bundle; it has base, dinov2"),
        ((*RTX, "--target", "sm_86", "--max-batch", "0"), "--max-batch must be from 1 to 64, not 0"),
        ((*RTX, "--target", "sm_86", "--optimization-level", "6"), "must be from 0 to 5, not 6"),
        (("--backend", "ort"), "invalid choice"),
        ((), "required: --backend"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: tuple[str, ...], text: str, fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "gpu", lambda: None)
    assert_user_error(mova_command("build", fresh, *arguments), text)
    assert not (fresh / "engines").exists()


@pytest.mark.parametrize(
    ("backend", "extra"),
    [("tensorrt", "pip install tensorrt (extra `tensorrt`)"), ("tensorrt-rtx", "pip install tensorrt-rtx-cu13")],
)
def test_a_backend_that_is_not_installed_is_told_with_its_extra(
    backend: str, extra: str, fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library.installed, "has_module", lambda name: False)
    library._module.cache_clear()
    assert_user_error(mova_command("build", fresh, "--backend", backend, "--target", "sm_86"), extra)
    library._module.cache_clear()


def test_a_backend_that_can_not_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libtensorrt_rtx.so.1: cannot open shared object file")

    monkeypatch.setattr(library.importlib, "import_module", broken)
    with pytest.raises(BackendError, match="tensorrt_rtx is installed but can't be imported"):
        library.load("tensorrt-rtx")


def test_a_damaged_graph_is_not_built_from(fresh: Path, mova_command: MovaCommand) -> None:
    weights = fresh / "components/deplot/fp32/model.onnx.data"
    rewrite(weights, weights.read_bytes()[:-1] + b"x")
    ran = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot")
    assert_user_error(ran, "its sha256 differs from the manifest's")
    assert not (fresh / "engines").exists()


def test_a_node_that_tensorrt_does_not_know_is_named(fresh: Path, mova_command: MovaCommand) -> None:
    import onnx

    path = "components/deplot/fp32/model.onnx"
    model = onnx.load(fresh / path, load_external_data=False)
    model.graph.node[3].op_type, model.graph.node[3].domain = "Frobnicate", "nonsense"
    model.opset_import.append(onnx.helper.make_opsetid("nonsense", 1))
    rewrite(fresh / path, model.SerializeToString())
    with edited_manifest(fresh) as manifest:
        manifest["components"]["deplot"]["artifacts"][0]["files"][0] = file_entry(fresh, path)
    ran = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot")
    node = model.graph.node[3].name
    assert_user_error(ran, f"deplot: TensorRT can't read its graph: node {node} (Frobnicate): ")
    assert not (fresh / "engines").exists()


def deaf(anything: object) -> None:
    """What doesn't care for what it is given."""


def test_what_tensorrt_can_not_build_is_told_with_its_reason(bundle: MakePath) -> None:
    opened = Bundle.open(bundle(2))
    wanted = order(opened, "tensorrt-rtx", "fp32", [TARGETS["sm_75"]], components=["deplot"])
    (key,) = wanted.all
    source = Source(library.load("tensorrt-rtx"), "deplot", opened.root / "components/deplot/fp32/model.onnx")
    with pytest.raises(ExportError, match=r"deplot: TensorRT can't build it for sm_75: .*FP32 GEMM is not supported"):
        source.build(key, deaf, deaf)
    newer = dataclasses.replace(key, capability="sm_130")
    with pytest.raises(ExportError, match=r"this TensorRT-RTX \(.*\) has no target sm_130"):
        source.build(newer, deaf, deaf)
    with pytest.raises(ExportError, match="its graph takes patches, the manifest says pixels"):
        source.build(dataclasses.replace(key, profile={"pixels": key.profile["patches"]}), deaf, deaf)


def test_the_default_precision_is_the_bundles_first_that_tensorrt_takes(bundle: MakePath) -> None:
    @dataclasses.dataclass
    class Bundled:
        precisions: tuple[str, ...]

    assert precision_of(Bundle.open(bundle(2)), None) == "fp32"
    assert precision_of(Bundled(("int8", "bf16", "fp32")), None) == "bf16"  # type: ignore[arg-type]
    assert precision_of(Bundled(("bf16", "fp32")), "fp32") == "fp32"  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="not int8 and int4; export the bundle"):
        precision_of(Bundled(("int8", "int4")), None)  # type: ignore[arg-type]
