"""One named parameter: views of the flat buffer, and its row of the attribute table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt import norms
from nbopt._validation import as_flag, as_float_array, as_number
from nbopt.attr import ParamAttr, WeightNormParamAttr
from nbopt.errors import ParameterError
from nbopt.kernels import tables as t
from nbopt.regularizer import L1Decay, L2Decay, Regularizer

if TYPE_CHECKING:
    from nbopt.buffer import ParameterBuffer

__all__ = ["Parameter"]

Role = Literal["plain", "normed", "direction", "magnitude"]


class Parameter:
    """A named array of a `ParameterBuffer`, made by `ParameterBuffer.create_parameter`.

    `value` and `grad` are views of the buffer and never go stale. Attributes can be set at any time; the
    next step obeys.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype : numpy.dtype
        float32 or float64.
    size : int
        Number of elements.
    device : str
    attr : ParamAttr
        The record that it was created with.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer(seed=0)
    >>> b = params.create_parameter([2], name="b", is_bias=True)
    >>> b.value += 1
    >>> b.learning_rate = 2.0
    >>> b
    Parameter('b', shape=(2,), float32)
    """

    def __init__(
        self,
        buffer: ParameterBuffer,
        name: str,
        shape: tuple[int, ...],
        attr: ParamAttr,
        role: Role,
        initial: NDArray[Any] | None = None,
        parent: Parameter | None = None,
    ):
        self._buffer = buffer
        self._name = name
        self._shape = shape
        self._attr = attr
        self._role = role
        self._parent = parent
        self._initial = initial  # the value until the buffer is laid out
        self._views: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._parts: tuple[Parameter, Parameter] | None = None  # the g and v of a normed one
        self._row = np.zeros(t.ATTRIBUTE_COLUMNS)  # becomes a view of the attribute table
        if role != "normed":
            l1, l2 = attr.regularizer.columns if attr.regularizer else (0.0, 0.0)
            self._row[t.ATTRIBUTE_RATE] = attr.learning_rate
            self._row[t.ATTRIBUTE_L1] = l1
            self._row[t.ATTRIBUTE_L2] = l2
            self._row[t.ATTRIBUTE_REGULARIZER] = _regularizer_kind(attr.regularizer)
            self._row[t.ATTRIBUTE_NEED_CLIP] = attr.need_clip
            self._row[t.ATTRIBUTE_TRAINABLE] = attr.trainable
            self._row[t.ATTRIBUTE_PRESENT] = 1.0
            self._row[t.ATTRIBUTE_AVERAGE] = attr.do_model_average

    def __repr__(self) -> str:
        kind = f", weight norm along dim={self.dim}" if self._role == "normed" else ""
        return f"Parameter({self.name!r}, shape={self.shape}, {self.dtype}{kind})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_buffer, (self._buffer, self.name)

    @property
    def name(self) -> str:
        """Name, unique in the buffer."""
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of value and gradient."""
        return self._shape

    @property
    def attr(self) -> ParamAttr:
        """The record that it was created with; the attributes themselves may have been set since."""
        return self._attr

    @property
    def weight_g(self) -> Parameter | None:
        """The magnitude of a weight-normed parameter, else None."""
        return self._parts[0] if self._parts else None

    @property
    def weight_v(self) -> Parameter | None:
        """The direction of a weight-normed parameter, else None."""
        return self._parts[1] if self._parts else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of value and gradient."""
        return self._buffer.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def device(self) -> str:
        """Where it lives."""
        return self._buffer.device

    @property
    def dim(self) -> int | None:
        """The kept axis of weight norm, also of its v and g."""
        return self.attr.dim if isinstance(self.attr, WeightNormParamAttr) else None

    @property
    def _moved(self) -> tuple[Parameter, ...]:
        """The parameters that an optimizer moves for this one: itself, or its g and v."""
        return self._parts or (self,)

    # --- values

    def _both(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Views of value and gradient, made once."""
        if self._views is None:
            self._views = self._buffer._seal().views(self)
        return self._views

    @property
    def value(self) -> NDArray[Any]:
        """View of the value, read-only with weight norm, where g and v move. Assigning copies in."""
        return self._both()[0]

    @value.setter
    def value(self, array: ArrayLike) -> None:
        self.set_value(array)

    def set_value(self, array: ArrayLike) -> None:
        """Copy a value in.

        With weight norm v becomes the array and g its norm; on `weight_g` and `weight_v`, w is recomposed
        at once.

        Parameters
        ----------
        array : array_like
            Of this shape; cast by the same-kind rule.

        Raises
        ------
        ParameterError
            If the shape differs, the numbers do not fit the dtype, or a slice of a weight-normed value is
            zero.
        TypeError
            If the elements are no real numbers.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer()
        >>> w = params.create_parameter([2, 2], name="w", attr=nb.WeightNormParamAttr(dim=0))
        >>> w.set_value([[3.0, 4.0], [0.0, 2.0]])
        >>> w.weight_g.numpy()
        array([[5.],
               [2.]], dtype=float32)
        """
        values = as_float_array(array, f"value of {self.name!r}", self.dtype, self.shape)
        if self._role == "normed":
            assert self._parts is not None
            g, v = self._parts
            magnitude = norms.initial_magnitude(values, self.dim, self.name)
            g._store(magnitude)
            v._store(values)
            self._recompose()
        else:
            self._store(values)
            if self._parent is not None:
                self._parent._recompose()

    def _store(self, values: NDArray[Any]) -> None:
        if self._buffer.is_sealed:
            np.copyto(self._buffer._seal().writable(self), values)
        else:
            self._initial = np.array(values, order="C")

    def _recompose(self) -> None:
        """Write w from v and g, where w has its place."""
        if self._buffer.is_sealed:
            np.copyto(self._buffer._seal().writable(self), self._composed())

    def _composed(self) -> NDArray[Any]:
        assert self._parts is not None
        g, v = self._parts
        return norms.compose(v._current(), g._current(), self.dim)

    def _current(self) -> NDArray[Any]:
        """The value, laid out or not; not to be written."""
        if self._buffer.is_sealed:
            return self.value
        if self._role == "normed":
            return self._composed()
        assert self._initial is not None
        return self._initial

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the value.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})["w"].numpy()
        array([1., 2.])
        """
        return self._current().copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is not False:
            return np.array(self._current(), dtype=dtype)
        if dtype is not None and np.dtype(dtype) != self.dtype:
            raise ValueError(f"{self.name!r} is {self.dtype}; {np.dtype(dtype)} needs a copy")
        return self.value

    def __dlpack__(self, **options: Any) -> Any:
        return self.value.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[Any, Any]:
        return self.value.__dlpack_device__()

    # --- gradients

    @property
    def grad(self) -> NDArray[Any]:
        """View of the gradient, dL/dw with weight norm; of `weight_g` and `weight_v` computed when read.

        Assigning copies in and makes the gradient present; None makes it absent.
        """
        if self._parent is not None:
            return self._computed_grad()
        return self._both()[1]

    @grad.setter
    def grad(self, array: ArrayLike | None) -> None:
        if array is None:
            self.clear_grad(set_to_zero=False)
            return
        if self._parent is not None:
            raise ParameterError(
                f"the gradient of {self.name!r} is computed; write dL/dw to {self._parent.name!r}"
            )
        values = as_float_array(array, f"gradient of {self.name!r}", self.dtype, self.shape)
        np.copyto(self.grad, values)
        self._set_columns(t.ATTRIBUTE_PRESENT, 1.0)

    def _computed_grad(self) -> NDArray[Any]:
        parent = self._parent
        assert parent is not None
        assert parent._parts is not None
        g, v = parent._parts
        dv, dg = norms.backward(v.value, g.value, parent.grad, parent.dim)
        grad = dv if self._role == "direction" else dg
        grad.flags.writeable = False
        return grad

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Fill the gradient with zeros.

        Parameters
        ----------
        set_to_zero : bool
            False also marks it absent: steps skip the parameter until its gradient is written.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> w.grad = [3.0]
        >>> w.clear_grad()
        >>> w.grad
        array([0.])
        """
        keep = as_flag(set_to_zero, "set_to_zero")
        (self._parent or self).grad[...] = 0.0
        if not keep:
            (self._parent or self)._set_columns(t.ATTRIBUTE_PRESENT, 0.0)

    @property
    def has_grad(self) -> bool:
        """Whether the gradient is present; elements written since the last step count from the next on."""
        return bool(self._column(t.ATTRIBUTE_PRESENT))

    # --- attributes

    def _column(self, column: int) -> float:
        return float(self._moved[-1]._row[column])

    def _set_columns(self, column: int, value: float) -> None:
        for parameter in self._moved:
            parameter._row[column] = value

    @property
    def learning_rate(self) -> float:
        """Multiplies the learning rate; finite and >= 0. With weight norm, reading gives v's."""
        return self._column(t.ATTRIBUTE_RATE)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._set_columns(t.ATTRIBUTE_RATE, as_number(value, f"learning_rate of {self.name!r}", low=0.0))

    @property
    def regularizer(self) -> Regularizer | None:
        """Stands in place of the group's and the optimizer's weight decay; None leaves those."""
        kind = self._column(t.ATTRIBUTE_REGULARIZER)
        if kind == t.REGULARIZER_L1:
            return L1Decay(self._column(t.ATTRIBUTE_L1))
        return L2Decay(self._column(t.ATTRIBUTE_L2)) if kind == t.REGULARIZER_L2 else None

    @regularizer.setter
    def regularizer(self, value: Regularizer | None) -> None:
        if value is not None and not isinstance(value, Regularizer):
            raise TypeError(f"regularizer of {self.name!r} must be None, L1Decay or L2Decay, got {value!r}")
        l1, l2 = value.columns if value else (0.0, 0.0)
        self._set_columns(t.ATTRIBUTE_L1, l1)
        self._set_columns(t.ATTRIBUTE_L2, l2)
        self._set_columns(t.ATTRIBUTE_REGULARIZER, _regularizer_kind(value))

    @property
    def need_clip(self) -> bool:
        """Whether gradient clipping takes the parameter in."""
        return bool(self._column(t.ATTRIBUTE_NEED_CLIP))

    @need_clip.setter
    def need_clip(self, value: bool) -> None:
        self._set_columns(t.ATTRIBUTE_NEED_CLIP, float(as_flag(value, f"need_clip of {self.name!r}")))

    @property
    def do_model_average(self) -> bool:
        """Whether averages take the parameter in."""
        return bool(self._column(t.ATTRIBUTE_AVERAGE))

    @do_model_average.setter
    def do_model_average(self, value: bool) -> None:
        self._set_columns(t.ATTRIBUTE_AVERAGE, float(as_flag(value, f"do_model_average of {self.name!r}")))

    @property
    def trainable(self) -> bool:
        """Whether steps move the parameter; False freezes it, bit for bit. With weight norm, v or g."""
        return any(bool(p._row[t.ATTRIBUTE_TRAINABLE]) for p in self._moved)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_columns(t.ATTRIBUTE_TRAINABLE, float(as_flag(value, f"trainable of {self.name!r}")))

    @property
    def stop_gradient(self) -> bool:
        """The opposite of `trainable`."""
        return not self.trainable

    @stop_gradient.setter
    def stop_gradient(self, value: bool) -> None:
        self.trainable = not as_flag(value, f"stop_gradient of {self.name!r}")


def _of_buffer(buffer: ParameterBuffer, name: str) -> Parameter:
    return buffer[name]


def _regularizer_kind(regularizer: Regularizer | None) -> int:
    if regularizer is None:
        return t.REGULARIZER_NONE
    return t.REGULARIZER_L1 if isinstance(regularizer, L1Decay) else t.REGULARIZER_L2
