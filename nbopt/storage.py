"""The arrays of a buffer, laid out once: values, gradients and the attribute table."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.errors import ParameterError
from nbopt.kernels import tables as t
from nbopt.layout import CPU_CUTS, CUDA_CUTS, Item, Layout
from nbopt.memory import Array, Memory, Table, aligned_zeros

if TYPE_CHECKING:
    from nbopt.parameter import Parameter

__all__ = ["Storage", "as_dtype"]


class Storage:
    """Everything that never moves once it is laid out.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        In creation order; their values move in, and their attribute rows become rows of the table.
    dtype : numpy.dtype
    memory : Memory
        Where the arrays live.

    Attributes
    ----------
    layout : Layout
    data, grad : array of the memory
        The whole buffer; the gradients of its effective part.
    attributes : Table
        One row per segment, see `nbopt.kernels.tables`.
    segment_of : dict of str to int
        Rows by the name of a plain parameter, a v or a g.
    stepped_by : tuple of weakref.ref
        The tables of every optimizer, see `nbopt.standstill`.
    backups : list
        Of what averages stand in place of; kept here, so that no average takes it along when it goes.
    """

    def __init__(self, parameters: Mapping[str, Parameter], dtype: np.dtype[Any], memory: Memory):
        items = [Item(p.name, p.shape, p._role == "normed", p.dim) for p in parameters.values()]
        self.layout = Layout(items, dtype.itemsize, CPU_CUTS if memory.is_host else CUDA_CUTS)
        if not self.layout.size and not memory.is_host:
            # Arrays of numba.cuda that have no elements have no views.
            raise ParameterError(
                f"a buffer on {memory.device} must hold at least one element; use device='cpu'"
            )
        self.segment_of = {name: index for index, name in enumerate(self.layout.names)}
        self.memory = memory
        self.stepped_by: tuple[weakref.ref[Any], ...] = ()
        self.backups: list[Any] = []
        self.data: Array = aligned_zeros(self.layout.size, dtype)
        attributes = np.zeros((len(self.layout.names), t.ATTRIBUTE_COLUMNS))
        moved = [part for parameter in parameters.values() for part in parameter._moved]
        for parameter in parameters.values():
            if parameter._role == "normed":
                np.copyto(self.writable(parameter), parameter._current())
        for part in moved:
            np.copyto(self.writable(part), part._initial)  # type: ignore[arg-type]
            attributes[self.segment_of[part.name]] = part._row[:]
        self.data = memory.upload(self.data)
        self.grad: Array = memory.zeros((self.layout.effective_size,), dtype)
        self.attributes: Table = memory.table(attributes, (t.ATTRIBUTE_PRESENT, t.ATTRIBUTE_MOVED))
        for part in moved:
            part._row = memory.row(self.attributes, self.segment_of[part.name])
            part._initial = None

    def writable(self, parameter: Parameter) -> Array:
        """Return a view of a value that can be written, whatever the role."""
        if parameter._role == "normed":
            where = self.layout.effective[parameter.name]
        else:
            segment = self.layout.segments[self.segment_of[parameter.name]]
            start = self.layout.trainable_start + int(segment[t.SEGMENT_START])
            where = slice(start, start + parameter.size)
        return self.data[where].reshape(parameter.shape)

    def views(self, parameter: Parameter) -> tuple[Array, Array]:
        """Return views of the value and of the gradient that the model writes."""
        value = self.writable(parameter)
        if parameter._role != "plain" and self.memory.is_host:
            value.flags.writeable = False
        if parameter._parent is not None:
            return value, value
        return value, self.grad[self.layout.effective[parameter.name]].reshape(parameter.shape)


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """Return float32 or float64."""
    if dtype is None:
        raise TypeError("dtype must be float32 or float64, got None")
    if isinstance(dtype, Mapping):
        raise TypeError(
            f"dtype must be float32 or float64, got {type(dtype).__name__}: for arrays by name, write "
            "ParameterBuffer.from_arrays({...})"
        )
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from error
    if kind not in (np.float32, np.float64) or not kind.isnative:
        raise TypeError(f"dtype must be float32 or float64, got {kind}")
    return kind
