"""TensorRT on the host: the calls that the runtime makes, over fake_cuda's memory. An engine's file is JSON.

Every run writes over all of the activation memory that its engine says it needs.
"""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np

FLOAT, INT64 = "FLOAT", "INT64"


def pairs(base, keys, pair_image):
    """Like the adapter: to each image the sum of its pairs."""
    out = base.copy()
    for key, image in zip(keys, pair_image, strict=True):
        out[image] += key
    return {"visual": out, "count": np.array([len(keys)], np.int64)}


def grow(x, past):
    """Like the language model: a cache that grows by what is read."""
    present = np.concatenate((past, x), axis=1)
    return {"present": present, "logits": present.sum(axis=1, keepdims=True)}


ENGINES = {
    "adapter": {
        "function": pairs,
        "inputs": {
            "base": (FLOAT, (1, 2, 3), (4, 2, 3)),
            "keys": (FLOAT, (0, 2, 3), (8, 2, 3)),
            "pair_image": (INT64, (0,), (8,)),
        },
        "outputs": {"visual": (FLOAT, lambda s: s["base"]), "count": (INT64, lambda s: (1,))},
    },
    "llm": {
        "function": grow,
        "inputs": {"x": (FLOAT, (1, 1), (1, 4)), "past": (FLOAT, (1, 0), (1, 32))},
        "outputs": {
            "present": (FLOAT, lambda s: (1, s["x"][1] + s["past"][1])),
            "logits": (FLOAT, lambda s: (1, 1)),
        },
    },
}


class FakeTensorRt:
    """The module. `rtx`: with what TensorRT-RTX has and TensorRT has not."""

    __version__ = "11.4.0"
    DataType = SimpleNamespace(FLOAT=FLOAT, INT64=INT64)
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    TensorLocation = SimpleNamespace(DEVICE="device")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    EngineValidity = SimpleNamespace(INVALID="invalid", VALID="valid")
    CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(NONE="none")

    class ILogger:
        ERROR = "error"
        INTERNAL_ERROR = "internal error"

    def __init__(self, cuda, rtx: bool = False) -> None:
        self.cuda = cuda
        self.rtx = rtx
        self.contexts = []
        self.cache = None

    def Runtime(self, log):  # noqa: N802
        self.log = log
        runtime = SimpleNamespace(deserialize_cuda_engine=self._deserialise)
        if self.rtx:
            runtime.get_engine_validity = lambda data: ("invalid" if data[:3] == b"old" else "valid", 1)
        return runtime

    def _deserialise(self, data):
        try:
            told = json.loads(data[:])
        except ValueError:
            self.log.log("error", "Magic tag does not match.\nSerialization failed.")
            self.log.log("info", "never mind")
            return None
        return FakeEngine(self, ENGINES[told["engine"]], told["need"])


class FakeEngine:
    def __init__(self, trt, about, need) -> None:
        self.trt, self.about, self.need = trt, about, need
        self._tensors = {**about["inputs"], **about["outputs"]}
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_dtype(self, name):
        return self._tensors[name][0]

    def get_tensor_location(self, name):
        return "device"

    def get_tensor_mode(self, name):
        return "in" if name in self.about["inputs"] else "out"

    def get_tensor_profile_shape(self, name, profile):
        _, least, greatest = self._tensors[name]
        return [least, greatest, greatest]

    def get_device_memory_size_for_profile_v2(self, profile):
        return self.need

    def create_runtime_config(self):
        return FakeConfig(self.trt)

    def create_execution_context(self, how):
        if self.trt.rtx:
            assert how.allocation == "user managed"
        else:
            assert how == "user managed"
        self.trt.contexts.append(FakeContext(self, how))
        return self.trt.contexts[-1]


class FakeConfig:
    def __init__(self, trt) -> None:
        self._trt = trt

    def set_execution_context_allocation_strategy(self, strategy):
        self.allocation = strategy

    def create_runtime_cache(self):
        trt = self._trt
        trt.cache = []

        def deserialise(data):
            trt.cache.append(data)
            return True

        return SimpleNamespace(serialize=lambda: b"kernels", deserialize=deserialise)

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class FakeContext:
    def __init__(self, engine, how) -> None:
        self.engine, self.how = engine, how
        self.shapes, self.addresses, self.arena = {}, {}, (0, 0)
        self.runs = 0

    def set_input_shape(self, name, shape):
        time.sleep(0.0005)  # another thread may come in between
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self):
        about = self.engine.about
        if "keys" in self.shapes and self.shapes["keys"][:1] != self.shapes["pair_image"]:
            raise RuntimeError("keys and pair_image differ")
        return [name for name in about["inputs"] if name not in self.shapes]

    def get_tensor_shape(self, name):
        return self.engine.about["outputs"][name][1](self.shapes)

    def set_tensor_address(self, name, pointer):
        assert pointer
        assert pointer % 256 == 0
        self.addresses[name] = pointer
        return True

    def set_device_memory(self, pointer, size):
        assert size >= self.engine.need
        self.arena = (pointer, size)

    def execute_async_v3(self, stream):
        cuda, about = self.engine.trt.cuda, self.engine.about
        shapes, addresses, (arena, size) = dict(self.shapes), dict(self.addresses), self.arena
        numpy = {FLOAT: np.float32, INT64: np.int64}
        assert set(addresses) == {*about["inputs"], *about["outputs"]}

        def kernel():
            self.runs += 1
            if self.engine.need:
                cuda.array(arena, (size,), np.uint8)[:] = 7
            inputs = {
                name: cuda.array(addresses[name], shapes[name], numpy[dtype])
                for name, (dtype, *_) in about["inputs"].items()
            }
            for name, value in about["function"](**inputs).items():
                dtype, shape = about["outputs"][name]
                cuda.array(addresses[name], shape(shapes), numpy[dtype])[...] = value

        cuda.queue(stream, kernel)
        return True
