"""An array lent to C as DLPack's structure, from before version 1.0: taken out of the capsule that Python exchanges."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mova_runtime.engines.protocol import Array

_FRESH, _TAKEN = b"dltensor", b"used_dltensor"
"""Names of a capsule; whoever takes its content renames it, and calls the structure's deleter one day."""


def lend(array: Array) -> int:
    """Address of a DLManagedTensor over the array's memory; its deleter, in any thread, gives the array back.

    A host's array has to be writable: this version of DLPack can't say that one is not.
    """
    capsule: Any = array.__dlpack__()
    get, rename = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_SetName
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    rename.restype, rename.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
    address: int = get(capsule, _FRESH)
    rename(capsule, _TAKEN)
    return address
