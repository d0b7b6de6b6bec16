"""Who is measured, and which requests."""

from __future__ import annotations

import pytest

from bundle_copy import copy_bundle, edited_manifest
from mova_export.bench import routes
from mova_export.bench.candidates import Candidate, candidates, reference
from mova_export.bench.options import Options
from mova_export.errors import BenchError
from mova_runtime.bundle import Bundle
from mova_runtime.engines import abilities


@pytest.fixture
def on_a_cpu(monkeypatch):
    """A processor that multiplies bfloat16 and no float16, without a GPU, with both of its backends installed."""

    def lacking(backend, precision="fp32"):
        return None if backend in ("ort", "openvino") and precision != "fp16" else "not here"

    monkeypatch.setattr(abilities, "lacking", lacking)


def labels(bundle, component="sam", **options) -> list[str]:
    return [one.label for one in candidates(Bundle.open(bundle), component, Options(**options))]


@pytest.mark.usefixtures("on_a_cpu")
def test_by_default_all_that_run_here(bundle) -> None:
    assert labels(bundle(2)) == ["ort fp32", "openvino fp32", "openvino bf16"]


@pytest.mark.usefixtures("on_a_cpu")
def test_torch_comes_after_ours(bundle) -> None:
    found = labels(bundle(2), backends=("openvino",), against=("torch", "torch.compile"))
    assert found[:2] == ["openvino fp32", "openvino bf16"]
    assert found[2:] == ["torch fp32", "torch bf16", "torch.compile fp32", "torch.compile bf16"]


@pytest.mark.usefixtures("on_a_cpu")
def test_precisions_are_of_both(bundle) -> None:
    assert labels(bundle(2), precisions=("bf16",), against=("torch",)) == ["openvino bf16", "torch bf16"]


@pytest.mark.usefixtures("on_a_cpu")
def test_what_nobody_runs_is_told(bundle) -> None:
    with pytest.raises(BenchError, match=r"nothing asked for can run sam: ort: .*int8") as raised:
        labels(bundle(2), precisions=("int8",))
    assert "openvino: does not run int8" in str(raised.value)
    with pytest.raises(BenchError, match="nothing asked for can run sam: cuda: has the adapter alone"):
        labels(bundle(2), backends=("cuda",))


def test_a_gpus_backends_are_asked_for_what_the_bundle_has(bundle, monkeypatch) -> None:
    """Without built engines nothing is measured by default, and the reason is told where it was asked for."""
    monkeypatch.setattr(abilities, "lacking", lambda backend, precision="fp32": None)
    assert labels(bundle(2)) == ["ort fp32", "ort-cuda fp32", "openvino fp32", "openvino bf16"]
    assert labels(bundle(2), "adapter", backends=("tensorrt", "cuda")) == ["tensorrt fp32", "cuda bf16", "cuda fp16"]


def test_the_reference_is_torch_in_bfloat16_or_its_first_form() -> None:
    ours = Candidate("ort", "fp32")
    eager = [Candidate("torch", precision) for precision in ("fp32", "bf16")]
    assert reference((ours, *eager)) == eager[1]
    assert reference((ours, eager[0])) == eager[0]
    assert reference((ours,)) is None


def test_routes_of_a_whole_bundle(bundle) -> None:
    found = routes.routes(Bundle.open(bundle(2)), None)
    assert [str(route) for route in found] == [
        *("none", "dinov2", "vary", "codetr", "pix2struct", "deplot", "biomedclip", "sam"),
        *("dinov2+deplot", "codetr+sam", "dinov2+codetr+sam"),
    ]
    assert [route.kind for route in found] == ["none", *["single"] * 7, "pair", "pair", "triple"]


def test_routes_of_a_part(bundle, tmp_path) -> None:
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        for name in ("deplot", "vary", "sam", "text"):
            del manifest["components"][name]
    opened = Bundle.open(copied)
    assert [str(route) for route in routes.routes(opened, None)] == [
        *("none", "dinov2", "codetr", "pix2struct", "biomedclip")
    ]
    assert routes.lacking(opened) == ["text"]
    with pytest.raises(BenchError, match="no expert 'sam' in the bundle; it has dinov2, codetr"):
        routes.routes(opened, ["dinov2+sam"])


def test_each_component_is_served_by_its_fastest(bundle) -> None:
    opened = Bundle.open(bundle(2))
    bf16, fp32 = Candidate("openvino", "bf16"), Candidate("ort", "fp32")
    found = routes.served(opened, {"base": bf16, "sam": bf16, "adapter": fp32})
    assert (found.backend, found.most.precision) == ("openvino,adapter=ort:fp32", "bf16")
    assert str(found) == "openvino:bf16,adapter=ort:fp32"
    assert (found.by("adapter"), found.by("text")) == (fp32, bf16)
    assert str(found.of(["base", "sam"])) == "openvino:bf16"
