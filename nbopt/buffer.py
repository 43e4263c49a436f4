"""The flat buffer that owns every parameter's value, gradient and attributes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt._calls import check_calls, show_as
from nbopt._validation import (
    as_array,
    as_flag,
    as_float_array,
    as_integer,
    as_name,
    as_shape,
    listed,
    nearest,
)
from nbopt.attr import DIM_MEANINGS, PLAIN, ParamAttr, WeightNormParamAttr, as_attr, differences
from nbopt.collection import ParameterCollection
from nbopt.errors import ParameterError
from nbopt.initializer import Constant, Initializer, XavierUniform
from nbopt.initializer.base import generator_of
from nbopt.initializer.everywhere import global_initializer
from nbopt.layout import magnitude_shape
from nbopt.memory import Array, find_memory
from nbopt.naming import check_free, matches
from nbopt.norms import initial_magnitude
from nbopt.parameter import Parameter
from nbopt.storage import Storage, as_dtype

__all__ = ["ParameterBuffer"]

_ZEROS, _XAVIER = Constant(0.0), XavierUniform()

# Two threads may ask for the first view at once.
_sealing = threading.RLock()


def _free_in_child() -> None:
    """After a fork, the thread that held the lock is gone."""
    global _sealing
    _sealing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


class ParameterBuffer(ParameterCollection):
    """Named parameters with their own policies, on one flat array.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Of every parameter.
    device : {"cpu", "cuda", "cuda:1", ..., "auto"}
        Where the arrays live. "cuda" is "cuda:0"; "auto" takes it where it can be used, and else the CPU.
    seed : int, optional
        Initial values depend on the seed and the parameter's name alone. None draws a seed.

    Raises
    ------
    TypeError, ParameterError, DeviceError
        If an argument is of a wrong type, out of range, or asks for a device that cannot be used.

    Attributes
    ----------
    dtype : numpy.dtype
    device : str
    seed : int

    Notes
    -----
    A mapping of names to parameters, in creation order. The names of the g and v of a weight-normed
    parameter find them too, but are neither counted nor listed.

    Storage is laid out once, when the first view is handed out or the first optimizer is built; after that
    no new name is accepted and no array ever moves.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer(dtype="float32", seed=0)
    >>> w = params.create_parameter([784, 128], name="fc.weight")
    >>> b = params.create_parameter([128], name="fc.bias", is_bias=True)
    >>> list(params), params["fc.bias"] is b
    (['fc.weight', 'fc.bias'], True)
    """

    @check_calls
    def __init__(self, dtype: Any = "float32", device: str = "cpu", seed: int | None = None):
        self.dtype = as_dtype(dtype)
        self._memory = find_memory(device)
        self.device = self._memory.device
        drawn = int.from_bytes(os.urandom(8), "little")
        self.seed = as_integer(drawn if seed is None else seed, "seed", low=0, error=ParameterError)
        self._parameters: dict[str, Parameter] = {}
        self._derived: dict[str, Parameter] = {}  # every v and g
        self._automatic = 0
        self._storage: Storage | None = None

    # --- mapping

    def __getitem__(self, name: str) -> Parameter:
        parameter: Parameter | None = self.get(name)
        if parameter is None:
            raise KeyError(f"no parameter {name!r}; {nearest(str(name), self._parameters)}")
        return parameter

    def __contains__(self, name: object) -> bool:
        return name in self._parameters or name in self._derived  # a KeyError looks for names alike

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return the parameter of a name, or a default where there is none.

        Parameters
        ----------
        name : str
        default : object

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> params.get("w"), params.get("b")
        (Parameter('w', shape=(1,), float64), None)
        """
        return self._parameters.get(name) or self._derived.get(name) or default

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        size = sum(p.size for p in self.values())
        return f"ParameterBuffer({len(self)} parameters, {size:,} elements, {self.dtype}, {self.device})"

    # --- creation

    @check_calls
    def create_parameter(
        self,
        shape: int | Iterable[int],
        name: str | None = None,
        attr: Any = None,
        is_bias: bool = False,
        default_initializer: Initializer | None = None,
    ) -> Parameter | None:
        """Declare a parameter.

        Parameters
        ----------
        shape : int or sequence of int
            An int is the size of a vector, ``[]`` the shape of a scalar.
        name : str, optional
            ``param_0``, ``param_1``, ... by default; `attr.name` wins.
        attr : None, bool, str, Initializer, Regularizer, ParamAttr or WeightNormParamAttr
            A name, an initializer or a regularizer stands for the `ParamAttr` that holds it, None and True
            for the default one. False asks for no parameter.
        is_bias : bool
            Chooses the initializer where none is given: ``Constant(0.0)``, and ``XavierUniform()`` for a
            weight.
        default_initializer : Initializer, optional
            Used where neither `attr` nor `set_global_initializer` gives one.

        Returns
        -------
        Parameter or None
            A name used before with the same shape returns the same parameter, if `attr` is None, only a
            name, or equal by value.

        Raises
        ------
        ParameterError
            If the name is taken with another shape or other attributes, or collides with a derived name; if a
            weight-normed slice starts at zero; if the name is new and the storage is laid out already.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer()
        >>> w = params.create_parameter([3], name="w", attr=nb.initializer.Constant(2.0))
        >>> params.create_parameter([3], name="w") is w
        True
        >>> params.create_parameter([3], attr=False) is None
        True
        """
        _check_order(shape, name)
        label = "a parameter" if name is None else f"parameter {as_name(name)!r}"
        record = as_attr(attr, f"attr of {label}")
        if record is None:
            return None
        as_flag(is_bias, f"is_bias of {label}")
        if default_initializer is not None and not isinstance(default_initializer, Initializer):
            raise TypeError(
                f"default_initializer of {label} must be an Initializer, got {default_initializer!r}"
            )
        full = record.name or name or self._automatic_name(isinstance(record, WeightNormParamAttr))
        sizes = as_shape(shape, full)
        known = self._parameters.get(full)
        if known is not None:
            bare = record.renamed(None)
            return self._shared(known, sizes, None if bare == PLAIN else bare)
        initializer = record.initializer or global_initializer(is_bias) or default_initializer
        if initializer is None:
            if is_bias and isinstance(record, WeightNormParamAttr) and 0 not in sizes:
                raise ParameterError(
                    f"parameter {full!r}: a bias starts at zero, which has no direction for weight norm; "
                    "give an initializer, or a plain ParamAttr"
                )
            initializer = _ZEROS if is_bias else _XAVIER
        return self._add(full, sizes, record.renamed(full), initializer)

    def _automatic_name(self, normed: bool) -> str:
        while True:
            name = f"param_{self._automatic}"
            try:
                check_free(name, normed, self._parameters, self._derived)
            except ParameterError:
                self._automatic += 1
            else:
                return name

    def _shared(self, known: Parameter, shape: tuple[int, ...], attr: ParamAttr | None) -> Parameter:
        if known.shape != shape:
            raise ParameterError(
                f"parameter {known.name!r} exists with shape {known.shape}, and cannot be shared with "
                f"shape {shape}; give the other one another name"
            )
        if attr is not None and attr != known.attr.renamed(None):
            here, there = differences(known.attr.renamed(None), attr)
            raise ParameterError(
                f"parameter {known.name!r} exists with {here}, which conflicts with {there}; share it with "
                "attr=None or equal attributes"
            )
        return known

    def _add(
        self,
        name: str,
        shape: tuple[int, ...],
        attr: ParamAttr,
        initial: Initializer | NDArray[Any],
    ) -> Parameter:
        if self.is_sealed:
            raise ParameterError(
                f"parameter {name!r} comes too late: the buffer was laid out when the first view or "
                "optimizer was made; create every parameter before the first .value, .grad or optimizer. "
                "A new buffer from ParameterBuffer.from_arrays(params.numpy(), attrs=...) carries the values "
                "over, but neither policies nor velocities"
            )
        normed = isinstance(attr, WeightNormParamAttr)
        dim = attr.dim if isinstance(attr, WeightNormParamAttr) else None
        check_free(name, normed, self._parameters, self._derived)
        if dim is not None and dim >= len(shape):
            raise ParameterError(f"parameter {name!r} of shape {shape} has no axis dim={dim}. {DIM_MEANINGS}")
        if isinstance(initial, Initializer):
            initial = self._drawn(name, shape, initial)
        values = as_float_array(initial, f"initial value of {name!r}", self.dtype, shape)
        values = np.array(values, order="C")
        if not normed:
            parameter = Parameter(self, name, shape, attr, "plain", values)
        else:
            parameter = Parameter(self, name, shape, attr, "normed")
            magnitude = initial_magnitude(values, dim, name)
            shape_of_g = magnitude_shape(shape, dim)
            parameter._parts = (
                Parameter(self, f"{name}_g", shape_of_g, attr, "magnitude", magnitude, parameter),
                Parameter(self, f"{name}_v", shape, attr, "direction", values, parameter),
            )
            self._derived.update({part.name: part for part in parameter._parts})
        self._parameters[name] = parameter
        return parameter

    def _drawn(self, name: str, shape: tuple[int, ...], initializer: Initializer) -> NDArray[np.float64]:
        try:
            return initializer.draw(shape, generator_of(self.seed, name))
        except ParameterError as error:
            raise ParameterError(f"parameter {name!r}: {error}") from error

    @classmethod
    @check_calls
    def from_arrays(
        cls,
        arrays: Mapping[str, ArrayLike],
        attrs: Mapping[str, Any] | None = None,
        dtype: Any = None,
        device: str = "cpu",
    ) -> ParameterBuffer:
        """Build a buffer from values, which are copied in.

        Parameters
        ----------
        arrays : mapping of str to array_like
            Values by name, in creation order.
        attrs : mapping of str to attr, optional
            Attributes by `fnmatch` pattern, as `create_parameter` takes them; False leaves the arrays out. Of
            several patterns that match a name the last is used, whole.
        dtype : {"float32", "float64"}, optional
            By default float32 if every array is (or is narrower), else float64.
        device : {"cpu", "cuda", "cuda:1", ..., "auto"}

        Returns
        -------
        ParameterBuffer

        Raises
        ------
        TypeError, ParameterError
            If an array or an attribute cannot be used, or a pattern matches no array.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays(
        ...     {"a.weight": [[1.0]], "a.bias": [0.0], "a.seen": [7.0]},
        ...     attrs={"*.bias": nb.ParamAttr(need_clip=False), "*.seen": False},
        ... )
        >>> list(params), params["a.bias"].need_clip
        (['a.weight', 'a.bias'], False)
        """
        if not isinstance(arrays, Mapping):
            raise TypeError(f"arrays must be a mapping of names to arrays, got {type(arrays).__name__}")
        if not isinstance(attrs, Mapping | None):
            raise TypeError(
                f"attrs must be a mapping of patterns to attributes, got {type(attrs).__name__}; write "
                "attrs={'*': attr} for one that all shall have"
            )
        values = {}
        for name, array in arrays.items():
            values[as_name(name)] = as_array(array, f"array {name!r}")
            if values[name].dtype.kind not in "iuf":
                raise TypeError(f"array {name!r} must hold real numbers, got dtype {values[name].dtype}")
        if dtype is None:
            single = all(np.can_cast(a.dtype, np.float32) for a in values.values())
            dtype = np.float32 if single and values else np.float64
        records: dict[str, ParamAttr | None] = dict.fromkeys(values, PLAIN)
        for pattern, attr in (attrs or {}).items():
            record = as_attr(attr, f"attribute of pattern {as_name(pattern, 'attribute pattern')!r}")
            matching = matches(values, pattern)
            if not matching:
                raise ParameterError(f"attribute pattern {pattern!r} matches no array: {listed(values)}")
            records.update(dict.fromkeys(matching, record))
        buffer = cls(dtype=dtype, device=device, seed=0)
        for name, record in records.items():
            if record is not None:
                buffer._add(name, values[name].shape, record.renamed(name), values[name])
        return buffer

    # --- storage

    @property
    def is_sealed(self) -> bool:
        """Whether the storage is laid out; after that no new name is accepted.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> params.is_sealed, params["w"].value, params.is_sealed
        (False, array([1.]), True)
        """
        return self._storage is not None

    def _seal(self) -> Storage:
        """Lay out the storage, once."""
        if self._storage is None:
            with _sealing:
                if self._storage is None:
                    self._storage = Storage(self._parameters, self.dtype, self._memory)
        return self._storage

    def owns(self, array: Array) -> bool:
        """Whether an array may be a view of this buffer.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> params.owns(params["w"].value), params.owns(params["w"].numpy())
        (True, False)
        """
        storage = self._storage
        return storage is not None and (
            self._memory.overlaps(array, storage.data) or self._memory.overlaps(array, storage.grad)
        )

    # --- pickling and copying

    def __getstate__(self) -> dict[str, Any]:
        parts = [(p.name, p.shape, p.attr) for p in self.values()]
        moved = [part for p in self.values() for part in p._moved]
        state: dict[str, Any] = {
            "config": (self.dtype.name, self.device, self.seed, self._automatic),
            "parameters": parts,
            "rows": [np.array(part._row[:]) for part in moved],
            "sealed": self.is_sealed,
        }
        if self._storage is not None:
            state["data"] = self._memory.read(self._storage.data)
            state["grad"] = self._memory.read(self._storage.grad)
        else:
            state["initial"] = [part._initial for part in moved]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype, device, seed, automatic = state["config"]
        ParameterBuffer.__init__(self, dtype, device, seed)
        self._automatic = automatic
        for name, shape, attr in state["parameters"]:
            # Any direction will do: the values follow.
            self._add(name, shape, attr, np.ones(shape, self.dtype))
        moved = [part for p in self.values() for part in p._moved]
        for part, row in zip(moved, state["rows"], strict=True):
            part._row = row.copy()
        if state["sealed"]:
            storage = self._seal()
            self._memory.write(storage.data, state["data"])
            self._memory.write(storage.grad, state["grad"])
        else:
            for part, values in zip(moved, state["initial"], strict=True):
                part._initial = values.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> ParameterBuffer:
        reduced: Any = self.__reduce_ex__(4)
        make, args, state = reduced[:3]
        twin: ParameterBuffer = memo.setdefault(id(self), make(*args))
        twin.__setstate__(state)  # which copies all that may change
        return twin


show_as("ParameterBuffer", ParameterCollection)


def _check_order(shape: Any, name: Any) -> None:
    """Refuse a shape given as several arguments, and a name in its place."""
    if name is not None and not isinstance(name, str) and isinstance(shape, int | str):
        form = f"[{shape}, {name}]" if isinstance(shape, int) else f"{name}, name={shape!r}"
        raise TypeError(
            f"name must be a string, got {type(name).__name__} {name!r}; the shape comes first, as one "
            f"argument: create_parameter({form})"
        )
