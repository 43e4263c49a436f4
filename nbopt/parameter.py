"""One named parameter: its views of the flat buffer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from nbopt import norms
from nbopt._validation import as_flag
from nbopt.attr import ParamAttr, WeightNormParamAttr
from nbopt.errors import ParameterError
from nbopt.kernels import tables as t
from nbopt.memory import Array, Memory, as_values
from nbopt.policy import Policy, attribute_row
from nbopt.strict import NoArray

if TYPE_CHECKING:
    from nbopt.buffer import ParameterBuffer

__all__ = ["Parameter"]

Role = Literal["plain", "normed", "direction", "magnitude"]


class Parameter(NoArray, Policy):
    """A named array of a `ParameterBuffer`, made by `ParameterBuffer.create_parameter`.

    `value` and `grad` are views of the buffer and never go stale. Its policy (`learning_rate`, `regularizer`,
    `need_clip`, `trainable`, `do_model_average`) can be set at any time; the next step obeys.

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
        self._memory: Memory = buffer._memory
        self._name = name
        self._shape = shape
        self._attr = attr
        self._role = role
        self._parent = parent
        self._initial = initial  # the value until the buffer is laid out
        self._views: tuple[Array, Array] | None = None
        self._parts: tuple[Parameter, Parameter] | None = None  # the g and v of a normed one
        self._row = np.zeros(t.ATTRIBUTE_COLUMNS) if role == "normed" else attribute_row(attr)

    def __repr__(self) -> str:
        kind = f", weight norm along dim={self.dim}" if self._role == "normed" else ""
        return f"Parameter({self.name!r}, shape={self.shape}, {self.dtype}{kind})"

    def _array(self) -> str:
        return f"params[{self.name!r}].value"

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_buffer, (self._buffer, self.name)

    @property
    def name(self) -> str:
        """Name, unique in the buffer.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"fc.bias": [0.0]})["fc.bias"].name
        'fc.bias'
        """
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of value and gradient, a tuple of int.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"w": [[1.0, 2.0]]})["w"].shape
        (1, 2)
        """
        return self._shape

    @property
    def attr(self) -> ParamAttr:
        """The `ParamAttr` that it was created with; the policy itself may have been set since.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer()
        >>> w = params.create_parameter([2], name="w", attr=nb.ParamAttr(need_clip=False))
        >>> w.need_clip = True
        >>> w.attr.need_clip
        False
        """
        return self._attr

    @property
    def weight_g(self) -> Parameter | None:
        """The magnitude g of a weight-normed parameter, of the same rank; None of any other.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer(seed=0)
        >>> w = params.create_parameter([2, 3], name="w", attr=nb.WeightNormParamAttr(dim=0))
        >>> w.weight_g
        Parameter('w_g', shape=(2, 1), float32)
        """
        return self._parts[0] if self._parts else None

    @weight_g.setter
    def weight_g(self, value: object) -> None:
        self._refuse("weight_g")

    @property
    def weight_v(self) -> Parameter | None:
        """The direction v of a weight-normed parameter, of the same shape; None of any other.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer(seed=0)
        >>> w = params.create_parameter([2, 3], name="w", attr=nb.WeightNormParamAttr(dim=0))
        >>> w.weight_v
        Parameter('w_v', shape=(2, 3), float32)
        """
        return self._parts[1] if self._parts else None

    @weight_v.setter
    def weight_v(self, value: object) -> None:
        self._refuse("weight_v")

    def _refuse(self, part: str) -> NoReturn:
        raise AttributeError(
            f"{part} of {self.name!r} is a Parameter and cannot be replaced; assign to {part}.value"
            if self._parts
            else f"{self.name!r} has no weight norm, and so no {part} to set"
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of value and gradient.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"w": [1.0]}, dtype="float32")["w"].dtype
        dtype('float32')
        """
        return self._buffer.dtype

    @property
    def size(self) -> int:
        """Number of elements.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"w": [[1.0, 2.0]]})["w"].size
        2
        """
        return math.prod(self.shape)

    @property
    def device(self) -> str:
        """Where it lives.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"].device
        'cpu'
        """
        return self._buffer.device

    @property
    def dim(self) -> int | None:
        """The kept axis of a weight-normed parameter, and of its g and v.

        None stands for one norm over all elements, and for no weight norm.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer(seed=0)
        >>> w = params.create_parameter([2, 3], name="w", attr=nb.WeightNormParamAttr(dim=0))
        >>> w.dim, w.weight_v.dim
        (0, 0)
        """
        return self.attr.dim if isinstance(self.attr, WeightNormParamAttr) else None

    @property
    def _moved(self) -> tuple[Parameter, ...]:
        """The parameters that an optimizer moves for this one: itself, or its g and v."""
        return self._parts or (self,)

    # --- values

    def _both(self) -> tuple[Array, Array]:
        """Views of value and gradient, made once."""
        if self._views is None:
            self._views = self._buffer._seal().views(self)
        return self._views

    @property
    def value(self) -> NDArray[Any]:
        """View of the value, on CUDA an array of numba.cuda. Assigning copies in, as `set_value` does.

        With weight norm the views of w, g and v are read-only; on CUDA nothing holds you to it, but what is
        written to them is lost, or leaves w behind.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})["w"]
        >>> view = w.value
        >>> w.value = [3.0, 4.0]
        >>> view
        array([3., 4.])
        """
        view: NDArray[Any] = self._both()[0]
        return view

    @value.setter
    def value(self, array: Any) -> None:
        self.set_value(array)

    def set_value(self, array: Any) -> None:
        """Copy a value in.

        With weight norm v becomes the array and g its norm; on `weight_g` and `weight_v`, w is recomposed
        at once.

        Parameters
        ----------
        array : array_like
            Of this shape; cast by the same-kind rule. On CUDA also an array of the GPU, as CuPy, torch and
            others have it.

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
        values = as_values(self._memory, array, f"value of {self.name!r}", self.dtype, self.shape)
        if self._role == "normed":
            assert self._parts is not None
            values = self._memory.read(values)
            g, v = self._parts
            magnitude = norms.initial_magnitude(values, self.dim, self.name)
            g._store(magnitude)
            v._store(values)
            self._recompose()
        else:
            self._store(values)
            if self._parent is not None:
                self._parent._recompose()

    def _store(self, values: Array) -> None:
        if self._buffer.is_sealed:
            self._memory.write(self._buffer._seal().writable(self), values)
        else:
            self._initial = np.array(self._memory.read(values), order="C")

    def _recompose(self) -> None:
        """Write w from v and g, where w has its place."""
        if self._buffer.is_sealed:
            self._memory.write(self._buffer._seal().writable(self), self._composed())

    def _composed(self) -> NDArray[Any]:
        assert self._parts is not None
        g, v = self._parts
        return norms.compose(v._current(), g._current(), self.dim)

    def _current(self) -> NDArray[Any]:
        """The value on the host, laid out or not; not to be written."""
        if self._buffer.is_sealed:
            return self._memory.read(self.value)
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
        if not self._memory.is_host:
            raise ValueError(f"{self.name!r} is on {self.device}; a NumPy array needs a copy")
        view: NDArray[Any] = self.value
        return view

    def __dlpack__(self, **options: Any) -> Any:
        return self._memory.capsule(self.value, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._memory.dlpack_device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._memory.interface(self.value)  # an AttributeError on the CPU

    # --- gradients

    @property
    def grad(self) -> NDArray[Any]:
        """View of the gradient. Assigning copies in and makes it present; None makes it absent.

        With weight norm it is dL/dw. Those of `weight_g` and `weight_v` are computed when read; they are
        read-only.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})["w"]
        >>> w.grad = 2 * w.value
        >>> w.grad += 1
        >>> w.grad
        array([3., 5.])
        """
        view: NDArray[Any] = (
            self._both()[1] if self._parent is None else self._memory.upload(self._computed_grad())
        )
        return view

    @grad.setter
    def grad(self, array: Any) -> None:
        if array is None:
            self.clear_grad(set_to_zero=False)
            return
        if self._parent is not None:
            raise ParameterError(
                f"the gradient of {self.name!r} is computed; write dL/dw to {self._parent.name!r}"
            )
        values = as_values(self._memory, array, f"gradient of {self.name!r}", self.dtype, self.shape)
        self._memory.write(self.grad, values)
        self._set_columns(t.ATTRIBUTE_PRESENT, 1.0)

    def _current_grad(self) -> NDArray[Any]:
        """The gradient on the host; not to be written."""
        return self._memory.read(self.grad) if self._parent is None else self._computed_grad()

    def _computed_grad(self) -> NDArray[Any]:
        parent = self._parent
        assert parent is not None
        assert parent._parts is not None
        g, v = parent._parts
        dv, dg = norms.backward(v._current(), g._current(), parent._current_grad(), parent.dim)
        grad = dv if self._role == "direction" else dg
        grad.flags.writeable = False
        return grad

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Fill the gradient with zeros.

        Parameters
        ----------
        set_to_zero : bool
            False also marks it absent: steps skip the parameter until its gradient is written again.

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
        self._memory.clear((self._parent or self).grad)
        if not keep:
            (self._parent or self)._set_columns(t.ATTRIBUTE_PRESENT, 0.0)

    @property
    def has_grad(self) -> bool:
        """Whether the gradient is present; a step skips a parameter whose gradient is absent.

        What is written into the view makes it present too, from the next step on.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> w.grad = None
        >>> w.has_grad
        False
        >>> w.grad = [0.0]
        >>> w.has_grad
        True
        """
        return bool(self._column(t.ATTRIBUTE_PRESENT))


def _of_buffer(buffer: ParameterBuffer, name: str) -> Parameter:
    return buffer[name]
