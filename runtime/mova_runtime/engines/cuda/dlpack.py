"""DLPack: memory handed to another library without a copy. The structures are those of dlpack.h, version 0.8."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

_NAME = b"dltensor"
_CODES = {"i": 0, "u": 1, "f": 2}
"""By numpy's kind of a dtype: kDLInt, kDLUInt, kDLFloat."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # null: C-contiguous
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_lent: dict[int, tuple[_Managed, Any, object]] = {}
"""By a structure's address: it, its shape, and who owns the memory; all must live until the consumer is done."""


def _done(address: int) -> None:
    _lent.pop(address, None)


def _dropped(capsule: int) -> None:
    # A consumer renames the capsule that it takes. This one nobody took.
    if ctypes.pythonapi.PyCapsule_IsValid(ctypes.c_void_p(capsule), _NAME):
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype = ctypes.c_void_p
        _lent.pop(get(ctypes.c_void_p(capsule), _NAME), None)


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_done)  # takes the GIL: a consumer may be done in any thread
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_dropped)


def capsule(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], owner: object) -> Any:
    """A capsule "dltensor" of C-contiguous memory.

    Args:
        pointer: where it begins.
        shape: of the array.
        dtype: an integer or a float.
        device: DLPack's device type and number.
        owner: kept until the consumer lets go, or the capsule goes without having been taken.
    """
    lengths = (ctypes.c_int64 * len(shape))(*shape)
    tensor = _Tensor(
        data=pointer,
        device=_Device(*device),
        ndim=len(shape),
        dtype=_DataType(_CODES[dtype.kind], dtype.itemsize * 8, 1),
        shape=ctypes.cast(lengths, ctypes.POINTER(ctypes.c_int64)),
    )
    managed = _Managed(tensor=tensor, deleter=ctypes.cast(_DELETER, ctypes.c_void_p).value)
    address = ctypes.addressof(managed)
    _lent[address] = (managed, lengths, owner)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    return new(ctypes.c_void_p(address), _NAME, ctypes.cast(_DESTRUCTOR, ctypes.c_void_p))
