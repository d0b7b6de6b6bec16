"""What is behind handles, without a compiled library: numbers, and results that an engine left on a device."""

from __future__ import annotations

import contextlib
import ctypes
import threading

import cffi
import numpy as np
import pytest

from mova_embed import header
from mova_embed.handles import Handles, Kind
from mova_embed.lending import lend
from mova_embed.results import Result
from mova_embed.status import RefusedError, Status, status_of, text_of
from mova_runtime import errors
from mova_runtime.engines.cuda import dlpack


@pytest.fixture(scope="module")
def ffi():
    found = cffi.FFI()
    found.cdef(header.types())
    return found


class OnDevice:
    """An array in a GPU's memory, as an engine leaves it; here it is the host's."""

    def __init__(self, array):
        self.array, self.copies = array, 0
        self.shape = array.shape

    def numpy(self):
        self.copies += 1
        return self.array.copy()

    def __dlpack__(self, **asked):
        return dlpack.capsule(self.array.ctypes.data, self.shape, self.array.dtype, (2, 0), self)


class Managed(ctypes.Structure):
    """DLManagedTensor, with what of its tensor is looked at here."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


def test_a_tensor_on_a_device_is_lent_there_and_copied_once_for_the_host(ffi):
    array = OnDevice(np.arange(6, dtype=np.float32).reshape(2, 3))
    result = Result({}, tensors={"features": array})
    address = lend(result.tensor("features"))
    lent = Managed.from_address(address)
    assert (lent.data, list(lent.device), array.copies) == (array.array.ctypes.data, [2, 0], 0)
    assert lent.shape[: lent.ndim] == [2, 3]
    kept = len(dlpack._lent)
    lent.deleter(address)
    assert len(dlpack._lent) == kept - 1

    tensor = ffi.new("mova_tensor *")
    for _ in range(2):
        result.fill(ffi, "features", tensor)
    assert array.copies == 1
    assert (tensor.rank, list(tensor.shape), tensor.bytes, tensor.dtype) == (2, [2, 3, 0, 0], 24, 1)
    assert bytes(ffi.buffer(tensor.data, 24)) == array.array.tobytes()


def test_threads_that_ask_at_once_get_the_same_pointer(ffi):
    result = Result({"text": "é\0e"}, tokens=range(1000))
    found = []

    def ask():
        found.append((result.text(ffi, "text"), result.tokens(ffi)))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(str(text), str(tokens)) for (text, _), (tokens, _) in found}) == 1
    (text, length), (tokens, count) = found[0]
    assert bytes(ffi.buffer(text, length + 1)) == "é\0e\0".encode()
    assert list(tokens[0:count]) == list(range(1000))


def test_a_handle_is_given_out_once():
    runtimes, results = Handles(Kind.RUNTIME), Handles(Kind.RESULT)
    first, other = runtimes.add("a"), results.add("b")
    assert runtimes.take(first) == "a"
    second = runtimes.add("c")
    assert second != first
    for wrong, status in (
        (first, Status.CLOSED),
        (other, Status.INVALID_ARGUMENT),
        (second + 8, Status.INVALID_ARGUMENT),
        (second + 1, Status.INVALID_ARGUMENT),
        (0, Status.INVALID_ARGUMENT),
        (2**64 - 1, Status.INVALID_ARGUMENT),
    ):
        for use in (runtimes.get, runtimes.take):
            with pytest.raises(RefusedError) as caught:
                use(wrong)
            assert caught.value.status is status
    assert runtimes.get(second) == "c"


def test_of_threads_that_close_one_has_it():
    handles = Handles(Kind.RESULT)
    numbers = [handles.add(i) for i in range(2000)]
    taken = []

    def close():
        for number in numbers:
            with contextlib.suppress(RefusedError):
                taken.append(handles.take(number))

    threads = [threading.Thread(target=close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(2000))


def test_every_error_of_the_runtime_has_a_status():
    families = {
        error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.MovaError)
    } - {errors.MovaError}
    assert len(families) > 8
    assert not {error for error in families if status_of(error("x")) in (Status.INVALID_ARGUMENT, Status.INTERNAL)}
    assert status_of(errors.IntegrityError("x")) is Status.BUNDLE
    assert status_of(errors.OutOfMemoryError("x")) is Status.OUT_OF_MEMORY
    assert status_of(errors.EngineKeyError("x")) is Status.BACKEND


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ZeroDivisionError("by\nzero")])
def test_what_nobody_expected_is_internal_and_a_line(error):
    assert status_of(error) is Status.INTERNAL
    assert text_of(error).startswith(type(error).__name__)
    assert "\n" not in text_of(error)
