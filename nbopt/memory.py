"""Where arrays live: the memory of the host, and how that of a CUDA device is asked for.

Code that holds parameters allocates, reads and writes arrays through the memory of its buffer. On the host
that is NumPy and costs nothing: reading an array returns the array itself.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nbopt._validation import as_float_array
from nbopt.errors import DeviceError, ParameterError
from nbopt.layout import ALIGNMENT

__all__ = ["HOST", "Memory", "Table", "aligned_zeros", "as_values", "find_memory", "on_host"]

Array = Any  # a NumPy array, or one of numba.cuda


class Table(Protocol):
    """A table of numbers that steps read, and partly write; indexed as a NumPy array is.

    On the host it is one. What is read is not to be written, and a row that was read may go stale.
    """

    def __getitem__(self, key: Any, /) -> Any:
        """Return elements as they are after the steps so far."""

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Edit elements; the steps that follow see it."""


class Memory(Protocol):
    """The memory of one device.

    Attributes
    ----------
    device : str
        ``"cpu"``, ``"cuda:0"``, ...
    is_host : bool
    """

    device: str
    is_host: bool

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return zeros, the first element on an `ALIGNMENT` boundary."""

    def upload(self, array: NDArray[Any]) -> Array:
        """Return an array of the host as one of this memory."""

    def table(self, values: NDArray[Any], stepped: tuple[int, ...] = ()) -> Table:
        """Return a table, of whose columns (or of one row, elements) steps write those that are named."""

    def row(self, table: Any, index: int) -> Table:
        """Return a row of a table, to be edited too."""

    def array_of(self, table: Any) -> Array:
        """Return the array of this memory that kernels take for a table."""

    def host_of(self, table: Any) -> NDArray[Any]:
        """Return a table as an array of the host, always the same, as it is after the steps so far."""

    def use_stream(self, stream: Any) -> AbstractContextManager[None]:
        """Put what is done inside a ``with`` into a stream of the device."""

    def read(self, array: Array) -> NDArray[Any]:
        """Return an array on the host, not to be written; a copy only where one is needed."""

    def write(self, target: Array, values: Array) -> None:
        """Copy values, of the same shape and dtype, into an array of this memory."""

    def clear(self, array: Array) -> None:
        """Fill an array with zeros."""

    def borrow(self, value: Any) -> Array | None:
        """Return an array of this kind of device as it is; None for anything else, and on the host."""

    def overlaps(self, one: Array, other: Array) -> bool:
        """Whether two arrays may share elements."""

    def interface(self, array: Array) -> dict[str, Any]:
        """Return the ``__cuda_array_interface__`` of an array in C order."""

    def capsule(
        self,
        array: Array,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule; the arguments are those of ``__dlpack__``."""

    @property
    def dlpack_device(self) -> tuple[int, int]:
        """Kind and number of the device, as DLPack counts them."""


class _Host:
    """The memory of the host; see `Memory`."""

    device = "cpu"
    is_host = True

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        return aligned_zeros(int(np.prod(shape, dtype=np.int64)), np.dtype(dtype)).reshape(shape)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def table(self, values: NDArray[Any], stepped: tuple[int, ...] = ()) -> NDArray[Any]:
        return values

    def row(self, table: Any, index: int) -> Table:
        row: NDArray[Any] = table[index]
        return row

    def array_of(self, table: Any) -> NDArray[Any]:
        array: NDArray[Any] = table
        return array

    def host_of(self, table: Any) -> NDArray[Any]:
        return self.array_of(table)

    def use_stream(self, stream: Any) -> AbstractContextManager[None]:
        raise DeviceError("a CUDA stream is of no use to a buffer with device='cpu'")

    def read(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def write(self, target: NDArray[Any], values: NDArray[Any]) -> None:
        np.copyto(target, values)

    def clear(self, array: NDArray[Any]) -> None:
        array[...] = 0.0

    def borrow(self, value: Any) -> None:
        return None

    def overlaps(self, one: NDArray[Any], other: NDArray[Any]) -> bool:
        return np.may_share_memory(one, other)

    def interface(self, array: NDArray[Any]) -> dict[str, Any]:
        raise AttributeError("arrays on the CPU have no __cuda_array_interface__")

    def capsule(self, array: NDArray[Any], **options: Any) -> Any:
        return array.__dlpack__(**options)

    @property
    def dlpack_device(self) -> tuple[int, int]:
        return 1, 0


HOST: Memory = _Host()


def find_memory(device: Any) -> Memory:
    """Return the memory that a request such as ``"cuda:1"`` stands for.

    Raises
    ------
    DeviceError
        If the device cannot be used; the message says what is missing.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a string, got {device!r}")
    if device == "cpu":
        return HOST
    match = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", device)
    if device != "auto" and match is None:
        meant = device.lower().replace("gpu", "cuda")
        hint = f"; did you mean {meant!r}?" if re.fullmatch(r"cpu|auto|cuda(:[0-9]{1,4})?", meant) else ""
        raise ParameterError(f"device must be 'cpu', 'cuda', 'cuda:<number>' or 'auto', got {device!r}{hint}")
    from nbopt.kernels.cuda.device import what_is_missing

    number = int(match[1] or 0) if match else 0
    missing = what_is_missing(number)
    if not missing:
        from nbopt.kernels.cuda.memory import CudaMemory

        return CudaMemory(number, DeviceError)
    if device == "auto":
        return HOST
    raise DeviceError(f"device {device!r} cannot be used: {missing}. device='cpu' works everywhere")


def as_values(
    memory: Memory, value: Any, what: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None = None
) -> Array:
    """Return `value` as an array of `dtype` that `Memory.write` takes: of the host, or of the device.

    Parameters
    ----------
    memory : Memory
    value : array_like, or an array of the device
    what : str
        How a message calls it.
    dtype : numpy.dtype
        float32 or float64.
    shape : tuple of int, optional
        The shape it must have.
    """
    array = memory.borrow(value)
    if array is None:
        return as_float_array(value, what, dtype, shape)
    if array.dtype != dtype or (shape is not None and tuple(array.shape) != shape):
        return as_float_array(memory.read(array), what, dtype, shape)
    return array


def on_host(value: Any) -> Any:
    """Return a copy on the host of an array of a CUDA device, of whatever library; anything else as it is."""
    if isinstance(value, np.ndarray) or not any(hasattr(value, name) for name in _OF_CUDA):
        return value
    _, number = value.__dlpack_device__() if hasattr(value, "__dlpack_device__") else (None, 0)
    memory = find_memory(f"cuda:{int(number)}")
    array = memory.borrow(value)
    return value if array is None else memory.read(array)


# What arrays of a CUDA device have, and those of numba.cuda, also in its simulator.
_OF_CUDA = "__cuda_array_interface__", "__cuda_ndarray__"


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros whose first element stands on an `ALIGNMENT` boundary."""
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    shift = -raw.ctypes.data % ALIGNMENT
    array: NDArray[Any] = raw[shift : shift + size * dtype.itemsize].view(dtype)
    return array
