"""DLPack, by which arrays are lent to other libraries without a copy: a C structure in a capsule.

The arrays of numba.cuda have none. Whoever takes the capsule calls the deleter of the structure when done.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["CPU", "CUDA", "capsule"]

CPU, CUDA = 1, 2  # kinds of device
_FLOAT = 2  # a kind of number
_NAME = b"dltensor"  # of a capsule that nobody has taken yet


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_number", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_held: dict[int, tuple[Any, ...]] = {}  # what lent tensors need, by the address of the structure


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(tensor: int) -> None:
    _held.pop(tensor, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _forget(unwanted: int) -> None:
    """Free what a capsule holds that was never taken; one that was has another name."""
    if _is_valid(unwanted, _NAME):
        _held.pop(_pointer_of(unwanted, _NAME), None)


_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
# Prototypes of their own: the capsule that `_forget` meets is half destroyed and must not be referred to.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def capsule(data: int, device: tuple[int, int], shape: tuple[int, ...], itemsize: int, owner: object) -> Any:
    """Return a DLPack capsule of floats in C order.

    Parameters
    ----------
    data : int
        Address of the first element.
    device : tuple of int
        Its kind, `CPU` or `CUDA`, and number.
    shape : tuple of int
    itemsize : int
        Bytes per element.
    owner : object
        Keeps the memory; it is let go when the capsule's taker is done.
    """
    ndim = len(shape)
    sizes, strides, step = (ctypes.c_int64 * ndim)(*shape), (ctypes.c_int64 * ndim)(), 1
    for axis in reversed(range(ndim)):
        strides[axis], step = step, step * shape[axis]
    tensor = _Tensor(data, *device, ndim, _FLOAT, itemsize * 8, 1, sizes, strides, 0, None)
    tensor.deleter = ctypes.cast(_delete, ctypes.c_void_p)
    where = ctypes.addressof(tensor)
    _held[where] = tensor, sizes, strides, owner
    return _new(where, _NAME, ctypes.cast(_forget, ctypes.c_void_p))
