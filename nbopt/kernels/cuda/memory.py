"""The memory of one CUDA device: arrays on it, and tables that are edited on the host.

Everything is put into one stream, in the order of the calls, and nothing waits but what brings numbers to the
host. Copies from the host are staged by the driver before a call returns, so what they read may change at
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.kernels.cuda.device import import_cuda, is_simulated

__all__ = ["CudaMemory", "Mirror", "Row", "address"]

Array = Any  # one of numba.cuda


class CudaMemory:
    """The memory of a device that can be used; its methods are those of `nbopt.memory.Memory`.

    Parameters
    ----------
    number : int
        Of the device.

    Attributes
    ----------
    device : str
    context : context manager
        Makes the device the current one; kernels are launched inside.
    stream : numba.cuda stream
        Where every copy goes, and every launch is to go.
    """

    is_host = False

    def __init__(self, number: int):
        cuda = import_cuda()
        self.device = f"cuda:{number}"
        self.number = number
        self.context = cuda.gpus[number]
        with self.context:
            self.stream = cuda.legacy_default_stream()

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return zeros; the driver aligns to 256 bytes."""
        with self.context:
            array = import_cuda().device_array(shape, np.dtype(dtype), stream=self.stream)
        self.clear(array)
        return array

    def upload(self, array: NDArray[Any]) -> Array:
        """Return a copy on the device."""
        with self.context:
            copy = import_cuda().device_array(array.shape, array.dtype, stream=self.stream)
        self.write(copy, array)
        return copy

    def table(self, values: NDArray[Any], stepped: tuple[int, ...] = ()) -> Mirror:
        """Return a mirror of a table of int64 or float64."""
        return Mirror(self, values, stepped)

    def row(self, table: Mirror, index: int) -> Row:
        """Return a row of a mirror."""
        return Row(table, index)

    def array_of(self, table: Mirror) -> Array:
        """Return the device's half of a mirror."""
        return table.array

    def read(self, array: Array) -> NDArray[Any]:
        """Wait for the stream, and return a copy on the host; an array of the host as it is."""
        if isinstance(array, np.ndarray):
            return array
        with self.context:
            copy: NDArray[Any] = array.copy_to_host(stream=self.stream)
            self.stream.synchronize()
        return copy

    def write(self, target: Array, values: Array) -> None:
        """Copy values in, from the host or the device."""
        if not target.size:
            return
        if not isinstance(values, np.ndarray) and self.overlaps(target, values):
            values = self.read(values)
        if isinstance(values, np.ndarray):
            values = np.ascontiguousarray(values).reshape(target.shape)
        with self.context:
            target.copy_to_device(values, stream=self.stream)

    def clear(self, array: Array) -> None:
        """Fill an array with zeros."""
        if not array.size:
            return
        if is_simulated():
            array[...] = 0
            return
        from numba.cuda.cudadrv.driver import device_memset

        with self.context:
            device_memset(array, 0, array.nbytes, stream=self.stream)

    def borrow(self, value: Any) -> Array | None:
        """Return an array of a CUDA device, with its elements in C order, as numba.cuda knows it."""
        if getattr(value, "__cuda_ndarray__", False):
            array = value
        elif is_simulated() or getattr(value, "__cuda_array_interface__", None) is None:
            return None
        else:
            with self.context:
                array = import_cuda().as_cuda_array(value)
        return array if array.is_c_contiguous() else self.read(array)

    def overlaps(self, one: Array, other: Array) -> bool:
        """Whether two arrays may share elements; one of the host shares none with the device."""
        if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
            return False
        first, second = address(one), address(other)
        return bool(first < second + other.nbytes and second < first + one.nbytes)


def address(array: Array) -> int:
    """Return where an array of the device begins; 0 for one without elements."""
    if is_simulated():
        where: int = array.__array_interface__["data"][0]
        return where
    return int(array.device_ctypes_pointer.value or 0)


class Mirror:
    """A table with a half on the host and one on the device, indexed as an array is.

    The host's half is right in all columns but those that steps write. An edit writes it, and sends to the
    device just the elements that it changed. Reading a column that steps write brings the table here first.

    Parameters
    ----------
    memory : CudaMemory
    values : numpy.ndarray
        int64 or float64, of one or two dimensions; copied.
    stepped : tuple of int
        The columns (of one dimension, the elements) that steps write.

    Attributes
    ----------
    array : numba.cuda array
        The device's half.
    """

    def __init__(self, memory: CudaMemory, values: NDArray[Any], stepped: tuple[int, ...]):
        self._memory = memory
        self._host = np.array(values, order="C")
        self._flat = self._host.reshape(-1)
        self._bits = self._flat.view(np.int64)
        self._places = np.arange(values.size).reshape(values.shape)
        self._stepped = np.zeros(values.shape, bool)
        self._stepped[..., list(stepped)] = True
        self.array = memory.upload(self._host)
        self._target = self.array.reshape(values.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the table."""
        return self._host.shape

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, key: Any) -> Any:
        if np.any(self._stepped[key]):
            np.copyto(self._host, self._memory.read(self.array))
        found = self._host[key]
        if isinstance(found, np.ndarray):
            found.flags.writeable = False  # an edit of it would be lost
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        places = np.unique(self._places[key])
        before = self._bits[places]
        self._host[key] = value
        # What a step may have written since is sent although it seems the same.
        changed = (self._bits[places] != before) | self._stepped.reshape(-1)[places]
        self._send(places[changed])

    def _send(self, places: NDArray[np.intp]) -> None:
        """Send elements, a run of neighbours at a time."""
        if not places.size:
            return
        for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
            begin, end = int(run[0]), int(run[-1]) + 1
            self._memory.write(self._target[begin:end], self._flat[begin:end])


class Row:
    """One row of a mirror; editing it edits the mirror."""

    def __init__(self, table: Mirror, index: int):
        self._table = table
        self._index = index

    def __getitem__(self, column: Any) -> Any:
        return self._table[self._index, column]

    def __setitem__(self, column: Any, value: Any) -> None:
        self._table[self._index, column] = value
