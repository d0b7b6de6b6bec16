"""What backend `cuda` computes: its pass, our kernels in Triton's interpreter, packed weights; against torch.

Everything above the driver is the real thing: argument lists, tables, memory layout, launch order. CUDA, cuda.core and
cuBLAS are stand-ins on the host.
"""

from __future__ import annotations

import numpy as np
import pytest

import mova_runtime
from bundle_copy import copy_bundle
from fake_gpu import fake_gpu, install, load_small
from fake_kernels import add_kernels, as_compiled
from mova_export.cli.run import summary
from mova_runtime.engines.cuda.array import place
from mova_runtime.engines.cuda_adapter.engine import CudaAdapterEngine
from mova_runtime.engines.nvidia import gpu
from mova_runtime.parity.bars import BARS
from mova_runtime.parity.compare import compare
from reference_data import cases
from small_adapter import MINI, ODD, SmallAdapter

pytestmark = pytest.mark.skipif(gpu() is not None, reason="on a machine with a GPU kernels are not interpreted")


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory):
    """engine_of(adapter, precision): an engine, on a GPU of its own."""
    made = {}

    def load(adapter: SmallAdapter, precision: str) -> CudaAdapterEngine:
        if (adapter, precision) not in made:
            made[adapter, precision] = load_small(adapter, precision, tmp_path_factory.mktemp("small"), fake_gpu())
        return made[adapter, precision]

    return load


def assert_passes(precision, found, expected):
    for name, array in expected.items():
        difference = compare(name, found[name], array)
        assert BARS[precision].passes(difference), difference


@pytest.mark.parametrize(("batch", "pairs"), [(1, []), (2, [(1, 6), (0, 1), (1, 0), (1, 5), (1, 3)])])
def test_pairs_of_a_ragged_batch(engine_of, batch, pairs):
    given = ODD.inputs(batch, pairs)
    assert_passes("fp32", engine_of(ODD, "fp32").run(given), ODD.by_torch(given))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_with_tiles_as_compiled(tmp_path, precision):
    engine = load_small(ODD, precision, tmp_path, fake_gpu(), as_compiled)
    given = ODD.inputs(2, [(0, 1), (1, 3), (1, 6)])
    assert_passes(precision, engine.run(given), ODD.by_torch(given))


def test_a_captured_pass_reads_its_own_inputs(engine_of):
    """Plain, captured, replayed: each time other inputs and experts, of a batch of other proportions."""
    engine = engine_of(MINI, "fp32")
    for seed, experts in enumerate([(0, 1), (3, 2), (4, 0), (3, 4)]):
        given = MINI.inputs(2, [(seed % 2, experts[0]), (1, experts[1])], seed=seed + 10)
        assert_passes("fp32", engine.run(given), MINI.by_torch(given))
    assert len(engine.fakes.cuda.graphs) == 1
    kept = engine.keep(given)
    engine.run(MINI.inputs(2, [(0, 4), (1, 4)]))
    assert_passes("fp32", {name: array.numpy() for name, array in kept.items()}, MINI.by_torch(given))


def test_inputs_from_host_and_device_stacked_and_not(engine_of):
    engine = engine_of(MINI, "fp32")
    device = engine.fakes.device
    given = MINI.inputs(2, [(0, 1), (1, 3), (1, 4)])
    expected = MINI.by_torch(given)
    keys, values = place(device, given["keys"]), given["values"]
    odd = place(device, np.concatenate((np.zeros(1, np.float32), values[1].ravel())))
    odd.pointer += 4  # not where a kernel could read it
    odd.shape = values[1].shape
    for changed in (
        {"keys": keys, "values": place(device, values), "base": place(device, given["base"])},
        {"keys": [keys[0], given["keys"][1], keys[2]], "values": [values[0], odd, values[2]]},
        {"base": [place(device, given["base"])[0], given["base"][1]], "text": [*given["text"]]},
        {
            "pair_expert": place(device, given["pair_expert"]),
            "pair_image": [np.array(image) for image in given["pair_image"]],
        },
        {"base": np.asfortranarray(given["base"]), "keys": given["keys"][:, ::-1][:, ::-1]},
    ):
        assert_passes("fp32", engine.run({**given, **changed}), expected)


# A bundle's adapter.


@pytest.fixture
def with_kernels(bundle, tmp_path):
    """with_kernels(precision): a bundle with kernels in it."""

    def make(precision):
        root = copy_bundle(bundle(2), tmp_path / "bundle")
        add_kernels(root, precision)
        return root

    return make


def test_a_bundles_adapter_passes_its_probes(with_kernels, monkeypatch, mova_command):
    """As the gate asks, and `mova verify`."""
    install(monkeypatch, fake_gpu())
    monkeypatch.setattr("mova_runtime.engines.abilities.gpu", lambda: True)
    done = mova_command("verify", with_kernels("bf16"), "--backend", "cuda", "--only", "adapter")
    assert done.status == 0, done.error
    assert done.output.startswith("cuda:bf16: as asked")
    lines = [line.split() for line in done.output.splitlines() if line.startswith("adapter")]
    assert [line[1] for line in lines] == ["visual", "gates", "visual", "gates"]
    assert {line[-1] for line in lines} == {"ok"}


def test_a_request_with_the_adapter_on_it(with_kernels, monkeypatch):
    """Routed, fused and answered; the adapter's probes and both its passes by our kernels, the rest by ONNX Runtime."""
    here = fake_gpu()
    install(monkeypatch, here)
    monkeypatch.setattr("mova_runtime.engines.abilities.gpu", lambda: True)
    case = cases(2)[0]
    with mova_runtime.open(with_kernels("fp16"), backend="ort,adapter=cuda") as rt:
        answer = rt.answer(case.image, case.question, max_new_tokens=case.max_new_tokens)
        assert answer.stats.served["adapter"].by == "cuda:fp16"
        assert answer.stats.served["llm"].by == answer.stats.backend + ":fp32" == "ort:fp32"
    assert "  adapter was served by cuda:fp16" in summary(answer)
    assert answer.routing.experts == case.experts
    assert list(answer.tokens) == case.answer_tokens
    here.device.synchronise()
    assert here.cuda.used == 0
