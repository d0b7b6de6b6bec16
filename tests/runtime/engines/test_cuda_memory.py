"""Device memory, its arrays and their exchange: over fake_cuda here, and the same over a GPU where there is one."""

from __future__ import annotations

import ctypes
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import mova_runtime
from fake_cuda import FakeCuda
from mova_runtime.engines import ort as ort_module
from mova_runtime.engines.choice import Choice
from mova_runtime.engines.cuda import memory
from mova_runtime.engines.cuda import session as session_module
from mova_runtime.engines.cuda.array import DeviceArray, place
from mova_runtime.engines.cuda.dlpack import _lent as lent
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.engines.cuda.session import OrtCudaEngine
from mova_runtime.engines.ort import open_session
from mova_runtime.errors import BackendError, OutOfMemoryError
from reference_data import cases

REAL = pytest.param("a GPU", marks=pytest.mark.gpu("mova_runtime.engines.cuda"))


@pytest.fixture
def cuda():
    return FakeCuda()


@pytest.fixture
def fake(cuda):
    return Device(cuda)


@pytest.fixture(params=["fake", REAL])
def device(request):
    return Device(FakeCuda()) if request.param == "fake" else memory.device()


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (63, 5), (2, 3, 5, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_there_and_back(device, shape, dtype):
    array = np.asarray(numbers(*shape) * 100).astype(dtype)
    there = place(device, array)
    assert there.shape == shape
    assert there.nbytes == array.nbytes
    assert there.pointer % 256 == 0
    back = there.numpy()
    assert back.dtype == dtype
    assert np.array_equal(back, array)


def test_arrays_in_other_orders_and_parts(device):
    array = numbers(6, 5)
    assert np.array_equal(place(device, array.T).numpy(), array.T)
    assert np.array_equal(place(device, array[::2, 1:3]).numpy(), array[::2, 1:3])


def test_an_entry_is_a_view_and_keeps_the_memory(device):
    array = numbers(3, 4, 5)
    there = place(device, array)
    entry, last, one = there[1], there[-1], there[2][3]
    del there
    place(device, numbers(3, 4, 5) * 2)  # what was freed would be taken again
    assert np.array_equal(entry.numpy(), array[1])
    assert np.array_equal(last.numpy(), array[2])
    assert np.array_equal(one.numpy(), array[2, 3])
    with pytest.raises(IndexError, match=r"3 of an array of shape \[3, 4\]"):
        DeviceArray.empty(device, (3, 4), np.float32)[3]


def test_stacks_parts_of_host_and_device(device):
    parts = [numbers(3, 5) + n for n in range(4)]
    batch = place(device, np.stack(parts[:2]))
    stacked = place(device, [batch[0], batch[1], parts[2], parts[3]])
    assert stacked.shape == (4, 3, 5)
    assert np.array_equal(stacked.numpy(), np.stack(parts))


def test_does_not_stack_what_differs(fake):
    with pytest.raises(BackendError, match=r"can't stack 2 arrays of the forms .*float32.*int64"):
        place(fake, [np.zeros(3, np.float32), np.zeros(3, np.int64)])
    with pytest.raises(BackendError, match="can't stack 2 arrays"):
        place(fake, [np.zeros(3, np.float32), place(fake, np.zeros(4, np.float32))])


def test_an_input_is_taken_where_it_is_unless_badly_aligned(fake):
    there = place(fake, numbers(2, 65))
    assert place(fake, there) is there
    assert place(fake, there[0]).pointer == there.pointer
    moved = place(fake, there[1])
    assert moved.pointer % 256 == 0
    assert np.array_equal(moved.numpy(), there.numpy()[1])


@pytest.mark.parametrize("pools", [True, False])
def test_memory_goes_back_with_the_last_reference(pools):
    cuda = FakeCuda(pools=pools)
    device = Device(cuda)
    part = place(device, numbers(64, 4))[3]
    assert cuda.used == 64 * 4 * 4
    del part
    device.trim()
    device.synchronise()
    assert cuda.used == 0
    assert ("cudaMallocAsync" in cuda.calls) == ("cudaMemPoolTrimTo" in cuda.calls) == pools


def test_what_the_host_sends_lives_until_it_is_read(fake):
    there = DeviceArray.empty(fake, (1000, 5), np.float32)
    there.fill(np.full((5, 1000), 3, np.float32).T)  # its copy in order is referred to by nobody else
    gc.collect()
    trash = [np.full((1000, 5), 9, np.float32) for _ in range(8)]
    assert (there.numpy() == 3).all()
    del trash


def test_what_is_used(device):
    device.trim()
    before = device.used()
    there = place(device, np.zeros(1 << 26, np.uint8))
    assert device.used() - before >= 1 << 26
    del there
    device.trim()
    assert device.used() - before < 1 << 26


def test_an_error_has_cudas_name(fake, cuda):
    cuda.room = 1000
    told = r"^CUDA: cudaMallocAsync failed: cudaErrorMemoryAllocation \(4000 bytes"
    with pytest.raises(OutOfMemoryError, match=told):
        DeviceArray.empty(fake, (1000,), np.float32)


def test_there_is_no_device_without_a_gpu(monkeypatch):
    monkeypatch.setattr(memory, "gpu", lambda: None)
    memory._device.cache_clear()
    with pytest.raises(BackendError, match=r"^CUDA: no NVIDIA GPU, or no driver for it$"):
        memory.device()


def test_cuda_bindings_have_every_call():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    names = {name for name in vars(FakeCuda) if name.startswith("cuda")}
    assert {name for name in names if not hasattr(runtime, name)} == set()
    for enum in ("cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceAttr", "cudaMemPoolAttr"):
        for member in vars(getattr(FakeCuda, enum)):
            assert hasattr(getattr(runtime, enum), member)
    assert {error.name: error.value for error in FakeCuda.cudaError_t}.items() <= {
        error.name: error.value for error in runtime.cudaError_t
    }.items()


class OnHost(Device):
    """A fake device whose memory is what it really is: DLPack's kDLCPU."""

    kind = (1, 0)


@pytest.mark.parametrize("shape", [(), (63,), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_dlpack(cuda, shape, dtype):
    array = np.asarray(numbers(*shape) * 100).astype(dtype)
    there = place(OnHost(cuda), array)
    assert there.__dlpack_device__() == (1, 0)
    seen = np.from_dlpack(there)
    assert seen.dtype == dtype
    assert seen.shape == shape
    assert seen.ctypes.data == there.pointer
    assert np.array_equal(seen, array)


def test_dlpack_keeps_the_memory_until_the_consumer_lets_go(cuda):
    device = OnHost(cuda)
    seen = np.from_dlpack(place(device, numbers(4, 64))[2])
    device.synchronise()
    assert cuda.used == 4 * 64 * 4
    assert np.array_equal(seen, numbers(4, 64)[2])
    assert len(lent) == 1
    worker = threading.Thread(target=lambda held: held.pop(), args=([seen],))
    del seen
    worker.start()
    worker.join()
    device.synchronise()
    assert not lent
    assert cuda.used == 0


def test_a_capsule_that_nobody_takes_keeps_nothing(cuda):
    device = OnHost(cuda)
    capsule = place(device, numbers(4)).__dlpack__()
    valid = ctypes.pythonapi.PyCapsule_IsValid
    assert valid(ctypes.py_object(capsule), b"dltensor")
    assert len(lent) == 1
    del capsule
    device.synchronise()
    assert not lent
    assert cuda.used == 0


def test_dlpack_shares_and_does_not_copy(fake):
    there = place(fake, numbers(4))
    assert there.__dlpack_device__() == (2, 0)
    with pytest.raises(BufferError, match="not copied"):
        there.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="not copied"):
        there.__dlpack__(dl_device=(1, 0))


def test_many_threads_share_a_device(device):
    def there_and_back(n):
        array = numbers(50, 7) + n
        return np.array_equal(place(device, [place(device, array), array]).numpy(), np.stack([array, array]))

    with ThreadPoolExecutor(8) as workers:
        assert all(workers.map(there_and_back, range(64)))


# ONNX Runtime's half. On its CPU provider, over fake memory, every step but the device's name is the same.


@pytest.fixture
def session(tmp_path):
    """keys [P, 3] and base [3] to total [3]; x [n] and past [p] to present [p + n]."""
    ort = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, save

    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["keys", "axes"], ["sum"], keepdims=0),
            helper.make_node("Add", ["base", "sum"], ["total"]),
            helper.make_node("Concat", ["past", "x"], ["present"], axis=0),
        ],
        "two",
        [tensor("base", 3), tensor("keys", "pairs", 3), tensor("x", "n"), tensor("past", "p")],
        [tensor("total", 3), tensor("present", "q")],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [0])],
    )
    path = tmp_path / "two.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture
def engine(session, fake, cuda):
    cuda.shared = True
    return OrtCudaEngine(session, "two", 0, fake, where="cpu")


NOTHING = np.empty(0, np.float32)


def test_ort_reads_inputs_where_they_are_and_leaves_outputs_there(engine, fake, cuda):
    keys = place(fake, numbers(2, 3))
    inputs = {"base": numbers(3), "keys": [keys[0], keys[1], numbers(3)], "x": place(fake, numbers(5)), "past": NOTHING}
    expected = numbers(3) + numbers(2, 3).sum(0) + numbers(3)
    found = engine.run(inputs, ["total"])
    assert list(found) == ["total"]
    assert np.allclose(found["total"], expected, rtol=1e-6)
    kept = engine.keep(inputs)
    assert not cuda.queues[fake.stream]  # done: what it was copied from may go
    engine.close()
    del inputs, keys, found
    assert isinstance(kept["present"], DeviceArray)
    assert np.allclose(kept["total"].numpy(), expected, rtol=1e-6)
    assert np.array_equal(kept["present"].numpy(), numbers(5))
    fake.synchronise()
    assert cuda.used == kept["total"].nbytes + kept["present"].nbytes  # nothing else is left


def test_ort_binds_a_cache_that_grows(engine):
    binding = engine.bind()
    binding.set("base", numbers(3))
    binding.set("keys", numbers(1, 3))
    binding.set("past", NOTHING)
    for step in range(4):
        binding.set("x", np.full(2, step, np.float32))
        binding.run()
        binding.carry("present", "past")
    assert binding.get("present").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_ort_tells_which_engine_failed(engine):
    with pytest.raises(BackendError, match=r"^ort: 'two' failed: "):
        engine.run({"base": numbers(3)})


def test_a_runtime_answers_with_features_on_the_device(bundle, fake, cuda, monkeypatch):
    """Of ONNX Runtime only the device's name differs: base, experts, pairs and cache go through device memory."""
    cuda.shared = True
    monkeypatch.setattr(memory, "device", lambda: fake)
    monkeypatch.setattr(session_module, "OrtCudaEngine", partial(OrtCudaEngine, where="cpu"))
    monkeypatch.setattr(ort_module, "open_session", lambda model, name, *_: open_session(model, name))
    choice = Choice("ort-cuda", "fp32", "as asked")
    monkeypatch.setattr(mova_runtime.runtime, "choose_in_order", lambda *_: (choice,))
    for case in cases(2)[:1]:
        with mova_runtime.open(bundle(2), backend="ort-cuda") as rt:
            answer = rt.answer(case.image, case.question, max_new_tokens=case.max_new_tokens)
            assert list(answer.tokens) == case.answer_tokens
            assert isinstance(rt.features(case.image, "base"), np.ndarray)
    assert cuda.calls.count("cudaMallocAsync") > 5
    gc.collect()
    fake.synchronise()
    assert cuda.used == 0


@pytest.mark.gpu("mova_runtime.engines.ort (CUDA)", "mova_runtime.engines.cuda.session")
def test_ort_on_cuda_computes_what_torch_computed(bundle, mova_command):
    done = mova_command("verify", bundle(0), "--backend", "ort-cuda")
    assert done.status == 0, done.error
