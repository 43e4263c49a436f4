"""An attribute of any Python object that is composed of two others whenever it is read.

While an object has such attributes, its class is a derived one that looks like the original and differs in
one thing: a data descriptor stands for each of them. The derived class adds nothing to the instances, so the
class of an object can be exchanged and restored. `pickle` and `copy` make an object of the original class
and exchange its class afterwards, in whatever process that is.
"""

from __future__ import annotations

import operator
import os
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import ParameterError

__all__ = ["Hook", "as_dim", "as_weight", "attach", "detach", "find", "kind", "refuse_array"]

_HOOKS = "_weight_norm_hooks"  # of a derived class: its hooks, sorted by name
_EXCHANGE = threading.RLock()  # held while an object changes its class


def _free_in_child() -> None:
    """After a fork, the thread that held the lock is gone."""
    global _EXCHANGE
    _EXCHANGE = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


@dataclass(frozen=True)
class Hook:
    """What composes one attribute, `<name>`, of `<name>_g` and `<name>_v`.

    A subclass says what the `dim` and the epsilon of a library mean. Norms have the rank of v.
    """

    name: str
    dim: int | None

    _slot: ClassVar[str | None] = None  # the attribute under which an object shows its hook

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, got {kind(self.name)} {self.name!r}")

    def _norms(self, v: NDArray[Any]) -> NDArray[np.float64]:
        """Return |v|, with size 1 on the reduced axes."""
        raise NotImplementedError

    def _scaled(self, v: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        """Return g v/|v|, without an epsilon."""
        raise NotImplementedError

    def _divisors(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what v is divided by, at least |v|."""
        raise NotImplementedError

    def _magnitudes(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the first g."""
        raise NotImplementedError

    def _magnitude_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of g for norms of a shape."""
        return shape

    def _compute(self, module: Any) -> NDArray[Any]:
        """Return the composed weight of an object, a new array."""
        v = as_weight(module, f"{self.name}_v", getattr(module, f"{self.name}_v"))
        g = _as_real(module, f"{self.name}_g", getattr(module, f"{self.name}_g"))
        norms = self._norms(v)
        shape = self._magnitude_shape(norms.shape)
        if g.shape != shape:
            raise ParameterError(
                f"{self.name}_g of {kind(module)} has shape {g.shape}, but {shape} is needed: "
                f"{self.name}_v has shape {v.shape}"
            )
        g = g.reshape(norms.shape)
        divisors = self._divisors(norms)
        with np.errstate(all="ignore"):
            scale = np.where(norms < divisors, g * (norms / divisors), g).astype(v.dtype)
            unscaled = g == divisors.astype(v.dtype)
        w = self._scaled(v, scale)
        np.copyto(w, v, where=unscaled)  # g is |v| as far as the dtype can tell: keep the bits of v
        return w

    def _store(self, module: Any, weight: NDArray[Any]) -> None:
        """Let v be the weight and g its norm, in the arrays that are there if they fit."""
        magnitudes = self._magnitudes(self._norms(weight))
        with np.errstate(over="ignore"):
            g = magnitudes.astype(weight.dtype)
        if np.isinf(g).any() and np.isfinite(weight).all():
            raise ParameterError(
                f"{self.name} of {kind(module)}: a norm of its slices exceeds the range of {weight.dtype}"
            )
        for part, value in (("v", weight), ("g", g.reshape(self._magnitude_shape(g.shape)))):
            there = getattr(module, f"{self.name}_{part}", None)
            if isinstance(there, np.ndarray) and there.flags.writeable and _alike(there, value):
                there[...] = value  # it may be a view into a buffer
            else:
                setattr(module, f"{self.name}_{part}", np.array(value, order="C"))


class _Composed:
    """The descriptor of a normed attribute."""

    def __init__(self, hook: Hook):
        self.hook = hook

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        name = self.hook.name
        try:
            w = self.hook._compute(module)
        except AttributeError:
            with _EXCHANGE:
                if find(module, name) is None:  # removed while it was read
                    return getattr(module, name)
                self._take_in(module)
                w = self.hook._compute(module)
        w.flags.writeable = False  # what is written into it would be lost
        return w

    def _take_in(self, module: Any) -> None:
        """Split a weight that pickle has put among the attributes."""
        name = self.hook.name
        if name in vars(module) and not hasattr(module, f"{name}_v"):
            self.hook._store(module, as_weight(module, name, vars(module).pop(name)))

    def __set__(self, module: Any, value: Any) -> None:
        name = self.hook.name
        self._take_in(module)
        v = getattr(module, f"{name}_v", None)
        if v is None:  # an instance that is being made
            self.hook._store(module, as_weight(module, name, value))
            return
        weight = _as_real(module, name, value)
        if weight.shape != v.shape:
            raise ParameterError(
                f"{name} of {kind(module)} has weight norm and keeps its shape {v.shape}, got "
                f"{weight.shape}; remove weight norm first"
            )
        self.hook._store(module, weight.astype(v.dtype))

    def __delete__(self, module: Any) -> None:
        raise AttributeError(
            f"{self.hook.name} of {kind(module)} has weight norm: remove that, then the attribute"
        )


# --- objects and their classes


def attach(module: Any, hook: Hook) -> None:
    """Put an attribute of an object, which has it, under a hook."""
    name = hook.name
    if isinstance(module, (type, types.ModuleType)) or not hasattr(module, "__dict__"):
        raise TypeError(
            f"weight norm needs an object that can take new attributes, got {kind(module)}; classes, modules "
            f"and objects with __slots__ alone cannot"
        )
    with _EXCHANGE:
        cls = type(module)
        if find(module, name) is not None:
            raise RuntimeError(f"cannot register two weight_norm hooks on the same attribute {name!r}")
        if name not in vars(module):
            raise TypeError(
                f"{name} of {kind(module)} is a property, a slot or an attribute of the class; weight norm "
                f"needs an attribute of the object itself"
            )
        if any(name in (f"{other.name}_v", f"{other.name}_g") for other in _hooks(cls)):
            raise ParameterError(f"{name} of {kind(module)} is itself a part of weight norm")
        for part in (f"{name}_v", f"{name}_g"):
            if hasattr(module, part):
                raise ParameterError(
                    f"{kind(module)} has an attribute {part}, which weight norm would overwrite"
                )
        weight = as_weight(module, name, vars(module)[name])
        derived = _derive(cls, (*_hooks(cls), hook))
        # In this order a reader in another thread finds the weight at every moment.
        try:
            hook._store(module, weight)
            _become(module, derived)
        except BaseException:
            for part in (f"{name}_v", f"{name}_g"):
                vars(module).pop(part, None)
            raise
        vars(module).pop(name)


def detach(module: Any, hook: Hook) -> None:
    """Make a plain array of a composed attribute, and give the object its class back."""
    with _EXCHANGE:
        vars(module)[hook.name] = np.array(getattr(module, hook.name))
        rest = tuple(other for other in _hooks(type(module)) if other != hook)
        _become(module, _derive(type(module), rest))
        for part in (f"{hook.name}_v", f"{hook.name}_g"):
            delattr(module, part)


def find(module: Any, name: str) -> Hook | None:
    """Return the hook of an attribute."""
    return next((hook for hook in _hooks(type(module)) if hook.name == name), None)


def _hooks(cls: type) -> tuple[Hook, ...]:
    hooks: tuple[Hook, ...] = vars(cls).get(_HOOKS, ())
    return hooks


def _derive(cls: type, hooks: tuple[Hook, ...]) -> type:
    """Return the class of objects of `cls`, derived or not, under these hooks and no others."""
    base = cls.__bases__[0] if _hooks(cls) else cls
    if not hooks:
        return base
    hooks = tuple(sorted(hooks, key=lambda hook: hook.name))
    known: type
    for known in type.__subclasses__(base):  # equal objects have one class, which ends with them
        if _hooks(known) == hooks:
            return known

    def fill(namespace: dict[str, Any]) -> None:
        namespace |= {key: getattr(base, key) for key in ("__module__", "__qualname__", "__doc__")}
        namespace |= {"__slots__": (), "__reduce_ex__": _reduce_ex, _HOOKS: hooks}
        namespace |= {hook.name: _Composed(hook) for hook in hooks}
        namespace |= {hook._slot: hook for hook in hooks if hook._slot}

    return types.new_class(base.__name__, (base,), {}, fill)


def _become(module: Any, cls: type) -> None:
    try:
        object.__setattr__(module, "__class__", cls)
    except TypeError as cause:
        raise TypeError(
            f"weight norm needs an object whose class is written in Python, got {kind(module)}: derive a "
            f"class from it"
        ) from cause


def _reduce_ex(self: Any, protocol: Any) -> str | tuple[Any, ...]:
    """Reduce to an object of the original class that takes its hooks back."""
    cls: type[Any] = next(part for part in type(self).__mro__ if _hooks(part))
    base = _derive(cls, ())
    reduced: str | tuple[Any, ...] = super(cls, self).__reduce_ex__(protocol)
    if isinstance(reduced, str) or cls is not type(self):  # somebody derived a class from the derived one
        return reduced
    make, args, *state = reduced
    plain = (base if part is cls else part for part in (make, *args))
    return _rebuild, (_hooks(cls), *plain), *state


def _rebuild(hooks: tuple[Hook, ...], make: Callable[..., Any], *args: Any) -> Any:
    module = make(*args)
    _become(module, _derive(type(module), hooks))
    return module


# --- values


def refuse_array(module: Any) -> None:
    """Say where weight norm of an array is, if that is what was given in place of an object."""
    if type(module) in (np.ndarray, list, tuple):
        raise TypeError(
            f"weight_norm of nbopt.compat takes an object and the name of its attribute, got {kind(module)}; "
            f"for arrays see nbopt.weight_norm(v, g, dim)"
        )


def kind(value: Any) -> str:
    """Return the name of the class of a value, for messages."""
    return type(value).__name__


def as_dim(dim: Any) -> int:
    """Return `dim` as an int; bool is none."""
    if isinstance(dim, (bool, np.bool_)):
        raise TypeError(f"dim must be an integer or None, got {dim!r}")
    try:
        return operator.index(dim)
    except TypeError:
        raise TypeError(f"dim must be an integer or None, got {kind(dim)} {dim!r}") from None


def as_weight(module: Any, name: str, value: Any) -> NDArray[Any]:
    """Return the value of an attribute that is to be composed, or of its v."""
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float64):
        got = f"{kind(value)} of {value.dtype}" if isinstance(value, np.ndarray) else kind(value)
        raise TypeError(
            f"{name} of {kind(module)} must be a NumPy array of float32 or float64 to have weight norm, "
            f"got {got}"
        )
    if not value.ndim:
        raise ParameterError(f"{name} of {kind(module)} must have at least one axis to have weight norm")
    return np.asarray(value)


def _as_real(module: Any, name: str, value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} of {kind(module)} must hold real numbers, got {array.dtype}")
    return array


def _alike(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return (a.shape, a.dtype) == (b.shape, b.dtype)
