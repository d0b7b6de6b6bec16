"""Backend `cuda`: what it takes, queues and gives back. CUDA, cuda.core and cuBLAS are stand-ins on the host.

What it computes is test_cuda_adapter_pass.py's; here most kernels do nothing.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bundle_copy import copy_bundle
from fake_gpu import fake_gpu, load_small
from mova_runtime.bundle import Bundle
from mova_runtime.engines.cuda.array import DeviceArray
from mova_runtime.engines.cuda.graphs import LIMIT
from mova_runtime.engines.cuda_adapter.backend import CudaAdapterBackend
from mova_runtime.engines.cuda_adapter.layout import lay_out
from mova_runtime.errors import BackendError
from small_adapter import MINI

MIB = 1 << 20


@pytest.fixture
def here():
    return fake_gpu()


@pytest.fixture
def engine(here, tmp_path):
    """The smallest adapter's, its kernels idle."""
    here.core.idle = True
    return load_small(MINI, "bf16", tmp_path, here)


# What is queued.


def test_the_second_run_over_as_many_is_captured(engine, here):
    calls = here.cuda.calls
    for run, (graphs, launched) in enumerate([(0, 0), (1, 1), (1, 2), (1, 3)]):
        engine.run(MINI.inputs(1, [(0, run), (0, 4 if run < 4 else 0)]))
        assert (len(here.cuda.graphs), calls.count("cudaGraphLaunch")) == (graphs, launched)
    products_of_a_pass = MINI.shape.blocks * 4 + 2 * 2 + 2
    assert here.cublas.products == 2 * products_of_a_pass  # queued, and captured
    engine.run(MINI.inputs(1, []))
    assert len(here.cuda.graphs) == 1
    assert here.cublas.products == 3 * products_of_a_pass - MINI.shape.blocks  # no pairs, no queries


def test_graphs_are_bounded(engine, here):
    for pairs in reversed(range(LIMIT + 2)):  # the first needs most: nothing moves after it
        for _ in range(2):
            engine.run(MINI.inputs(2, [(pair % 2, pair // 2) for pair in range(pairs)]))
    assert len(here.cuda.graphs) == LIMIT


def test_what_cannot_be_captured_is_queued_each_time(engine, here):
    here.cuda.uncapturable = True
    for _ in range(3):
        engine.run(MINI.inputs(1, [(0, 0)]))
    assert here.cuda.calls.count("cudaStreamBeginCapture") == 1
    assert "cudaErrorStreamCaptureUnsupported" in engine._graphs.refused
    launched = len(here.core.launched)
    engine.run(MINI.inputs(1, [(0, 0)]))
    assert len(here.core.launched) > launched


def test_a_failure_while_capturing_lets_the_stream_go(engine, here):
    engine.run(MINI.inputs(1, [(0, 0)]))
    begin = here.cuda.cudaStreamBeginCapture

    def begin_and_fail(stream, mode):
        here.cublas.fails = "CUBLAS_STATUS_EXECUTION_FAILED (13)"
        return begin(stream, mode)

    here.cuda.cudaStreamBeginCapture = begin_and_fail
    with pytest.raises(BackendError, match=r"^cuda: 'adapter': cuBLAS: gemm_\w+ failed: CUBLAS_STATUS_EXECUTION"):
        engine.run(MINI.inputs(1, [(0, 0)]))  # not captured, it is queued, and fails once more
    assert not here.cuda.capturing
    assert "CUBLAS_STATUS_EXECUTION_FAILED" in engine._graphs.refused
    here.cublas.fails = ""
    engine.run(MINI.inputs(1, [(0, 0)]))


def test_memory_grows_with_what_is_asked_and_graphs_move_with_it(engine, here):
    before = here.arena.bytes
    assert before == lay_out(engine._sizes, 1, MINI.shape.top_k).end
    for _ in range(2):
        engine.run(MINI.inputs(1, [(0, 1)]))
    assert (here.arena.bytes, len(here.cuda.graphs)) == (before, 1)
    many = MINI.inputs(4, [(image, expert) for image in range(4) for expert in range(5)])
    engine.run(many)
    assert here.arena.bytes == lay_out(engine._sizes, 4, 20).end > before
    assert not here.cuda.graphs
    engine.run(many)
    assert len(here.cuda.graphs) == 1
    engine.run(MINI.inputs(1, [(0, 1)]))
    assert here.arena.bytes == lay_out(engine._sizes, 4, 20).end


def test_no_room_for_a_large_batch_leaves_room_for_a_small_one(engine, here):
    here.cuda.room = here.cuda.used + 10 * MIB
    many = MINI.inputs(4000, [])
    with pytest.raises(BackendError, match=r"^cuda: 'adapter': CUDA: cudaMallocAsync failed: cudaErrorMemoryAlloc"):
        engine.run(many)
    engine.run(MINI.inputs(1, [(0, 1)]))
    assert here.arena.bytes == lay_out(engine._sizes, 1, MINI.shape.top_k).end


def test_no_room_at_all_is_told_again_and_again(engine, here):
    """Also when not even what there was can be had again: nothing is queued at address 0."""
    here.cuda.room = 0
    for _ in range(2):
        with pytest.raises(BackendError, match="cudaErrorMemoryAllocation"):
            engine.run(MINI.inputs(4000, []))
        with pytest.raises(BackendError, match="cudaErrorMemoryAllocation"):
            engine.run(MINI.inputs(1, []))
    here.cuda.room = 1 << 30
    engine.run(MINI.inputs(1, []))


def test_outputs_are_what_they_are_called(engine):
    given = MINI.inputs(2, [(1, 0)])
    found = engine.run(given)
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        "visual": ((2, 1, 32), np.float32),
        "gates": ((2, 2, 5), np.float32),
    }
    assert list(engine.run(given, ["gates"])) == ["gates"]
    with pytest.raises(BackendError, match="no output keys; there are visual, gates"):
        engine.run(given, ["keys"])


def test_keep_returns_when_the_gpu_is_done_with_memory_of_its_own(engine, here):
    first, second = (engine.keep(MINI.inputs(1, [])) for _ in range(2))
    assert not here.cuda.queues[here.device.stream]
    pointers = {array.pointer for kept in (first, second) for array in kept.values()}
    assert len(pointers) == 4
    assert all(isinstance(array, DeviceArray) for array in first.values())
    engine.close()
    assert first["visual"].numpy().shape == (1, 1, 32)


def test_a_binding_carries_outputs_on(engine, here):
    binding = engine.bind()
    for name, array in MINI.inputs(1, [(0, 2)]).items():
        binding.set(name, array)
    binding.run()
    assert binding.get("gates").shape == (2, 1, 5)
    binding.carry("visual", "base")  # of another shape, and told so
    with pytest.raises(BackendError, match=r"'base' has the shape \[1, 1, 32\], needed is \[batch, 4, 64\]"):
        binding.run()


def test_close_gives_everything_back(engine, here):
    for _ in range(3):
        engine.run(MINI.inputs(1, [(0, 1)]))
    engine.close()
    engine.close()  # a second time is nothing
    here.device.synchronise()
    assert (here.cuda.used, here.cuda.graphs, here.cublas.handles) == (0, {}, {})
    with pytest.raises(BackendError, match=r"^cuda: 'adapter': it was closed$"):
        engine.run(MINI.inputs(1, []))


def test_many_threads_run_at_once(here, tmp_path):
    """Each thread makes CUDA's context its own; what they get is their own."""
    engine = load_small(MINI, "fp32", tmp_path, here)
    given = {seed: MINI.inputs(1 + seed % 2, [(0, seed)], seed=seed) for seed in range(4)}

    def fuse(seed):
        return engine.run(given[seed]), {name: kept.numpy() for name, kept in engine.keep(given[seed]).items()}

    with ThreadPoolExecutor(4) as workers:
        results = list(workers.map(fuse, given))
    for seed, found in enumerate(results):
        expected = MINI.by_torch(given[seed])
        for one in found:
            assert all(np.allclose(one[name], array, atol=1e-4) for name, array in expected.items())


def test_a_run_beside_a_thread_that_closes(engine):
    stop = threading.Event()
    failed = []

    def run():
        while not stop.is_set():
            try:
                engine.run(MINI.inputs(1, []))
            except BackendError as error:
                failed.append(str(error))
                return

    workers = [threading.Thread(target=run) for _ in range(2)]
    for worker in workers:
        worker.start()
    engine.close()
    for worker in workers:
        worker.join(timeout=60)
    stop.set()
    assert failed == ["cuda: 'adapter': it was closed"] * 2


# Inputs that do not fit.


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"base": None}, "takes base, text, keys, values, pair_image, pair_expert; missing or unknown: base"),
        ({"mask": np.zeros(1)}, "missing or unknown: mask"),
        ({"base": np.zeros((2, 4, 64))}, "input 'base' is float64, needed is float32"),
        ({"pair_image": np.zeros(2, np.int32)}, "input 'pair_image' is int32, needed is int64"),
        ({"base": np.zeros((2, 9, 64), np.float32)}, "'base' has the shape [2, 9, 64], needed is [batch, 4, 64]"),
        ({"base": np.zeros((4, 64), np.float32)}, "'base' has the shape [4, 64], needed is [batch, 4, 64]"),
        ({"base": np.zeros((0, 4, 64), np.float32)}, "'base' has the shape [0, 4, 64], needed is [batch, 4, 64]"),
        ({"text": np.zeros((1, 16), np.float32)}, "'text' has the shape [1, 16], needed is [2, 16]"),
        ({"keys": np.zeros((3, 2, 4, 64), np.float32)}, "'keys' has the shape [3, 2, 4, 64], needed is [2, 2, 4, 64]"),
        ({"values": [np.zeros((2, 4, 32), np.float32)] * 2}, "'values' has the shape [2, 2, 4, 32], needed is [2, 2,"),
        ({"values": [np.zeros((2, 4, 64), np.float32), np.zeros(3, np.float32)]}, "can't stack 2 arrays"),
        ({"pair_image": np.zeros((2, 1), np.int64)}, "'pair_image' has the shape [2, 1], needed is [pairs]"),
        ({"pair_image": np.array(1)}, "'pair_image' has the shape [], needed is [pairs]"),
        ({"pair_expert": np.zeros(3, np.int64)}, "'pair_expert' has the shape [3], needed is [2]"),
        ({"pair_image": np.array([0, 2])}, "input 'pair_image' holds [0, 2], of 0 to 1"),
        ({"pair_image": np.array([-1, 0])}, "input 'pair_image' holds [-1, 0], of 0 to 1"),
        ({"pair_expert": np.array([5, 0])}, "input 'pair_expert' holds [5, 0], of 0 to 4"),
        ({"pair_image": np.array([1, 1]), "pair_expert": np.array([3, 3])}, "a pair of image and expert stands twice"),
    ],
)
def test_inputs_that_do_not_fit(engine, here, changed, told):
    given = {**MINI.inputs(2, [(0, 1), (1, 3)]), **changed}
    with pytest.raises(BackendError) as error:
        engine.run({name: value for name, value in given.items() if value is not None})
    assert str(error.value).startswith("cuda: 'adapter': ")
    assert told in str(error.value)
    assert not here.core.launched
    engine.run(MINI.inputs(2, [(0, 1), (1, 3)]))


# On a GPU.


@pytest.mark.gpu("mova_runtime.engines.cuda_adapter", "mova_runtime.engines.cuda.graphs", "mova_kernels (cubins)")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_compiled_here_and_run_here(bundle, tmp_path, mova_command, precision):
    """The adapter against what torch computed; plain, captured and replayed runs are the same to the bit."""
    for module in ("cuda.core", "nvmath", "triton"):
        pytest.importorskip(module)
    root = copy_bundle(bundle(2), tmp_path / "bundle")
    compiled = mova_command("kernels", root, "--precision", precision)
    assert compiled.status == 0, compiled.error
    verified = mova_command("verify", root, "--backend", "cuda", "--precision", precision, "--only", "adapter")
    assert verified.status == 0, verified.error

    from mova_runtime.bundle.arrays import load_array

    opened = Bundle.open(root)
    engine = CudaAdapterBackend(precision).load(opened, "adapter")
    for probe in opened.component("adapter").probes:
        given = {name: load_array(opened.checked_path(file)) for name, file in probe.inputs.items()}
        plain, captured, replayed = (engine.run(given) for _ in range(3))
        assert not engine._graphs.refused
        for name, array in plain.items():
            assert np.array_equal(captured[name], array)
            assert np.array_equal(replayed[name], array)
    engine.close()


@pytest.mark.gpu("mova_runtime.engines.cuda_adapter", "mova_runtime.engines.cuda")
def test_features_stay_on_the_gpu_on_their_way_into_the_adapter(bundle, tmp_path, mova_command):
    """A whole request: base and experts by ONNX Runtime's CUDA provider, the adapter by our kernels."""
    pytest.importorskip("nvmath")
    import mova_runtime as mova
    from reference_data import cases

    root = copy_bundle(bundle(2), tmp_path / "bundle")
    assert mova_command("kernels", root, "--precision", "fp16").status == 0
    case = cases(2)[0]
    with mova.open(root, backend="ort-cuda,adapter=cuda:fp16") as rt:
        for _ in range(3):
            answer = rt.answer(case.image, case.question, max_new_tokens=case.max_new_tokens)
            assert list(answer.tokens) == case.answer_tokens
        assert answer.stats.served["adapter"].by == "cuda:fp16"
