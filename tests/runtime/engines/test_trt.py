"""TensorRT engines: which is taken, and how they share a GPU. TensorRT and CUDA are fakes on the host here."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fake_cuda import FakeCuda
from fake_tensorrt import FakeTensorRt
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.engine import EngineKey, EngineRecord, Range
from mova_runtime.bundle.manifest import Artifact, File
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.cuda.arena import Arena
from mova_runtime.engines.cuda.array import place
from mova_runtime.engines.cuda.graphs import LIMIT
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.engines.memory import Memory
from mova_runtime.engines.nvidia import Gpu, gpu
from mova_runtime.engines.trt import backend as backend_module
from mova_runtime.engines.trt import library, lookup
from mova_runtime.engines.trt.backend import TensorRtBackend
from mova_runtime.engines.trt.lookup import Machine, find
from mova_runtime.errors import BackendError, BundleError, EngineKeyError, IntegrityError, OutOfMemoryError

HERE = Machine("tensorrt", "11.4.0", "sm_89", "linux-x86_64")
GRAPH = Artifact("onnx", "fp32", (File("adapter.onnx", 3, "a" * 64),), ())


def key(**changed) -> EngineKey:
    known = {
        "component": "adapter",
        "precision": "fp32",
        "graph": GRAPH.sha256,
        "flavour": "tensorrt",
        "version": "11.4.0",
        "capability": "sm_89",
        "platform": "linux-x86_64",
        "profile": {"base": Range((1, 2, 3), (1, 2, 3), (4, 2, 3))},
        "flags": ("strongly-typed",),
    }
    return EngineKey(**{**known, **changed})


def add_engine(bundle: Bundle, need: int = 1000, content: bytes | None = None, **changed) -> EngineRecord:
    """Put an engine into a bundle, as `mova build` does."""
    wanted = key(**changed)
    data = json.dumps({"engine": wanted.component, "need": need}).encode() if content is None else content
    path = bundle.root / "engines" / wanted.name / "engine.plan"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    file = File(str(path.relative_to(bundle.root)), len(data), hashlib.sha256(data).hexdigest())
    record = EngineRecord(wanted, file, 1.0)
    (path.parent / "engine.json").write_text(json.dumps(to_json(record)))
    return record


@pytest.fixture
def engines(tmp_path):
    """A bundle whose manifest says no more than is asked for here."""
    parts = {name: SimpleNamespace(artifacts=(GRAPH, replace(GRAPH, precision="fp16"))) for name in ("adapter", "llm")}
    return Bundle(tmp_path / "bundle", SimpleNamespace(components=parts))


# Which engine.


def test_takes_the_engine_that_was_built_for_this_machine(engines):
    wanted = add_engine(engines)
    for changed in (
        {"capability": "sm_86"},
        {"version": "11.3.0"},
        {"flavour": "tensorrt-rtx"},
        {"platform": "linux-aarch64"},
        {"precision": "fp16"},
        {"graph": "b" * 64},
        {"component": "llm"},
    ):
        add_engine(engines, **changed)
    assert find(engines, "adapter", "fp32", HERE) == wanted


def test_takes_the_engine_that_takes_most(engines):
    add_engine(engines)
    wide = add_engine(engines, profile={"base": Range((1, 2, 3), (1, 2, 3), (9, 2, 3))})
    add_engine(engines, profile={"base": Range((1, 2, 3), (1, 2, 3), (5, 2, 3))})
    assert find(engines, "adapter", "fp32", HERE) == wide
    other = add_engine(engines, profile=wide.key.profile, flags=("optimization-level=5",))
    assert find(engines, "adapter", "fp32", HERE) == max(wide, other, key=lambda record: record.key.name)


def test_without_engines_it_says_what_builds_one(engines):
    add_engine(engines, component="llm")
    with pytest.raises(EngineKeyError) as told:
        find(engines, "adapter", "fp32", HERE)
    assert str(told.value) == (
        f"{engines.root} has no engine of 'adapter'; run `mova build {engines.root} --backend tensorrt "
        "--target sm_89 --precision fp32 --only adapter`"
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"version": "10.3.0", "capability": "sm_86"},
            "was built for sm_86 and by tensorrt 10.3.0; needed here is one for sm_89 and by tensorrt 11.4.0; run",
        ),
        ({"platform": "linux-aarch64"}, "was built for linux-aarch64; needed here is one for linux-x86_64; run"),
        ({"precision": "fp16"}, "was built in fp16; needed here is one in fp32; run"),
        ({"graph": "b" * 64}, "was built from another export's graph; needed here is one from this bundle's; run"),
        (
            {"flavour": "tensorrt-rtx", "version": "1.7.1.116"},
            "was built by tensorrt-rtx 1.7.1.116; needed here is one by tensorrt 11.4.0; run",
        ),
    ],
)
def test_it_names_what_differs_from_the_nearest(engines, changed, told):
    near = add_engine(engines, **changed)
    add_engine(engines, capability="sm_75", version="8.0.0", platform="windows-AMD64", precision="fp16")
    with pytest.raises(EngineKeyError) as error:
        find(engines, "adapter", "fp32", HERE)
    assert str(error.value).startswith(f"engine of 'adapter' in engines/{near.key.name} {told} `mova build ")


def test_what_the_bundle_lacks_is_told_before_engines(engines):
    with pytest.raises(BundleError, match="exported without component 'sam'"):
        find(engines, "sam", "fp32", HERE)
    with pytest.raises(BundleError, match="not exported in bf16"):
        find(engines, "adapter", "bf16", HERE)


# The backend, on a machine that this one is made to look like.


@pytest.fixture
def cuda():
    return FakeCuda()


@pytest.fixture
def start(monkeypatch, cuda):
    """start(rtx): a backend of the fakes."""
    device = Device(cuda)
    arena = Arena(device)
    before = list(cuda.memory)

    def make(rtx: bool = False) -> TensorRtBackend:
        flavour = "tensorrt-rtx" if rtx else "tensorrt"
        trt = FakeTensorRt(cuda, rtx)
        monkeypatch.setattr(lookup, "machine", lambda flavour: replace(HERE, flavour=flavour))
        monkeypatch.setattr(library, "load", lambda flavour: trt)
        monkeypatch.setattr(backend_module, "device", lambda: device)
        monkeypatch.setattr(backend_module, "arena", lambda device: arena)
        made = TensorRtBackend(flavour, "fp32")
        made.fakes = SimpleNamespace(trt=trt, device=device, arena=arena)
        return made

    assert not before
    return make


@pytest.fixture
def backend(start):
    return start()


@pytest.fixture
def adapter(engines, backend):
    add_engine(engines)
    return backend.load(engines, "adapter")


@pytest.fixture
def llm(engines, backend):
    add_engine(engines, component="llm", need=500)
    return backend.load(engines, "llm")


def adapter_inputs(pairs=2, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "base": rng.normal(size=(batch, 2, 3)).astype(np.float32),
        "keys": rng.normal(size=(pairs, 2, 3)).astype(np.float32),
        "pair_image": rng.integers(0, batch, pairs),
    }


def fused(inputs):
    out = inputs["base"].copy()
    for keys, image in zip(inputs["keys"], inputs["pair_image"], strict=True):
        out[image] += keys
    return out


@pytest.mark.parametrize("missing", ["driver", "library", "cuda-bindings"])
def test_what_is_missing_is_told_in_one_line(monkeypatch, missing):
    found = Gpu("NVIDIA RTX 4090", "sm_89", "13.0")
    library._module.cache_clear()
    monkeypatch.setattr(lookup, "gpu", lambda: None if missing == "driver" else found)
    if missing != "library":
        monkeypatch.setattr(library.installed, "has_module", lambda name: True)
        monkeypatch.setattr(library, "version", lambda flavour: "11.4.0")
        monkeypatch.setattr(library, "load", lambda flavour: None)
    else:
        monkeypatch.setattr(library.installed, "has_module", lambda name: False)
    told = {
        "driver": "backend tensorrt: no NVIDIA GPU, or no driver for it",
        "library": r"backend tensorrt: not installed; pip install tensorrt",
        "cuda-bindings": "CUDA: no NVIDIA GPU",  # asked of the machine itself
    }
    if missing == "cuda-bindings" and gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match=told[missing]):
        TensorRtBackend("tensorrt", "fp32")
    library._module.cache_clear()


def test_identity_and_need_are_the_files(engines, backend):
    record = add_engine(engines)
    need = backend.need(engines, "adapter")
    assert need.resident.host == need.working.host == 0
    assert record.file.bytes <= need.resident.device <= need.loading.device
    assert backend.load(engines, "adapter").least == Memory(0, record.file.bytes + 1000), "its activations too"
    identity = backend.identity(engines, "adapter")
    assert identity["engine"] == record.file.sha256
    assert (identity["backend"], identity["precision"], identity["version"]) == ("tensorrt", "fp32", "11.4.0")
    assert identity.keys() > {"device"}
    with pytest.raises(EngineKeyError, match="no engine of 'llm'"):
        backend.identity(engines, "llm")


def test_fifty_lives_of_an_engine_leave_nothing(engines, backend, cuda):
    add_engine(engines)
    add_engine(engines, component="llm", need=500)
    for _ in range(50):
        loaded = [backend.load(engines, name) for name in ("adapter", "llm")]
        for _ in range(3):
            loaded[0].keep(adapter_inputs())
        binding = loaded[1].bind()
        binding.set("x", np.ones((1, 2), np.float32))
        binding.set("past", np.empty((1, 0), np.float32))
        binding.run()
        for engine in loaded:
            engine.close()
        assert backend.start().used() == 0
    assert not cuda.graphs


@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_tensorrt_never_sees_a_damaged_file(engines, backend, damage):
    record = add_engine(engines)
    path = engines.root / record.file.path
    data = path.read_bytes()
    path.unlink()
    if damage != "removed":
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + b"!")
    with pytest.raises(IntegrityError, match=r"engine of 'adapter' is damaged: .*run `mova build .*--only adapter`$"):
        backend.load(engines, "adapter")


def test_a_refused_engine_has_tensorrts_reason(engines, backend, start):
    add_engine(engines, content=b"not JSON")
    with pytest.raises(BackendError) as told:
        backend.load(engines, "adapter")
    assert str(told.value) == ("tensorrt: can't load 'adapter': Magic tag does not match. Serialization failed.")
    add_engine(engines, content=b"old engine", flavour="tensorrt-rtx")
    with pytest.raises(BackendError, match=r"tensorrt-rtx: can't load 'adapter': the engine is not valid here \(1\)"):
        start(rtx=True).load(engines, "adapter")


@pytest.mark.parametrize("pairs", [0, 1, 3])
def test_runs(adapter, pairs):
    inputs = adapter_inputs(pairs)
    found = adapter.run(inputs)
    assert np.allclose(found["visual"], fused(inputs))
    assert found["count"].tolist() == [pairs]
    assert list(adapter.run(inputs, ["count"])) == ["count"]


def test_takes_inputs_from_host_and_device_and_stacks_them(adapter, backend):
    inputs = adapter_inputs(pairs=3)
    there = place(backend.fakes.device, inputs["keys"])
    parts = {
        **inputs,
        "base": place(backend.fakes.device, inputs["base"]),
        "keys": [there[0], inputs["keys"][1], there[2]],
    }
    for _ in range(3):  # plain, captured, replayed
        assert np.allclose(adapter.run(parts)["visual"], fused(inputs))


def test_keep_returns_when_the_gpu_is_done(adapter, backend, cuda):
    kept = []
    for _ in range(3):  # plain, captured, replayed
        kept.append(adapter.keep(adapter_inputs()))
        assert not cuda.queues[backend.fakes.device.stream]


def test_what_is_kept_stays_what_it_is(adapter):
    """Also when the engine runs again in the same shapes, whose graph has its outputs at addresses that stay."""
    many = [adapter_inputs(seed=seed) for seed in range(5)]
    kept = [adapter.keep(inputs)["visual"] for inputs in many]
    adapter.close()
    for inputs, visual in zip(many, kept, strict=True):
        assert np.allclose(visual.numpy(), fused(inputs))


def test_the_second_run_in_the_same_shapes_is_captured(adapter, cuda):
    for seed in range(4):
        inputs = adapter_inputs(seed=seed)
        assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))
        assert len(cuda.graphs) == (seed > 0)
    assert cuda.calls.count("cudaStreamBeginCapture") == 1
    assert cuda.calls.count("cudaGraphLaunch") == 3


def test_graphs_are_bounded_and_the_one_unused_longest_goes(adapter, cuda):
    for pairs in range(LIMIT + 2):
        for _ in range(2):
            adapter.run(adapter_inputs(pairs))
    assert len(cuda.graphs) == LIMIT
    captured = cuda.calls.count("cudaStreamBeginCapture")
    adapter.run(adapter_inputs(LIMIT + 1))
    assert cuda.calls.count("cudaStreamBeginCapture") == captured
    inputs = adapter_inputs(0)
    assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))
    assert len(cuda.graphs) < LIMIT  # the first had gone; another went for it


def test_what_can_t_be_captured_runs_without(adapter, cuda):
    cuda.uncapturable = True
    for seed in range(4):
        inputs = adapter_inputs(seed=seed)
        assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))
    assert cuda.calls.count("cudaStreamBeginCapture") == 1
    assert "cudaErrorStreamCaptureUnsupported" in adapter._graphs.refused


def test_engines_share_activation_memory_of_the_largest(engines, backend, adapter, cuda):
    arena = backend.fakes.arena
    assert arena.bytes == cuda.used == 1000
    first = arena.generation
    add_engine(engines, component="llm", need=500)
    small = backend.load(engines, "llm")
    assert (arena.bytes, arena.generation) == (1000, first)
    small.close()
    assert arena.bytes == 1000
    adapter.close()
    assert arena.bytes == arena.pointer == cuda.used == 0


def test_graphs_go_when_activation_memory_moves(engines, backend, adapter, cuda):
    inputs = adapter_inputs()
    for _ in range(3):
        adapter.run(inputs)
    assert len(cuda.graphs) == 1
    add_engine(engines, component="llm", need=5000)
    large = backend.load(engines, "llm")
    assert backend.fakes.arena.bytes == 5000
    assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))
    assert not cuda.graphs
    for _ in range(2):
        assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))
    assert len(cuda.graphs) == 1
    large.close()
    assert backend.fakes.arena.bytes == 1000
    for _ in range(3):
        assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))


def test_no_room_for_activations_leaves_the_others_running(engines, backend, adapter, cuda):
    cuda.room = 3000
    add_engine(engines, component="llm", need=5000)
    with pytest.raises(OutOfMemoryError, match=r"can't load 'llm': .*cudaErrorMemoryAllocation"):
        backend.load(engines, "llm")
    inputs = adapter_inputs()
    assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))
    assert backend.fakes.arena.bytes == 1000


def test_close_gives_everything_back(adapter, llm, backend, cuda):
    for _ in range(3):
        adapter.run(adapter_inputs())
    binding = llm.bind()
    binding.set("x", np.ones((1, 2), np.float32))
    binding.set("past", np.empty((1, 0), np.float32))
    binding.run()
    adapter.close()
    llm.close()
    adapter.close()  # a second time is nothing
    backend.fakes.device.synchronise()
    assert cuda.used == 0, "though somebody still has a binding"
    assert not cuda.graphs
    with pytest.raises(BackendError, match="the engine was closed"):
        binding.run()
    with pytest.raises(BackendError, match="tensorrt: 'adapter': it was closed"):
        adapter.run(adapter_inputs())


def test_a_binding_carries_its_cache_on_the_device(llm, cuda):
    two = [llm.bind(), llm.bind()]  # callers take turns
    read = [[], []]
    for step in range(6):
        for caller, binding in enumerate(two):
            x = np.full((1, 3 if step == 0 else 1), 10 * caller + step, np.float32)
            read[caller].extend(x[0].tolist())
            if step:
                binding.carry("present", "past")
            else:
                binding.set("past", np.empty((1, 0), np.float32))
            binding.set("x", x)
            before = cuda.calls.count("cudaMemcpyAsync")
            binding.run()
            assert cuda.calls.count("cudaMemcpyAsync") - before == 1  # x alone
            assert binding.get("logits").item() == sum(read[caller])
    assert two[1].get("present")[0].tolist() == read[1]
    assert not cuda.graphs


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"base": np.zeros((5, 2, 3), np.float32)}, r"'base' has the shape \[5, 2, 3\]; .* \[1, 2, 3\] to \[4, 2, 3\]"),
        (
            {"base": np.zeros((2, 3), np.float32)},
            r"'base' has the shape \[2, 3\]; .* for \[1, 2, 3\] to",
        ),
        ({"keys": [np.zeros((2, 3), np.float32)] * 9}, r"'keys' has the shape \[9, 2, 3\]; .* to \[8, 2, 3\]"),
        ({"base": np.zeros((2, 2, 3))}, "'base' is float64, the engine takes float32"),
        ({"text": np.zeros(3, np.float32)}, "takes base, keys, pair_image; missing or unknown: text"),
        ({"pair_image": np.zeros(3, np.int64)}, r"don't go together \(keys and pair_image differ\)"),
        ({"keys": [np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32)]}, "can't stack 2 arrays"),
    ],
)
def test_inputs_that_do_not_fit(adapter, changed, told):
    with pytest.raises(BackendError, match=rf"^tensorrt: 'adapter': .*{told}"):
        adapter.run({**adapter_inputs(), **changed})
    inputs = adapter_inputs()
    assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))


def test_an_output_that_is_not_there(adapter):
    with pytest.raises(BackendError, match="no output gates; there are visual, count"):
        adapter.run(adapter_inputs(), ["gates"])


def test_many_threads_run_at_once(adapter, llm):
    def fuse(seed):
        inputs = adapter_inputs(pairs=seed % 4, batch=1 + seed % 3, seed=seed)
        kept, ran = adapter.keep(inputs)["visual"].numpy(), adapter.run(inputs)["visual"]
        return np.allclose(kept, fused(inputs)) and np.allclose(ran, fused(inputs))

    def read(seed):
        binding = llm.bind()
        binding.set("past", np.empty((1, 0), np.float32))
        for step in range(4):
            binding.set("x", np.full((1, 1 + seed % 3), seed + step, np.float32))
            binding.run()
            binding.carry("present", "past")
        return binding.get("logits").item() == (1 + seed % 3) * (4 * seed + 6)

    with ThreadPoolExecutor(8) as workers:
        results = [workers.submit(work, seed) for seed in range(24) for work in (fuse, read)]
        assert all(result.result(timeout=60) for result in results)


def test_loading_and_closing_while_others_run(engines, backend, adapter):
    add_engine(engines, component="llm", need=9000)
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            backend.load(engines, "llm").close()

    worker = threading.Thread(target=come_and_go)
    worker.start()
    try:
        for seed in range(60):
            inputs = adapter_inputs(seed=seed)
            assert np.allclose(adapter.run(inputs)["visual"], fused(inputs))
    finally:
        stop.set()
        worker.join()
    assert backend.fakes.arena.bytes == 1000


# TensorRT-RTX.


def test_rtx_captures_by_itself_where_shapes_come_again(engines, start, cuda):
    add_engine(engines, component="llm", flavour="tensorrt-rtx")
    backend = start(rtx=True)
    llm = backend.load(engines, "llm")
    inputs = {"x": np.ones((1, 2), np.float32), "past": np.empty((1, 0), np.float32)}
    for _ in range(3):
        llm.run(inputs)
    binding = llm.bind()
    for name, array in inputs.items():
        binding.set(name, array)
    binding.run()
    assert not cuda.graphs
    steady, varying = (context.how for context in backend.fakes.trt.contexts)
    assert steady.cuda_graph_strategy == "whole"
    assert (varying.cuda_graph_strategy, varying.dynamic_shapes_kernel_specialization_strategy) == ("disabled", "none")
    assert steady.cache is varying.cache


def test_rtx_keeps_what_it_compiled(engines, start, monkeypatch, tmp_path):
    monkeypatch.setenv("MOVA_CACHE", str(tmp_path / "cache"))
    record = add_engine(engines, flavour="tensorrt-rtx")
    backend = start(rtx=True)
    engine = backend.load(engines, "adapter")
    assert backend.fakes.trt.cache == []
    engine.run(adapter_inputs())
    kept = tmp_path / "cache" / "runtime" / f"{record.file.sha256[:32]}.rtx"
    assert [path.read_bytes() for path in kept.parent.iterdir()] == [b"kernels"]
    engine.close()
    backend.load(engines, "adapter")
    assert backend.fakes.trt.cache == [b"kernels"]
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")  # nothing can be kept; nothing fails
    backend.load(engines, "adapter").run(adapter_inputs())


# The libraries themselves.

USED = {
    "Runtime": ["deserialize_cuda_engine"],
    "ICudaEngine": [
        "create_execution_context",
        "get_device_memory_size_for_profile_v2",
        "get_tensor_dtype",
        "get_tensor_location",
        "get_tensor_mode",
        "get_tensor_name",
        "get_tensor_profile_shape",
        "num_io_tensors",
    ],
    "IExecutionContext": [
        "execute_async_v3",
        "get_tensor_shape",
        "infer_shapes",
        "set_device_memory",
        "set_input_shape",
        "set_tensor_address",
    ],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "DataType": ["FLOAT", "INT64"],
    "TensorIOMode": ["INPUT"],
    "TensorLocation": ["DEVICE"],
    "ILogger": ["ERROR", "INTERNAL_ERROR", "log"],
}
USED_OF_RTX = {
    "Runtime": ["get_engine_validity"],
    "EngineValidity": ["INVALID"],
    "ICudaEngine": ["create_runtime_config"],
    "IRuntimeConfig": [
        "create_runtime_cache",
        "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
        "set_runtime_cache",
    ],
    "IRuntimeCache": ["deserialize", "serialize"],
    "CudaGraphStrategy": ["DISABLED", "WHOLE_GRAPH_CAPTURE"],
    "DynamicShapesKernelSpecializationStrategy": ["NONE"],
}


@pytest.mark.parametrize(
    ("module", "uses"),
    [("tensorrt", [USED]), ("tensorrt_lean", [USED]), ("tensorrt_rtx", [USED, USED_OF_RTX])],
)
def test_the_installed_library_has_what_is_used(module, uses):
    trt = pytest.importorskip(module, reason=f"{module} is not installed")
    wanted = [(owner, name) for used in uses for owner, names in used.items() for name in names]
    assert [f"{owner}.{name}" for owner, name in wanted if not hasattr(getattr(trt, owner, None), name)] == []


@pytest.mark.gpu("mova_runtime.engines.trt", "mova_runtime.engines.cuda")
@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_built_here_and_run_here(bundle, tmp_path, mova_command, flavour):
    """Every component against what torch computed, and an answer, the language model's binding in it."""
    pytest.importorskip({"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[flavour])
    folder = tmp_path / "bundle"
    shutil.copytree(bundle(0), folder)
    built = mova_command("build", folder, "--backend", flavour)
    if "no target of TensorRT-RTX" in built.error:
        pytest.skip(f"TensorRT-RTX does not build for this {gpu()}")
    assert built.status == 0, built.error
    verified = mova_command("verify", folder, "--backend", flavour)
    assert verified.status == 0, verified.error

    import mova_runtime as mova
    from reference_data import cases

    case = cases(0)[0]
    with mova.open(folder, backend=flavour) as rt:
        for _ in range(3):  # plain, captured, replayed
            answer = rt.answer(case.image, case.question, max_new_tokens=case.max_new_tokens)
            assert list(answer.tokens) == case.answer_tokens
