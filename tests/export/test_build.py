"""`mova build`: engines for GPUs that this machine does not have, each there whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle_copy import copy_bundle, edited_manifest, file_entry, rewrite
from command_line import Done, MovaCommand
from hard_times import files_at_most, heed_signals
from mova_export.cli import build as command
from mova_export.engines import store as engine_store
from mova_export.engines.build import Source, flags
from mova_export.engines.interrupts import Interrupts
from mova_export.engines.order import order, precision_of
from mova_export.engines.output import Output, serialise
from mova_export.engines.profiles import profile
from mova_export.engines.progress import Progress
from mova_export.engines.store import EngineStore
from mova_export.engines.targets import TARGETS, targets_for
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle, sha256_of
from mova_runtime.bundle.engine import EngineKey, EngineRecord, Range
from mova_runtime.bundle.schema import from_json, to_json
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.engines.trt import library
from mova_runtime.errors import BackendError

MakePath = Callable[[int], Path]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="the dev extra has TensorRT-RTX on Linux x86_64"
)

NAMES = ("sm_86", "sm_89", "sm_120")
RTX = ("--backend", "tensorrt-rtx")
A10 = Gpu("NVIDIA A10", "sm_86", "13.0")


def assert_user_error(done: Done, text: str) -> None:
    assert done.status == 2
    (line,) = done.error_lines
    assert line.startswith("mova")
    assert text in line


def hidden(bundle: Path) -> list[str]:
    """What a build left beside engines."""
    return sorted(path.name for path in (bundle / "engines").glob(".*"))


def engine_files(bundle: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (bundle / "engines").glob("*/engine.plan")}


@pytest.fixture
def fresh(bundle: MakePath, tmp_path: Path) -> Path:
    """A bundle of one's own, without engines."""
    return copy_bundle(bundle(2), tmp_path / "bundle")


HALVES = ("adapter,biomedclip,llm,deplot,pix2struct", "base,text,vary,codetr,sam,dinov2")


@dataclasses.dataclass(frozen=True)
class Built:
    root: Path
    outputs: tuple[str, ...]


@pytest.fixture(scope="module")
def built(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Engines of every component for three targets, built by two commands at once."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("built") / "bundle")
    line = [sys.executable, "-m", "mova_export", "build", str(root), *RTX, "--target", ",".join(NAMES), "--only"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*line, half], **pipes) for half in HALVES]
    outputs = []
    for process in processes:
        output, error = process.communicate(timeout=300)
        assert (process.returncode, error) == (0, "")
        outputs.append(output)
    return Built(root, tuple(outputs))


# ---- what is built ----


def test_every_component_for_every_target_without_a_gpu(built: Built) -> None:
    opened = Bundle.open(built.root)
    records = {(record.key.component, record.key.capability): record for record in opened.engines()}
    assert set(records) == {(component, name) for component in opened.manifest.components for name in NAMES}
    for record in records.values():
        key, path = record.key, built.root / record.file.path
        artifact = opened.artifact(key.component, "fp32")
        assert (key.precision, key.flavour, key.graph) == ("fp32", "tensorrt-rtx", artifact.sha256)
        assert key.version == library.version("tensorrt-rtx")
        assert key.platform == f"linux-{os.uname().machine}"
        assert record.file.path == f"engines/{key.name}/engine.plan"
        assert path.stat().st_size == record.file.bytes > artifact.bytes
        assert sha256_of(path) == record.file.sha256
        assert record.seconds > 0
    assert len({record.file.sha256 for record in records.values()}) == len(records)
    assert hidden(built.root) == []


def test_an_engine_takes_about_the_room_that_is_asked_for(built: Built) -> None:
    from mova_export.engines.order import _room

    opened = Bundle.open(built.root)
    for record in opened.engines():
        assert record.file.bytes <= _room(opened, record.key), record.key.component


def test_a_line_tells_of_each_engine(built: Built) -> None:
    for half, output in zip(HALVES, built.outputs, strict=True):
        total = 3 * len(half.split(","))
        first, *lines, last = output.splitlines()
        assert "sm_86 (RTX 30, A10), sm_89 (RTX 40, L4), sm_120 (RTX 50)" in first
        assert [line[:7] for line in lines] == [f"[{index:2}/{total}]" for index in range(1, total + 1)]
        assert [line.split("]")[1].split()[0] for line in lines[::3]] == half.split(",")
        assert all(line.endswith(" s") and "iB" in line for line in lines)
        assert f"{total} engines" in last
        assert f"{total} built now" in last


def test_a_record_is_read_back_as_it_was_written(built: Built) -> None:
    for record in Bundle.open(built.root).engines():
        assert from_json(EngineRecord, to_json(record), "record") == record
        assert from_json(EngineKey, json.loads(json.dumps(to_json(record.key))), "key").name == record.key.name


def test_building_needs_no_torch() -> None:
    code = (
        "import sys, mova_export.cli.build, mova_export.engines.order\n"
        "from mova_runtime.engines.trt import library\n"
        "library.version('tensorrt-rtx')\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# ---- what is not built again ----


def test_inspect_shows_engines_and_which_are_of_no_use(fresh: Path, mova_command: MovaCommand) -> None:
    assert "engines:" not in mova_command("inspect", fresh).output
    mova_command("build", fresh, *RTX, "--only", "deplot", "--target", "sm_86,sm_120")
    lines = mova_command("inspect", fresh).output.splitlines()
    (line,) = lines[lines.index("engines:") + 1 :]
    assert line.split() == ["deplot", "fp32", "tensorrt-rtx", library.version("tensorrt-rtx"), "sm_120,", "sm_86"]
    path = "components/deplot/fp32/model.onnx"
    rewrite(fresh / path, (fresh / path).read_bytes() + b"\x3a\x02\x12\x00")
    with edited_manifest(fresh) as manifest:
        manifest["components"]["deplot"]["artifacts"][0]["files"][0] = file_entry(fresh, path)
    assert mova_command("inspect", fresh).output.splitlines()[-1].endswith("of another export: not used")


def test_what_is_there_is_not_built_again(fresh: Path, mova_command: MovaCommand) -> None:
    only = ("build", fresh, *RTX, "--only", "deplot")
    assert mova_command(*only, "--target", "sm_86").status == 0
    before = engine_files(fresh)
    again = mova_command(*only, "--target", "sm_86,sm_89,sm_86")
    assert [line.endswith("already built") for line in again.output.splitlines()[1:-1]] == [True, False]
    assert "2 engines" in again.output
    after = engine_files(fresh)
    assert before.items() < after.items()

    assert mova_command(*only, "--target", "sm_86", "--rebuild").status == 0
    (name,) = before
    rebuilt = engine_files(fresh)
    assert rebuilt[name] > after.pop(name)
    assert after.items() < rebuilt.items()
    assert hidden(fresh) == []


@pytest.mark.parametrize("damage", ["engine bytes", "no engine", "record", "another's record"])
def test_what_is_damaged_is_built_again(damage: str, fresh: Path, mova_command: MovaCommand) -> None:
    arguments = ("build", fresh, *RTX, "--only", "deplot", "--target", "sm_86")
    mova_command(*arguments)
    (record,) = Bundle.open(fresh).engines()
    engine = fresh / record.file.path
    whole, text = engine.read_bytes(), engine.with_name("engine.json").read_text()
    if damage == "engine bytes":
        engine.write_bytes(whole[:-1] + b"x")
    elif damage == "no engine":
        engine.unlink()
    else:
        engine.with_name("engine.json").write_text(text.replace("sm_86", "sm_89") if damage[0] == "a" else text[:100])
    assert "1 built now" in mova_command(*arguments).output
    assert Bundle.open(fresh).engines()[0].key == record.key
    assert engine.stat().st_size == len(whole)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-1] + b"x", lambda data: b""])
def test_verify_finds_a_damaged_engine_also_without_a_gpu(damage: Any, fresh: Path, mova_command: MovaCommand) -> None:
    mova_command("build", fresh, *RTX, "--only", "deplot", "--target", "sm_86")
    (record,) = Bundle.open(fresh).engines()
    path = fresh / record.file.path
    path.write_bytes(damage(path.read_bytes()))
    done = mova_command("verify", fresh)
    assert_user_error(done, "the engine of 'deplot' for sm_86 is damaged")
    assert "mova build" in done.error


def test_a_key_changes_with_everything_an_engine_depends_on(built: Built) -> None:
    key = next(record.key for record in Bundle.open(built.root).engines() if record.key.component == "base")
    wider = {name: Range(r.minimum, r.optimum, (4, *r.maximum[1:])) for name, r in key.profile.items()}
    changes: dict[str, Any] = {
        "component": "sam", "precision": "bf16", "graph": "0" * 64, "flavour": "tensorrt", "version": "1.7.1.117",
        "capability": "sm_80", "platform": "linux-aarch64", "profile": wider, "flags": flags(5),
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(EngineKey)}
    names = {dataclasses.replace(key, **{field: value}).name for field, value in changes.items()}
    assert len(names | {key.name}) == len(changes) + 1


def test_a_re_exported_graph_has_other_engines(fresh: Path, mova_command: MovaCommand) -> None:
    arguments = ("build", fresh, *RTX, "--only", "deplot", "--target", "sm_86")
    mova_command(*arguments)
    path = "components/deplot/fp32/model.onnx"
    rewrite(fresh / path, (fresh / path).read_bytes() + b"\x3a\x02\x12\x00")  # an empty name more changes no meaning
    with edited_manifest(fresh) as manifest:
        manifest["components"]["deplot"]["artifacts"][0]["files"][0] = file_entry(fresh, path)
    ran = mova_command(*arguments)
    assert ran.status == 0, ran.error
    assert "1 built now" in ran.output
    assert len({record.key.graph for record in Bundle.open(fresh).engines()}) == 2


# ---- profiles ----


def test_profiles_cover_no_pairs_and_the_whole_context(bundle: MakePath) -> None:
    opened = Bundle.open(bundle(2))
    adapter = profile(opened, "adapter")
    assert [getattr(adapter["pair_image"], name) for name in ("minimum", "optimum", "maximum")] == [(0,), (3,), (7,)]
    assert (adapter["keys"].minimum, adapter["keys"].maximum) == ((0, 1, 64, 1024), (7, 1, 64, 1024))
    llm = profile(opened, "llm", max_batch=4)
    assert llm["past_key_values.0.key"] == Range((1, 2, 0, 16), (1, 2, 144, 16), (1, 2, 2047, 16))
    assert llm["inputs_embeds"] == Range((1, 1, 64), (1, 1, 64), (1, 512, 64))
    assert llm["attention_mask"] == Range((1, 1), (1, 145), (1, 2559))
    assert profile(opened, "text")["ids"] == Range((1, 1), (1, 32), (2, 512))  # its probe has two questions
    assert profile(opened, "sam", max_batch=4)["pixels"] == Range(*[(n, 3, 256, 256) for n in (1, 1, 4)])
    assert profile(opened, "adapter", max_batch=4)["keys"].maximum[0] == 28


def test_every_probe_is_within_its_profile(bundle: MakePath) -> None:
    opened = Bundle.open(bundle(2))
    for name, component in opened.manifest.components.items():
        ranges = profile(opened, name)
        for tensor, file in (entry for probe in component.probes for entry in probe.inputs.items()):
            shape = np.load(opened.path(file), mmap_mode="r").shape
            limits = zip(ranges[tensor].minimum, shape, ranges[tensor].maximum, strict=True)
            assert all(least <= length <= most for least, length, most in limits), (name, tensor)


def test_an_unknown_axis_is_named(fresh: Path) -> None:
    with edited_manifest(fresh) as manifest:
        manifest["components"]["sam"]["inputs"][0]["shape"][0] = "frames"
    with pytest.raises(ExportError, match="sam: input 'pixels' has an axis 'frames'"):
        profile(Bundle.open(fresh), "sam")


def test_a_larger_batch_is_another_engine(fresh: Path, mova_command: MovaCommand) -> None:
    arguments = ("build", fresh, *RTX, "--only", "deplot", "--target", "sm_86")
    assert mova_command(*arguments).status == 0
    assert "1 built now" in mova_command(*arguments, "--max-batch", 3, "--optimization-level", 0).output
    greatest = {record.key.profile["patches"].maximum[0]: record.key.flags for record in Bundle.open(fresh).engines()}
    assert greatest == {1: flags(), 3: ("no-tf32", "optimization-level=0", "strongly-typed")}


# ---- targets ----


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


# ---- mistakes ----


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


# ---- the disk ----


def test_a_full_disk_leaves_whole_engines_only(fresh: Path, mova_command: MovaCommand) -> None:
    with files_at_most(4_000_000):  # deplot's engine fits, dinov2's does not
        ran = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot,dinov2")
    assert_user_error(ran, "dinov2 for sm_86 can't be written (file too large); engines built before it stay")
    assert [record.key.component for record in Bundle.open(fresh).engines()] == ["deplot"]
    assert hidden(fresh) == []


def test_too_little_space_is_told_before_anything_is_built(
    fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 200 << 20}))
    ran = mova_command("build", fresh, *RTX, "--target", "sm_86,sm_89", "--only", "adapter")
    assert_user_error(ran, "MiB, the disk has 200.0 MiB free; nothing was built")
    assert not (fresh / "engines").exists()


def test_engines_are_not_written_through_a_link_that_leads_out(
    fresh: Path, tmp_path: Path, mova_command: MovaCommand
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (fresh / "engines").symlink_to(tmp_path / "elsewhere")
    ran = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot")
    assert_user_error(ran, "'engines' leaves the bundle")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_when_the_swap_fails_the_old_engine_comes_back(
    fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot")
    mova_command(*arguments)
    before, rename = engine_files(fresh), Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".partial-") and not self.name.endswith(".replaced"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    assert_user_error(mova_command(*arguments, "--rebuild"), "input/output error")
    assert engine_files(fresh) == before
    assert hidden(fresh) == []


# ---- interruptions, and two builds at once ----


def start_build(bundle: Path, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "mova_export", "build", str(bundle), *RTX, "--target", ",".join(NAMES), *arguments]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)


def wait_until(process: subprocess.Popen[str], reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls for the file system to change; nothing is assumed of how long that takes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_leaves_whole_engines_only(number: signal.Signals, fresh: Path) -> None:
    process = start_build(fresh, "--only", "deplot,biomedclip")
    wait_until(process, lambda: len(engine_files(fresh)) >= 3)  # biomedclip's take longest
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (128 + number, 130)
    assert "Traceback" not in told
    assert hidden(fresh) == []
    opened = Bundle.open(fresh)
    records = opened.engines()
    assert 3 <= len(records) < 6
    for record in records:
        opened.checked_path(record.file)


def test_a_hard_kill_leaves_no_half_engine_and_the_next_build_cleans_up(fresh: Path, mova_command: MovaCommand) -> None:
    process = start_build(fresh, "--only", "biomedclip")
    wait_until(process, lambda: hidden(fresh))
    process.kill()
    process.communicate(timeout=60)
    opened = Bundle.open(fresh)
    for record in opened.engines():
        opened.checked_path(record.file)
    assert len(hidden(fresh)) == 1
    assert mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot").status == 0
    assert hidden(fresh) == []


def test_a_record_in_a_half_written_folder_is_not_an_engine(fresh: Path) -> None:
    folder = fresh / "engines/.partial-1-abc/0123"
    folder.mkdir(parents=True)
    (folder / "engine.json").write_text("{}")
    assert Bundle.open(fresh).engines() == ()


def test_a_build_at_work_is_not_taken_for_abandoned(fresh: Path) -> None:
    opened = Bundle.open(fresh)
    with EngineStore(opened) as first:
        with EngineStore(opened) as second:
            assert len(hidden(fresh)) == 2
            key = order(opened, "tensorrt-rtx", "fp32", [TARGETS["sm_86"]], components=["deplot"]).all[0]
            records = [
                store.put(key, lambda write, data=data: write(memoryview(data)))
                for store, data in ((first, b"first"), (second, b"later"))
            ]
            assert [record.key for record in records] == [key, key]
        assert opened.engines()[0].file.bytes == 5
        assert (fresh / f"engines/{key.name}/engine.plan").read_bytes() == b"later"
    assert hidden(fresh) == []


def test_builds_that_come_and_go_at_once_do_not_trip_over_each_other(fresh: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from mova_export.engines.store import EngineStore; from mova_runtime.bundle import Bundle\n"
        "bundle = Bundle.open(Path(sys.argv[1]))\n"
        "for _ in range(150):\n"
        "    with EngineStore(bundle): pass\n"
    )
    builds = [subprocess.Popen([sys.executable, "-c", code, str(fresh)], stderr=subprocess.PIPE) for _ in range(3)]
    for build in builds:
        _, error = build.communicate()
        assert build.returncode == 0, error.decode()
    assert not (fresh / "engines").exists()


def test_of_two_builds_that_end_at_once_one_stays(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, rename = Bundle.open(fresh), Path.rename

    def unseen(self: Path, target: Path) -> Path:
        if target.name.endswith(".replaced"):  # the other comes between looking and renaming
            raise FileNotFoundError
        return rename(self, target)

    with EngineStore(opened) as store:
        key = order(opened, "tensorrt-rtx", "fp32", [TARGETS["sm_86"]], components=["deplot"]).all[0]
        store.put(key, lambda write: write(memoryview(b"first")))
        monkeypatch.setattr(Path, "rename", unseen)
        store.put(key, lambda write: write(memoryview(b"second")))
    (record,) = opened.engines()
    assert opened.checked_path(record.file).read_bytes() == b"first"
    assert hidden(fresh) == []


def test_a_signal_is_held_back_and_then_raised() -> None:
    interrupts = Interrupts()
    heard = []

    def at_work() -> None:
        with interrupts:
            signal.raise_signal(signal.SIGINT)
            heard.append(interrupts.pending)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            at_work()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert heard == [signal.SIGINT]


# ---- TensorRT itself, which needs a GPU: its way through the code, with TensorRT-RTX's library in its place ----


class Older:
    """A library that lacks what TensorRT 11 dropped."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self.NetworkDefinitionCreationFlag = self.BuilderFlag = object()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def test_tensorrt_builds_with_a_timing_cache(
    fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    stand_in = Older(library.load("tensorrt-rtx"))
    monkeypatch.setattr(library, "load", lambda flavour: stand_in)
    monkeypatch.setattr(library, "version", lambda flavour: "11.4.1.2")
    monkeypatch.setattr(command, "gpu", lambda: A10)
    ran = mova_command("build", fresh, "--backend", "tensorrt", "--only", "deplot")
    assert ran.status == 0, ran.error
    (record,) = Bundle.open(fresh).engines()
    assert (record.key.flavour, record.key.capability) == ("tensorrt", "sm_86")
    (kept,) = (cache_folder / "timing").iterdir()
    assert kept.name == "tensorrt-11.4.1.2-sm_86.cache"
    assert kept.stat().st_size > 0
    assert mova_command("build", fresh, "--backend", "tensorrt", "--only", "deplot", "--rebuild").status == 0
    assert_user_error(mova_command("build", fresh, "--backend", "tensorrt", "--target", "sm_89"), "not for sm_89")


def test_tensorrt_rtx_keeps_no_timings(built: Built, cache_folder: Path) -> None:
    assert not list((cache_folder / "timing").glob("tensorrt-rtx*"))


def test_an_engine_is_written_whole_where_the_library_can_not_stream_it() -> None:
    class Builder:
        def build_serialized_network(self, network: object, config: object) -> bytes | None:
            return b"engine" if network else None

    written: list[bytes] = []
    output = Output(lambda data: written.append(bytes(data)))
    assert serialise(None, Builder(), "network", None, output)
    assert written == [b"engine"]
    assert not serialise(None, Builder(), None, None, output)


def test_a_write_that_fails_is_kept_from_tensorrt() -> None:
    def full(data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    output = Output(full)
    assert output.take(b"engine") == output.take(b"more") == 0
    assert output.failure
    assert output.failure.errno == 28


# ---- progress ----


def test_nested_phases_are_one_fraction() -> None:
    told: list[float] = []
    progress = Progress(told.append, stop=lambda: False)
    progress.start("build", 2)
    assert progress.step("build")
    progress.start("time kernels", 4)
    assert progress.step("time kernels")
    progress.finish("time kernels")
    assert progress.step("build")
    progress.finish("build")
    assert told == [0.5, 0.625, 1.0]
    assert progress.fraction == 0


def test_progress_stops_a_build_on_a_signal_or_when_nobody_reads_it() -> None:
    assert not Progress(lambda fraction: None, stop=lambda: True).step("build")

    def gone(fraction: float) -> None:
        raise BrokenPipeError

    progress = Progress(gone, stop=lambda: False)
    assert not progress.step("build")
    assert isinstance(progress.failure, BrokenPipeError)


def test_a_terminal_is_told_how_far_an_engine_is(
    fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot").output
    percents = [int(part.split()[-2]) for part in output.split("\r") if part.rstrip().endswith("%")]
    assert percents == sorted(percents)
    assert len(percents) > 5
    assert 80 < percents[-1] <= 100
