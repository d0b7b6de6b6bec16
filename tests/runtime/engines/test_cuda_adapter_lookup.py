"""Which of a bundle's kernels and weights backend `cuda` takes, and why not others."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bundle_copy import copy_bundle
from fake_gpu import fake_gpu, install
from fake_kernels import CAPABILITY, kernel_set, write_record
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import AdapterShape, AdapterWeights, read_kernels
from mova_runtime.bundle.manifest import File
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.cuda_adapter import lookup
from mova_runtime.engines.cuda_adapter.backend import CudaAdapterBackend
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.errors import BackendError, BundleError, EngineKeyError, IntegrityError


@pytest.fixture
def here():
    return fake_gpu()


@pytest.fixture
def kernels_in(bundle, tmp_path):
    """A bundle with records of kernels and weights that nothing computes with."""
    root = copy_bundle(bundle(2), tmp_path / "bundle")
    opened = Bundle.open(root)
    shape = AdapterShape(
        channels=1024,
        text_channels=1024,
        hidden=64,
        grid=8,
        blocks=1,
        experts=7,
        top_k=3,
        feed_forward=2730,
        squeezed=256,
    )
    write_record(root, kernel_set(root, shape, "bf16"))
    folder = root / "kernels" / "weights"
    folder.mkdir()
    (folder / "bf16.bin").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    graph = opened.artifact("adapter", "fp32").sha256
    write_weights(root, AdapterWeights("bf16", shape, graph, File("kernels/weights/bf16.bin", 7, digest), {}))
    return root


def write_weights(root: Path, told: AdapterWeights) -> None:
    (root / "kernels/weights/bf16.json").write_text(json.dumps(to_json(told)))


@pytest.fixture
def backend(here, monkeypatch):
    install(monkeypatch, here)
    return CudaAdapterBackend("bf16")


def test_identity_is_of_everything_that_computes(kernels_in, backend, monkeypatch):
    def identity():
        return backend.identity(Bundle.open(kernels_in), "adapter")

    first = identity()
    assert first.keys() == {"engine", "backend", "precision", "version", "device", "driver"}
    assert (first["backend"], first["precision"]) == ("cuda", "bf16")
    assert first["device"] == f"NVIDIA RTX 4090 ({CAPABILITY})"
    assert first["version"].startswith("triton 3.7.1, ")
    assert re.search(r"cuda-core \d.*, nvmath-python \d", first["version"])
    known = read_kernels(Bundle.open(kernels_in), CAPABILITY, "bf16")
    file = kernels_in / known.kernels["pool"].file.path
    data = file.read_bytes() + b" "
    file.write_bytes(data)
    changed = replace(
        known.kernels["pool"], file=File(known.kernels["pool"].file.path, len(data), hashlib.sha256(data).hexdigest())
    )
    write_record(kernels_in, known, kernels={**known.kernels, "pool": changed})
    second = identity()
    assert {name for name in first if first[name] != second[name]} == {"engine"}
    wider = replace(changed, warps=2 * changed.warps)  # launched otherwise, it is another engine
    write_record(kernels_in, known, kernels={**known.kernels, "pool": wider})
    assert identity()["engine"] != second["engine"]
    write_record(kernels_in, known, kernels={**known.kernels, "pool": changed}, triton="3.8.0")
    assert identity()["version"].startswith("triton 3.8.0, ")
    assert backend.need(Bundle.open(kernels_in), "adapter").resident.device > 1000


def test_it_has_the_adapter_alone(kernels_in, backend):
    for ask in (backend.identity, backend.need, backend.load):
        with pytest.raises(BackendError, match=r"^backend cuda has the adapter alone, no 'sam'$"):
            ask(Bundle.open(kernels_in), "sam")


def found(root):
    return lookup.find(Bundle.open(root), "adapter", "bf16")


@pytest.mark.usefixtures("backend")
def test_kernels_for_this_very_gpu_and_no_other(kernels_in, monkeypatch):
    assert found(kernels_in).kernels.capability == CAPABILITY
    monkeypatch.setattr(lookup, "gpu", lambda: Gpu("NVIDIA RTX 3090", "sm_86", "580.65.06, CUDA 13.0"))
    with pytest.raises(EngineKeyError) as error:
        found(kernels_in)
    assert str(error.value) == (
        f"{kernels_in} has no kernels for sm_86 in bf16; "
        f"run `mova kernels {kernels_in} --target sm_86 --precision bf16`"
    )
    with pytest.raises(EngineKeyError, match=r"no kernels for sm_86 in fp16; run `mova kernels .*--precision fp16`"):
        lookup.find(Bundle.open(kernels_in), "adapter", "fp16")


@pytest.mark.usefixtures("backend")
def test_weights_of_another_export(kernels_in):
    told = found(kernels_in).weights
    write_weights(kernels_in, replace(told, graph="b" * 64))
    with pytest.raises(EngineKeyError, match=r"packed from another export's adapter; run `mova kernels "):
        found(kernels_in)
    write_weights(kernels_in, replace(told, shape=replace(told.shape, squeezed=512)))
    with pytest.raises(EngineKeyError, match=r"kernels for sm_89 are not for the packed weights; run `mova kernels "):
        found(kernels_in)


@pytest.mark.usefixtures("backend")
def test_kernels_that_are_not_all_there(kernels_in):
    known = read_kernels(Bundle.open(kernels_in), CAPABILITY, "bf16")
    assert {*lookup.NAMES} == {*known.kernels}
    some = {name: kernel for name, kernel in known.kernels.items() if name not in ("pool", "bias")}
    write_record(kernels_in, known, kernels=some)
    with pytest.raises(EngineKeyError, match=r": kernels for sm_89 lack bias, pool; run `mova kernels "):
        found(kernels_in)


@pytest.mark.parametrize(("driver", "fits"), [("550.54, CUDA 12.4", False), ("CUDA 13.2", True), ("CUDA 14.0", True)])
def test_a_driver_too_old_for_the_kernels(kernels_in, here, monkeypatch, driver, fits):
    install(monkeypatch, here, driver)
    write_record(kernels_in, read_kernels(Bundle.open(kernels_in), CAPABILITY, "bf16"), toolkit="13.1")
    if fits:
        found(kernels_in)
        return
    with pytest.raises(BackendError) as error:
        found(kernels_in)
    assert str(error.value) == (
        "backend cuda: the kernels are machine code of CUDA 13.1, this machine's driver has CUDA 12.4; install a newer "
        "driver"
    )


def test_a_file_that_is_not_what_its_record_says(kernels_in, backend):
    (kernels_in / "kernels/weights/bf16.bin").write_bytes(b"welghts")
    with pytest.raises(BundleError, match=r"bf16\.bin: .*mova kernels"):
        backend.load(Bundle.open(kernels_in), "adapter")


def test_weights_whose_record_lacks_tensors(kernels_in, backend):
    with pytest.raises(IntegrityError, match="tensors missing or unknown"):
        backend.load(Bundle.open(kernels_in), "adapter")


def test_what_fails_to_load_says_so(kernels_in, backend, here):
    here.core.refuses = "CUDA_ERROR_NO_BINARY_FOR_GPU"
    with pytest.raises(BackendError, match=r"^cuda: can't load 'adapter': kernel '\w+' can't be loaded: it was comp"):
        backend.load(Bundle.open(kernels_in), "adapter")
