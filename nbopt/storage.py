"""The arrays of a buffer, laid out once: values, gradients and the attribute table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import DeviceError, ParameterError
from nbopt.kernels import tables as t
from nbopt.layout import ALIGNMENT, Item, Layout

if TYPE_CHECKING:
    from nbopt.parameter import Parameter

__all__ = ["Storage", "as_device", "as_dtype"]


class Storage:
    """Everything that never moves once it is laid out.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        In creation order; their values move in, and their attribute rows become rows of the table.
    dtype : numpy.dtype

    Attributes
    ----------
    layout : Layout
    data, grad : numpy.ndarray
        The whole buffer; the gradients of its effective part.
    attributes : numpy.ndarray
        One row per segment, see `nbopt.kernels.tables`.
    segment_of : dict of str to int
        Rows by the name of a plain parameter, a v or a g.
    """

    def __init__(self, parameters: Mapping[str, Parameter], dtype: np.dtype[Any]):
        items = [Item(p.name, p.shape, p._role == "normed", p.dim) for p in parameters.values()]
        self.layout = Layout(items, dtype.itemsize)
        self.data = aligned_zeros(self.layout.size, dtype)
        self.grad = aligned_zeros(self.layout.effective_size, dtype)
        self.attributes = np.zeros((len(self.layout.names), t.ATTRIBUTE_COLUMNS))
        self.segment_of = {name: index for index, name in enumerate(self.layout.names)}
        for parameter in parameters.values():
            if parameter._role == "normed":
                np.copyto(self.writable(parameter), parameter._current())
            for part in parameter._moved:
                row = self.attributes[self.segment_of[part.name]]
                row[:] = part._row
                part._row = row
                np.copyto(self.writable(part), part._initial)  # type: ignore[arg-type]
                part._initial = None

    def writable(self, parameter: Parameter) -> NDArray[Any]:
        """Return a view of a value that can be written, whatever the role."""
        if parameter._role == "normed":
            where = self.layout.effective[parameter.name]
        else:
            segment = self.layout.segments[self.segment_of[parameter.name]]
            start = self.layout.trainable_start + int(segment[t.SEGMENT_START])
            where = slice(start, start + parameter.size)
        view: NDArray[Any] = self.data[where].reshape(parameter.shape)
        return view

    def views(self, parameter: Parameter) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return views of the value and of the gradient that the model writes."""
        value = self.writable(parameter)
        if parameter._role != "plain":
            value.flags.writeable = False
        if parameter._parent is not None:
            return value, value
        return value, self.grad[self.layout.effective[parameter.name]].reshape(parameter.shape)


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros whose first element stands on an `ALIGNMENT` boundary."""
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    shift = -raw.ctypes.data % ALIGNMENT
    array: NDArray[Any] = raw[shift : shift + size * dtype.itemsize].view(dtype)
    return array


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """Return float32 or float64."""
    if dtype is None:
        raise TypeError("dtype must be float32 or float64, got None")
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from error
    if kind not in (np.float32, np.float64) or not kind.isnative:
        raise TypeError(f"dtype must be float32 or float64, got {kind}")
    return kind


def as_device(device: Any) -> str:
    """Return the device that a request stands for."""
    if not isinstance(device, str):
        raise TypeError(f"device must be a string, got {device!r}")
    if device in ("cpu", "auto"):
        return "cpu"
    if device == "cuda" or device.startswith("cuda:"):
        raise DeviceError(f"device {device!r} cannot be used: this version runs on the CPU; use device='cpu'")
    raise ParameterError(f"device must be 'cpu', 'cuda', 'cuda:<number>' or 'auto', got {device!r}")
