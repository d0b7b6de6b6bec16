"""Weights packed for kernels: the adapter's, in the places and types that kernels expect."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from bundle_copy import copy_bundle
from command_line import MovaCommand, assert_user_error
from kernel_bundles import TINY, some
from mova_export.cli import main
from mova_export.errors import ExportError
from mova_export.kernels import order
from mova_export.kernels.linear import rounded
from mova_export.kernels.packing import Packing, plan
from mova_export.kernels.parameters import Parameters, open_parameters
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import (
    AdapterWeights,
    read_weights,
)
from packed_pass import adapter

MakePath = Callable[[int], Path]


@pytest.fixture(scope="module")
def opened(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with all weights and few kernels."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("packed") / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "variants", some)
        assert main(["kernels", str(root), "--target", "sm_87"]) == 0
    return Bundle.open(root)


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
