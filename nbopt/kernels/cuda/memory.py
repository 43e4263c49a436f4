"""The memory of one CUDA device: arrays on it, and tables that are edited on the host.

Everything is put into one stream, in the order of the calls, and nothing waits but what brings numbers to the
host. Copies from the host are staged by the driver before a call returns, so what they read may change at
once; page-locked memory is not, and is staged here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.kernels.cuda import dlpack
from nbopt.kernels.cuda.device import import_cuda, is_simulated, small_grids
from nbopt.kernels.cuda.stream import DEFAULT, handle_of, is_capturing, stream_of

__all__ = ["CudaMemory", "Mirror", "Row", "address"]

Array = Any  # one of numba.cuda

cuda = import_cuda()  # by a global name: the simulator puts its own in place of it while a kernel runs

_THREADS = 32
_RUNS = 8  # of neighbours that are sent one by one


class CudaMemory:
    """The memory of a device that can be used; its methods are those of `nbopt.memory.Memory`.

    Parameters
    ----------
    number : int
        Of the device.
    error : type
        What is raised where a copy cannot be made.

    Attributes
    ----------
    device : str
    context : context manager
        Makes the device the current one; kernels are launched inside.
    stream : numba.cuda stream
        Where every copy goes, and every launch is to go; at first the default one of the driver.
    """

    is_host = False

    def __init__(self, number: int, error: type[Exception] = RuntimeError):
        cuda = import_cuda()
        self._error = error
        self.device = f"cuda:{number}"
        self.number = number
        self.context = cuda.gpus[number]
        with self.context:
            self.stream = cuda.legacy_default_stream()

    @property
    def handle(self) -> int:
        """The stream as other libraries know it; 1 is the default one."""
        return DEFAULT if is_simulated() else int(self.stream)

    @contextmanager
    def use_stream(self, stream: Any) -> Iterator[None]:
        """Go on in another stream for a while, in order after what is in the present one, and back.

        No order can be made with a stream in which a graph is being captured: what is captured runs later.
        """
        before, handle = self.stream, handle_of(stream)
        if handle == self.handle:
            yield
            return
        with self.context:
            self._go_to(stream_of(handle), is_capturing(handle))
        try:
            yield
        finally:
            with self.context:
                self._go_to(before, is_capturing(handle))

    def _go_to(self, stream: Any, captured: bool) -> None:
        if not captured and not is_simulated():
            self._order(self.stream, stream)
        self.stream = stream

    def lend(self, handle: int | None) -> None:
        """Let another stream wait for this one, as ``__dlpack__`` is asked to; -1 is none."""
        if handle == -1:
            return
        handle = DEFAULT if handle is None else handle_of(handle)
        if handle != self.handle and not is_simulated():
            with self.context:
                self._order(self.stream, import_cuda().external_stream(handle))

    def _order(self, first: Any, then: Any) -> None:
        """Let one stream wait for what is in another now."""
        event = import_cuda().event(timing=False)
        event.record(first)
        event.wait(then)

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

    def host_of(self, table: Mirror) -> NDArray[Any]:
        """Return the host's half of a mirror, brought up to date."""
        return table.pull()

    def read(self, array: Array) -> NDArray[Any]:
        """Wait for the stream, and return a copy on the host; an array of the host as it is."""
        if isinstance(array, np.ndarray):
            return array
        self.refuse_capture()
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
            self.refuse_capture()
            values = np.ascontiguousarray(values).reshape(target.shape)
            if is_page_locked(values):
                values = values.copy()
        with self.context:
            target.copy_to_device(values, stream=self.stream)

    def refuse_capture(self) -> None:
        """Refuse what cannot be a part of a CUDA graph."""
        if is_capturing(self.handle):
            raise self._error(
                "while a CUDA graph is captured, nothing can be copied from the host or to it: a replay "
                "would find memory that is gone. Edit and read before the capture, or between replays"
            )

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

    def fill(self, table: Array, start: int, step: int, count: int, bits: int) -> None:
        """Write one number of eight bytes to places at equal distances."""
        with self.context, small_grids():
            launch = _filler()[-(-count // _THREADS), _THREADS, self.stream]
            launch(table.view(np.int64), start, step, count, bits)

    def borrow(self, value: Any) -> Array | None:
        """Return an array of this device as numba.cuda knows it, or, not in C order, as one of the host.

        What its owner has put into a stream for it is waited for in this stream. That cannot be had of the
        streams of another device, so its arrays are refused.
        """
        if is_simulated():
            if not getattr(value, "__cuda_ndarray__", False):
                return None
            array = value
        else:
            published = getattr(value, "__cuda_array_interface__", None)
            if published is None:
                return None
            self._refuse_foreign(value)
            with self.context:
                array = import_cuda().as_cuda_array(value, sync=False)
                if hasattr(value, "__dlpack__"):
                    value.__dlpack__(stream=self.handle)  # for the order that it makes
                elif published.get("stream") not in (None, self.handle):
                    self._order(array.stream, self.stream)
        if array.is_c_contiguous():
            return array
        if min(array.strides) < 0:
            raise self._error("an array of a GPU that runs backwards cannot be read: give a copy of it")
        return self.read(array)

    def _refuse_foreign(self, value: Any) -> None:
        """Refuse an array that says that it lies on another CUDA device."""
        if not hasattr(value, "__dlpack_device__"):
            return
        kind, number = map(int, value.__dlpack_device__())
        if kind == dlpack.CUDA and number != self.number:
            raise self._error(
                f"an array on cuda:{number} was given where {self.device} is used: copy it there"
            )

    def interface(self, array: Array) -> dict[str, Any]:
        """Return the ``__cuda_array_interface__`` of an array in C order, version 3."""
        return {
            "shape": tuple(array.shape),
            "strides": None,
            "typestr": array.dtype.str,
            "data": (address(array), False),
            "stream": self.handle,
            "version": 3,
        }

    @property
    def dlpack_device(self) -> tuple[int, int]:
        """Kind and number of the device; the simulator's arrays lie on the host."""
        return (dlpack.CPU, 0) if is_simulated() else (dlpack.CUDA, self.number)

    def capsule(
        self,
        array: Array,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule of an array in C order; the arguments are those of ``__dlpack__``."""
        if dl_device is not None and tuple(dl_device) != self.dlpack_device:
            if tuple(dl_device) != (dlpack.CPU, 0) or copy is False:
                raise BufferError(f"an array on {self.device} cannot be given elsewhere without a copy")
            return self.read(array).__dlpack__()
        if copy:
            original, array = array, self.zeros(tuple(array.shape), array.dtype)
            self.write(array, original)
        self.lend(stream)
        return dlpack.capsule(
            address(array), self.dlpack_device, tuple(array.shape), array.dtype.itemsize, array
        )

    def overlaps(self, one: Array, other: Array) -> bool:
        """Whether two arrays may share elements; one of the host shares none with the device."""
        if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
            return False
        first, second = address(one), address(other)
        return bool(first < second + other.nbytes and second < first + one.nbytes)


@functools.cache
def _filler() -> Any:
    """A kernel that writes one number to many places."""
    return cuda.jit(_fill)


def _fill(table, start, step, count, value):  # type: ignore[no-untyped-def]
    i = cuda.grid(1)
    if i < count:
        table[start + i * step] = value


def is_page_locked(array: NDArray[Any]) -> bool:
    """Whether the driver copies from an array of the host itself, later, and not by way of a stage."""
    if is_simulated():
        return False
    from numba.cuda.cudadrv.driver import binding, driver

    # The form for several attributes takes memory that the driver does not know for no error, but for kind 0.
    kinds = driver.cuPointerGetAttributes(
        1, [binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE], array.ctypes.data
    )
    return bool(kinds[0])


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
            self.pull()
        found = self._host[key]
        if isinstance(found, np.ndarray):
            found.flags.writeable = False  # an edit of it would be lost
        return found

    def pull(self) -> NDArray[Any]:
        """Bring the host's half up to date, and return it."""
        np.copyto(self._host, self._memory.read(self.array))
        return self._host

    def __setitem__(self, key: Any, value: Any) -> None:
        self._memory.refuse_capture()
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
        steps = np.diff(places)
        bits = self._bits[places]
        if places.size > _RUNS and (steps == steps[0]).all() and (bits == bits[0]).all():
            self._memory.fill(self._target, int(places[0]), int(steps[0]), places.size, int(bits[0]))
            return
        for run in np.split(places, np.flatnonzero(steps != 1) + 1):
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
