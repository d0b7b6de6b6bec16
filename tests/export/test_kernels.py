"""`mova kernels`: kernels for GPUs that are not here and weights packed for them, each there whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bundle_copy import copy_bundle, edited_manifest, file_entry, rewrite
from command_line import Done, MovaCommand
from hard_times import files_at_most, heed_signals
from mova_export.cli import kernels as command
from mova_export.cli import main
from mova_export.errors import ExportError
from mova_export.kernels import order, store, workers
from mova_export.kernels.linear import rounded
from mova_export.kernels.order import precision_of, targets_for
from mova_export.kernels.packing import Packing, plan
from mova_export.kernels.parameters import Parameters, compiler_shape, open_parameters, shape_of
from mova_export.kernels.workers import Workers
from mova_kernels.targets import TARGETS, Target
from mova_kernels.variants import Variant, variants
from mova_runtime.bundle import Bundle, sha256_of
from mova_runtime.bundle.kernels import (
    AdapterShape,
    AdapterWeights,
    KernelSet,
    is_current,
    read_kernels,
    read_weights,
    records,
)
from mova_runtime.bundle.schema import from_json, to_json
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.errors import BundleError, EngineKeyError, IntegrityError
from packed_pass import adapter

MakePath = Callable[[int], Path]

GRAPH = "components/adapter/fp32/model.onnx"
ORIN = Gpu("Orin", "sm_87", "12.6")
TINY = AdapterShape(1024, 1024, 64, 8, 1, 7, 3, 2730, 256)


def assert_user_error(done: Done, text: str) -> None:
    assert done.status == 2, done.error
    (line,) = done.error_lines
    assert line.startswith("mova")
    assert text in line


def hidden(bundle: Path) -> list[str]:
    """What a run left beside kernels."""
    return sorted(path.name for path in (bundle / "kernels").glob(".*"))


def written(bundle: Path) -> dict[str, int]:
    """When each file was written."""
    files = (path for path in (bundle / "kernels").rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): path.stat().st_mtime_ns for path in files}


@pytest.fixture
def fresh(bundle: MakePath, tmp_path: Path) -> Path:
    """A bundle of one's own, without kernels."""
    return copy_bundle(bundle(2), tmp_path / "bundle")


FEW = ("convert", "pool", "squeeze")
"""Kernels that are compiled in no time."""

READ: dict[str, Callable[[Bundle], object]] = {
    "kernels": lambda bundle: read_kernels(bundle, "sm_87", "bf16"),
    "weights": lambda bundle: read_weights(bundle, "bf16"),
}


def some(shape: Any, dtype: str, target: Target) -> tuple[Variant, ...]:
    return tuple(one for one in variants(shape, dtype, target) if one.name in FEW)


def some_weights(*arguments: Any) -> list[Packing]:
    return [one for one in plan(*arguments) if "query" in one.name]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mova kernels` compiles few kernels and packs few weights in this test."""
    monkeypatch.setattr(order, "variants", some)
    monkeypatch.setattr(order, "plan", some_weights)


@dataclasses.dataclass(frozen=True)
class Made:
    root: Path
    output: str


@pytest.fixture(scope="module")
def made(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Everything for all targets, by the command a user would type, in an environment made for something else."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("made") / "bundle")
    line = [sys.executable, "-m", "mova_export", "kernels", str(root), "--target", ",".join(TARGETS)]
    hostile = {
        "TRITON_INTERPRET": "1",
        "TRITON_CACHE_DIR": str(root.parent / "cache"),
        "TRITON_DISABLE_LINE_INFO": "0",
        "TRITON_KERNEL_DUMP": "1",
        "TRITON_DUMP_DIR": str(root.parent / "dump"),
        "DISABLE_LLVM_OPT": "1",
        "DISABLE_PTXAS_OPT": "1",
    }
    done = subprocess.run(line, env={**os.environ, **hostile}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in root.parent.iterdir()} == {"bundle"}
    return Made(root, done.stdout)


@pytest.fixture
def opened(made: Made) -> Bundle:
    return Bundle.open(made.root)


# ---- kernels ----


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_a_targets_kernels_are_there_with_what_launching_them_takes(target: Target, opened: Bundle) -> None:
    record = read_kernels(opened, target.capability, "bf16")
    assert (record.capability, record.precision, record.shape) == (target.capability, "bf16", TINY)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", record.triton)
    assert re.fullmatch(r"\d+\.\d+", record.toolkit)
    wanted = {one.name: one for one in variants(compiler_shape(TINY), "bf16", target)}
    assert list(record.kernels) == list(wanted)
    for name, kernel in record.kernels.items():
        assert kernel.file.path == f"kernels/{target.capability}/bf16-{name}.cubin"
        assert sha256_of(opened.root / kernel.file.path) == kernel.file.sha256
        assert tuple((one.name, one.type) for one in kernel.arguments) == wanted[name].signature
        assert kernel.constants == wanted[name].constants
        assert kernel.warps == wanted[name].num_warps
        assert kernel.symbol == wanted[name].kernel.partition(":")[2]
        assert set(kernel.scratch) == {"global", "profile"}
        assert 0 <= kernel.shared <= target.shared
        assert 16 <= kernel.registers <= 255
        assert kernel.spills == 0, f"{name} spills {kernel.spills} bytes on {target}"


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_a_cubin_says_the_same_of_itself(target: Target, opened: Bundle) -> None:
    """Asked of NVIDIA's tool, which knows nothing of our record: GPU, entry, registers, memory of the stack."""
    from triton import knobs

    record = read_kernels(opened, target.capability, "bf16")
    for name in ("cross_attention", "combine", "embed", "gate_weights"):
        kernel = record.kernels[name]
        path = opened.root / kernel.file.path
        tool = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        told = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
        usage = re.search(rf"Function {kernel.symbol}:\s+REG:(\d+) STACK:(\d+) ", told)
        assert usage, told
        assert int(usage[1]) == kernel.registers
        assert int(usage[2]) == kernel.spills == 0
        elf = subprocess.run([knobs.nvidia.cuobjdump.path, "-elf", str(path)], capture_output=True, text=True)
        assert re.search(rf"\bsm[_=]{target.arch}a?\b", elf.stdout)


def test_attention_and_combine_spill_nothing_at_full_size(tmp_path: Path) -> None:
    full = dataclasses.replace(compiler_shape(TINY), hidden=4096, grid=48, blocks=3)
    tasks = [
        (target, one)
        for target in TARGETS.values()
        if target.capability not in ("sm_86", "sm_110")  # compiled as for sm_89 and sm_100; above, and for the table
        for one in variants(full, "bf16", target)
        if one.name in ("cross_attention", "self_attention", "combine")
    ]
    with Workers(tmp_path, tasks) as compiling:
        found = [(target, one) for target, one in compiling.compiled()]
    assert len(found) == 3 * (len(TARGETS) - 2)
    for target, one in found:
        assert one.constants["EVEN"] == 1
        assert one.spills == 0, f"{one.name} spills {one.spills} bytes on {target}"
        assert one.shared <= target.shared


def test_a_line_tells_of_the_weights_and_of_each_target(made: Made) -> None:
    first, weights, *lines = made.output.splitlines()
    assert first.endswith(f"bf16, for {', '.join(map(str, TARGETS.values()))}")
    assert re.fullmatch(r"weights +\d+ tensors +66\.8 MiB +\d+\.\d s", weights)
    assert [line.split()[0] for line in lines] == list(TARGETS)
    assert all(re.fullmatch(r"sm_\d+ +19 kernels +\d+\.\d KiB +\d+\.\d s", line) for line in lines)


def test_records_are_read_back_as_they_were_written(opened: Bundle) -> None:
    found = records(opened)
    assert len(found) == len(TARGETS) + 1
    for record in found:
        assert from_json(type(record), json.loads(json.dumps(to_json(record))), "record") == record
        assert is_current(opened, record)
    assert hidden(opened.root) == []


def test_the_same_bytes_come_out_again(made: Made, tmp_path: Path) -> None:
    """Elsewhere, in other processes, in fp16 first, and without what the first run's environment held."""
    root = copy_bundle(made.root, tmp_path / "elsewhere" / "bundle")
    line = [sys.executable, "-m", "mova_export", "kernels", str(root), "--target", "sm_87", "--rebuild"]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    for path in sorted((root / "kernels").rglob("*")):
        if path.is_file() and path.parent.name in ("sm_87", "weights"):
            original = made.root / path.relative_to(root)
            assert path.read_bytes() == original.read_bytes(), path.name
            assert (path.stat().st_ino == original.stat().st_ino) is False


# ---- weights ----


@pytest.fixture(scope="module")
def parameters(bundle: MakePath) -> Parameters:
    return open_parameters(Bundle.open(bundle(2)), "bf16")


def decoded(bundle: Bundle, record: AdapterWeights) -> dict[str, np.ndarray]:
    """The packed tensors, as the bytes of the file say, in float64."""
    types = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
    data = (bundle.root / record.file.path).read_bytes()
    return {
        name: np.frombuffer(data, types[one.dtype], int(np.prod(one.shape)), one.offset)
        .reshape(one.shape)
        .astype(np.float64)
        for name, one in record.tensors.items()
    }


def probes(bundle: Bundle) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    for probe in bundle.component("adapter").probes:
        yield (
            {name: np.load(bundle.path(file)) for name, file in probe.inputs.items()},
            {name: np.load(bundle.path(file)) for name, file in probe.outputs.items()},
        )


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))


def test_the_packed_bytes_are_the_adapter(opened: Bundle) -> None:
    """Computed from the file alone, the probes' outputs come out as near as bfloat16 weights allow."""
    record = read_weights(opened, "bf16")
    assert record.graph == opened.artifact("adapter", "fp32").sha256
    assert record.shape == TINY
    packed = decoded(opened, record)
    for inputs, outputs in probes(opened):
        visual, gates = adapter(packed, inputs, TINY.top_k)
        assert error(visual, outputs["visual"]) < 1e-2
        np.testing.assert_allclose(gates, outputs["gates"], rtol=0, atol=2e-3)


def test_what_is_packed_is_exact_before_it_is_rounded(parameters: Parameters, bundle: MakePath) -> None:
    packed = {
        one.name: np.concatenate([piece.reshape(-1) for piece in one.values()]).astype(np.float64).reshape(one.shape)
        for one in plan(parameters, TINY, "fp32")
    }
    for inputs, outputs in probes(Bundle.open(bundle(2))):
        visual, gates = adapter(packed, inputs, TINY.top_k)
        assert error(visual, outputs["visual"]) < 2e-6
        np.testing.assert_allclose(gates, outputs["gates"], rtol=0, atol=1e-6)


def test_names_types_and_places_are_what_the_kernels_expect(opened: Bundle) -> None:
    record = read_weights(opened, "bf16")
    tensors = {name: (one.dtype, one.shape) for name, one in record.tensors.items()}
    expected = {
        "pos_embed": ("fp32", (64, 1024)),
        "cosine": ("fp32", (64, 32)),
        "sine": ("fp32", (64, 32)),
        "blocks.0.query": ("bf16", (7, 1024, 1024)),
        "blocks.0.query_bias": ("fp32", (7, 1024)),
        "blocks.0.projection": ("bf16", (7, 1024, 1024)),
        "blocks.0.projection_sums": ("fp32", (7, 1024)),
        "blocks.0.projection_bias": ("fp32", (7, 1024)),
        "blocks.0.gate1": ("bf16", (2048, 1024)),
        "blocks.0.gate1_bias": ("fp32", (1024,)),
        "blocks.0.gate2": ("bf16", (7, 1024)),
        "blocks.0.gate2_bias": ("fp32", (7,)),
        "blocks.0.qkv": ("bf16", (3072, 1024)),
        "blocks.0.qkv_bias": ("fp32", (1, 3072)),
        "blocks.0.self_projection": ("bf16", (1, 1024, 1024)),
        "blocks.0.self_projection_sums": ("fp32", (1, 1024)),
        "blocks.0.self_projection_bias": ("fp32", (1, 1024)),
        "blocks.0.mlp_in": ("bf16", (2 * 2752, 1024)),
        "blocks.0.mlp_in_bias": ("fp32", (2 * 2752,)),
        "blocks.0.mlp_out": ("bf16", (1024, 2752)),
        "blocks.0.mlp_out_bias": ("fp32", (1024,)),
        **{
            f"stages.{stage}.{name}": (dtype, shape)
            for stage in (0, 1)
            for name, dtype, shape in (
                ("conv1", "bf16", (1024, 1024)),
                ("conv3", "bf16", (1024, 1024)),
                ("depthwise", "fp32", (9, 1024)),
                ("squeeze", "bf16", (1024, 256)),
                ("squeeze_bias", "fp32", (256,)),
                ("excite", "bf16", (256, 1024)),
                ("excite_bias", "fp32", (1024,)),
                *((f"norm{norm}_{part}", "fp32", (1024,)) for norm in (1, 2, 3) for part in ("weight", "bias")),
            )
        },
        "head.0": ("bf16", (64, 1024)),
        "head.0_bias": ("fp32", (64,)),
        "head.2": ("bf16", (64, 64)),
        "head.2_bias": ("fp32", (64,)),
    }
    assert tensors == expected
    assert all(one.offset % 256 == 0 for one in record.tensors.values())
    ends = sorted(
        (one.offset, one.offset + int(np.prod(one.shape)) * (4 if one.dtype == "fp32" else 2))
        for one in record.tensors.values()
    )
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
    assert ends[-1][1] == record.file.bytes


def test_column_sums_are_of_what_is_stored(opened: Bundle) -> None:
    packed = decoded(opened, read_weights(opened, "bf16"))
    for name in ("projection", "self_projection"):
        sums = packed[f"blocks.0.{name}"].sum(axis=-1)
        assert np.array_equal(packed[f"blocks.0.{name}_sums"], sums.astype(np.float32))


def test_padding_is_zero(opened: Bundle) -> None:
    packed = decoded(opened, read_weights(opened, "bf16"))
    halves = packed["blocks.0.mlp_in"].reshape(2, 2752, 1024), packed["blocks.0.mlp_in_bias"].reshape(2, 2752)
    for half in halves:
        assert not half[:, 2730:].any()
        assert half[:, 2729].any()
    assert not packed["blocks.0.mlp_out"][:, 2730:].any()


def test_rounding_is_to_nearest_even_and_once() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-30, -1e-3])
    wanted = [0x3F80, 0x3F82, 0x3F81, 0xBA83]
    assert rounded(values, "bf16", "x").view(np.uint16).tolist() == wanted
    with pytest.raises(
        ExportError, match=r"the adapter's 'x' has values that fp16 can't hold; try another --precision"
    ):
        rounded(np.array([7e4]), "fp16", "x")
    assert rounded(np.array([7e4]), "bf16", "x").astype(float)[0] == 70144


def test_a_weight_that_float16_can_not_hold_leaves_nothing(
    fresh: Path, few: object, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Large(Packing):
        def values(self) -> Iterator[np.ndarray]:
            return (rounded(piece * 1e6, self.dtype, self.name) for piece in self.pieces())

    large = [Large(**vars(one)) for one in plan(open_parameters(Bundle.open(fresh), "fp16"), TINY, "fp16")]
    monkeypatch.setattr(order, "plan", lambda *arguments: large)
    ran = mova_command("kernels", fresh, "--target", "sm_87", "--precision", "fp16")
    assert_user_error(ran, "'blocks.0.query' has values that fp16 can't hold")
    assert not (fresh / "kernels").exists()


def test_weights_come_from_a_graph_of_the_precision_where_there_is_no_float32() -> None:
    """Such graphs name the copies they round, and keep float32 what the precision's policy says."""
    kept = {"blocks.0.gate.weight": ir.tensor(np.ones((2, 4), np.float32))}
    bfloat = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    narrow = {"a.weight.T.bf16": ir.tensor(bfloat, dtype=ir.DataType.BFLOAT16)}
    own = Parameters("", "bf16", {**kept, **narrow})
    assert own.shape("a.weight") == (3, 2)
    assert np.array_equal(own.reader("a.weight", 3, 2)(), bfloat.T)
    assert own.reader("blocks.0.gate.weight", 2, 4)().dtype == np.float32
    with pytest.raises(ExportError, match=r"weight 'a.weight' is \[3, 2\], not \[2, 3\]"):
        own.reader("a.weight", 2, 3)
    with pytest.raises(ExportError, match=r"fp16 graph has no weight 'a\.weight': the bundle was exported by an older"):
        Parameters("", "fp16", {**kept, **narrow}).shape("a.weight")


def test_tables_that_kernels_can_not_share_are_refused(bundle: MakePath, parameters: Parameters) -> None:
    table = np.array(parameters.reader("blocks.0.rope.freqs_cos", 64, 64)())
    table[5, 3] += 1
    changed = {**parameters.initializers, "blocks.0.rope.freqs_cos": ir.tensor(table)}
    (cosine,) = [
        one for one in plan(dataclasses.replace(parameters, initializers=changed), TINY, "bf16") if one.name == "cosine"
    ]
    with pytest.raises(ExportError, match="freqs_cos turns the two channels of a pair differently"):
        list(cosine.values())


# ---- what is not made again ----


def test_what_is_there_is_not_made_again(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    arguments = ("kernels", fresh, "--target")
    assert mova_command(*arguments, "sm_87").status == 0
    before = written(fresh)
    assert set(before) == {
        "kernels/weights/bf16.json",
        "kernels/weights/bf16.bin",
        "kernels/sm_87/bf16.json",
        *(f"kernels/sm_87/bf16-{name}.cubin" for name in FEW),
    }
    again = mova_command(*arguments, "sm_87,sm_120,sm_87").output.splitlines()[1:]
    assert [line.endswith("already there") for line in again] == [True, True, False]
    after = written(fresh)
    assert before.items() < after.items()
    assert mova_command(*arguments, "sm_87", "--precision", "fp16").status == 0
    assert after.items() < written(fresh).items()
    assert mova_command(*arguments, "sm_87", "--rebuild").status == 0
    rebuilt = written(fresh)
    assert all(rebuilt[name] > time for name, time in before.items())
    assert all(rebuilt[name] == time for name, time in after.items() if "sm_120" in name)
    assert hidden(fresh) == []


@pytest.fixture(scope="module")
def made_few(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and few kernels for Orin."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("few") / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "variants", some)
        patch.setattr(order, "plan", some_weights)
        assert main(["kernels", str(root), "--target", "sm_87"]) == 0
    return root


@pytest.fixture
def ours(made_few: Path, few: object, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_bundle(made_few, tmp_path / "ours")


@pytest.mark.parametrize(
    ("file", "damage", "read"),
    [
        ("sm_87/bf16-pool.cubin", lambda data: data[:-1] + b"x", "kernels"),
        ("sm_87/bf16-pool.cubin", None, "kernels"),
        ("sm_87/bf16.json", lambda data: data[:100], "kernels"),
        ("sm_87/bf16.json", lambda data: data.replace(b"sm_87", b"sm_89", 1), "kernels"),
        ("weights/bf16.bin", lambda data: data[:-1], "weights"),
        ("weights/bf16.json", lambda data: data.replace(b'"bf16"', b'"fp16"', 1), "weights"),
        ("weights/bf16.json", lambda data: b"[" * 100_000, "weights"),
    ],
)
def test_what_is_damaged_is_told_and_made_again(
    file: str, damage: Callable[[bytes], bytes] | None, read: str, ours: Path, mova_command: MovaCommand
) -> None:
    path = ours / "kernels" / file
    whole = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(whole))
    way = rf"run `mova kernels {re.escape(str(ours))} --target (sm_87|SM) --precision bf16`"
    with pytest.raises(IntegrityError, match=way) as told:
        READ[read](Bundle.open(ours))
    assert str(path) in str(told.value)
    lines = mova_command("kernels", ours, "--target", "sm_87").output.splitlines()[1:]
    assert [line.split()[0] for line in lines if not line.endswith("already there")] == [
        "weights" if read == "weights" else "sm_87"
    ]
    assert path.read_bytes() == whole


def test_another_source_or_compiler_or_export_is_made_again(
    ours: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("kernels", ours, "--target", "sm_87")

    def made_now() -> list[str]:
        lines = mova_command(*arguments).output.splitlines()[1:]
        return [line.split()[0] for line in lines if not line.endswith("already there")]

    assert made_now() == []
    monkeypatch.setattr(order, "source_digest", lambda variants: "0" * 64)
    assert made_now() == ["sm_87"]
    monkeypatch.setattr(order.triton, "__version__", "3.99.0")
    assert made_now() == ["sm_87"]
    rewrite(ours / GRAPH, (ours / GRAPH).read_bytes() + b"\x3a\x02\x12\x00")  # an empty name more
    with edited_manifest(ours) as manifest:
        manifest["components"]["adapter"]["artifacts"][0]["files"][0] = file_entry(ours, GRAPH)
    with pytest.raises(EngineKeyError, match="packed from another export's adapter; run `mova kernels"):
        read_weights(Bundle.open(ours), "bf16")
    assert made_now() == ["weights"]


def test_kernels_that_there_are_no_more_go(ours: Path, mova_command: MovaCommand) -> None:
    for name in ("bf16-forgotten.cubin", "fp16-other.cubin"):
        (ours / "kernels/sm_87" / name).write_bytes(b"x")
    mova_command("kernels", ours, "--target", "sm_87", "--rebuild")
    assert not (ours / "kernels/sm_87/bf16-forgotten.cubin").exists()
    assert (ours / "kernels/sm_87/fp16-other.cubin").exists()


def test_inspect_shows_kernels_and_which_are_of_no_use(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    title = "kernels of the adapter:"
    assert title not in mova_command("inspect", fresh).output
    mova_command("kernels", fresh, "--target", "sm_87,sm_120")
    lines = mova_command("inspect", fresh).output.splitlines()
    shown = [" ".join(line.split()) for line in lines[lines.index(title) + 1 :]]
    version = order.triton.__version__
    assert shown[-1] == "bf16 weights 14.0 MiB"
    assert [line.rpartition(" ")[::2] for line in shown[:-1]] == [
        (f"bf16 triton {version}, CUDA {read_kernels(Bundle.open(fresh), name, 'bf16').toolkit}", name)
        for name in ("sm_87", "sm_120")
    ]
    with edited_manifest(fresh) as manifest:
        manifest["vision"]["top_k"] = 2
    lines = mova_command("inspect", fresh).output.splitlines()
    assert all(line.endswith("of another export: not used") for line in lines[lines.index(title) + 1 :])
    with pytest.raises(EngineKeyError, match="made for an adapter of other sizes; run `mova kernels"):
        read_kernels(Bundle.open(fresh), "sm_87", "bf16")


# ---- what is asked for ----


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


# ---- compiling ----


def small(name: str = "convert") -> Variant:
    (found,) = [one for one in variants(compiler_shape(TINY), "bf16", TARGETS["sm_87"]) if one.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("convert", "ptxas fatal : Value 'sm_199a' is not defined for option 'gpu-name'"),
        ("squeeze", "its process ended with signal SIGABRT: LLVM ERROR: "),
    ],
)
def test_a_target_that_triton_does_not_know_is_told_and_nothing_is_left(
    name: str, reason: str, fresh: Path, few: object, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "variants", lambda *of: tuple(one for one in variants(*of) if one.name == name))
    unknown = dataclasses.replace(TARGETS["sm_120"], capability="sm_199", devices="RTX 99")
    monkeypatch.setitem(TARGETS, "sm_199", unknown)
    assert mova_command("kernels", fresh, "--target", "sm_87").status == 0
    ran = mova_command("kernels", fresh, "--target", "sm_87,sm_199")
    assert_user_error(ran, f"{name}: Triton {order.triton.__version__} can't compile it for sm_199 (RTX 99) ({reason}")
    assert hidden(fresh) == []
    assert not (fresh / "kernels/sm_199").exists()
    read_kernels(Bundle.open(fresh), "sm_87", "bf16")  # done before, and stays


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("import sys; sys.exit('no libstdc++.so.6')", "status 1: no libstdc++.so.6"),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("import sys; sys.stdin.buffer.read(1); print('noise', flush=True)", "status 0"),
    ],
)
def test_a_process_that_ends_is_told(code: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_START", code)
    compiling = Workers(tmp_path, [(TARGETS["sm_87"], small())])
    with compiling, pytest.raises(ExportError, match=re.escape(f"(its process ended with {end}")) as told:
        list(compiling.compiled())
    version = order.triton.__version__
    assert str(told.value).startswith(f"convert: Triton {version} can't compile it for sm_87 (Jetson Orin) (")


def test_processes_find_modules_where_this_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "elsewhere.py").write_text(
        "import triton, triton.language as tl\n\n\n"
        "@triton.jit\ndef toy(x, B: tl.constexpr):\n    tl.store(x + tl.arange(0, B), 1.0)\n",
        encoding="utf-8",
    )
    variant = Variant("toy", "elsewhere:toy", (("x", "*fp32"),), {"B": 64}, 1, 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("here")  # relative, as a script's folder may be
    with Workers(tmp_path, [(TARGETS["sm_87"], variant)]) as compiling:
        ((_, made),) = compiling.compiled()
    assert made.symbol == "toy"
    assert list(tmp_path.glob("tmp*")) == []


# ---- the disk ----


def test_a_full_disk_leaves_nothing_half_written(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    with files_at_most(10_000_000):
        ran = mova_command("kernels", fresh, "--target", "sm_87")
    assert_user_error(ran, f"{fresh}/kernels: the packed weights can't be written (file too large)")
    assert not (fresh / "kernels").exists()


def test_a_disk_that_is_full_while_compiling_is_told(ours: Path, mova_command: MovaCommand) -> None:
    before = written(ours)
    with files_at_most(4096):
        ran = mova_command("kernels", ours, "--target", "sm_87,sm_89")
    assert_user_error(ran, f"can't compile it for sm_89 (RTX 40, L4) in {ours}/kernels/.partial-")
    assert ran.error.endswith("(file too large)\n")
    assert written(ours) == before
    assert hidden(ours) == []


def test_too_little_space_is_told_before_anything_is_made(
    fresh: Path, few: object, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10 << 20}))
    ran = mova_command("kernels", fresh, "--target", "sm_87,sm_89")
    assert_user_error(ran, "needs about 18.0 MiB, the disk has 10.0 MiB free; nothing was written")
    assert not (fresh / "kernels").exists()


def test_a_place_that_can_not_be_written_is_told(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    (fresh / "kernels").write_text("a file")
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "kernels can't be written (")
    (fresh / "kernels").unlink()
    (fresh / "kernels/sm_87/bf16.json").mkdir(parents=True)
    ran = mova_command("kernels", fresh, "--target", "sm_87")
    assert_user_error(ran, "kernels for sm_87 can't be written (is a directory)")
    assert hidden(fresh) == []


def test_nothing_is_written_through_a_link_that_leads_out(
    fresh: Path, tmp_path: Path, few: object, mova_command: MovaCommand
) -> None:
    (tmp_path / "outside").mkdir()
    (fresh / "kernels").symlink_to(tmp_path / "outside")
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "'kernels' leaves the bundle")
    (fresh / "kernels").unlink()
    (fresh / "kernels").mkdir()
    (fresh / "kernels/sm_87").symlink_to(tmp_path / "outside")
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "leaves the bundle")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_record_is_the_last_to_come(ours: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails while files are put into place: there is no record of what is not there."""
    replace = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if target.name == "bf16-squeeze.cubin":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    ran = mova_command("kernels", ours, "--target", "sm_87", "--rebuild")
    assert_user_error(ran, "kernels for sm_87 can't be written (input/output error)")
    assert not (ours / "kernels/sm_87/bf16.json").exists()
    assert hidden(ours) == []
    monkeypatch.undo()
    with pytest.raises(EngineKeyError, match="no kernels for sm_87"):
        read_kernels(Bundle.open(ours), "sm_87", "bf16")


# ---- interruptions ----


def start(bundle: Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "mova_export", "kernels", str(bundle), "--target", ",".join(TARGETS)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)


def wait_until(process: subprocess.Popen[str], reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls for the file system to change; nothing is assumed of how long that takes


def at_work(bundle: Path) -> list[int]:
    """Processes that compile into the bundle: their temporary files lie there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={bundle}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended, or is another's
            continue
    return found


def test_a_polite_kill_leaves_whole_sets_only(fresh: Path) -> None:
    number = signal.SIGTERM  # others take the same way; the tests of engines send them all
    process = start(fresh)
    wait_until(process, lambda: at_work(fresh))
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (128 + number, 130)
    assert "Traceback" not in told
    assert at_work(fresh) == []
    assert hidden(fresh) == []
    opened = Bundle.open(fresh)
    for record in records(opened):
        if isinstance(record, KernelSet):
            read_kernels(opened, record.capability, "bf16")
    read_weights(opened, "bf16")  # they came first


def test_a_hard_kill_leaves_no_half_set_and_the_next_run_cleans_up(
    fresh: Path, few: object, mova_command: MovaCommand
) -> None:
    process = start(fresh)
    wait_until(process, lambda: at_work(fresh))
    process.kill()
    process.communicate(timeout=60)
    assert len(hidden(fresh)) == 1
    deadline = time.monotonic() + 60
    while at_work(fresh):  # they see that nobody waits when they have an answer
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert mova_command("kernels", fresh, "--target", "sm_87").status == 0
    assert hidden(fresh) == []


def test_two_runs_at_once_leave_one_whole_set(fresh: Path) -> None:
    code = (
        "import sys\n"
        "from mova_export.kernels import order\n"
        "real = order.variants\n"
        "order.variants = lambda *a: tuple(one for one in real(*a) if one.name in ('convert', 'pool'))\n"
        "whole = order.plan\n"
        "order.plan = lambda *a: whole(*a)[:5]\n"
        "from mova_export.cli import main\n"
        "sys.exit(main(['kernels', sys.argv[1], '--target', 'sm_87,sm_89']))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(fresh)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for one in runs:
        _, told = one.communicate(timeout=120)
        assert one.returncode == 0, told.decode()
    opened = Bundle.open(fresh)
    assert len(read_kernels(opened, "sm_87", "bf16").kernels) == 2
    digest = hashlib.sha256((fresh / "kernels/weights/bf16.bin").read_bytes()).hexdigest()
    assert read_weights(opened, "bf16").file.sha256 == digest
    assert hidden(fresh) == []
