"""Pytrees of JAX, nested dictionaries and dataclasses by names: reached as ``nbopt.jax``.

The arrays of JAX do not change, so values are copied in and out.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import nbopt as nb
from nbopt.errors import ParameterError
from nbopt.interop.patterns import is_left_out

try:
    import jax
except ModuleNotFoundError:
    jax = None

__all__ = ["from_pytree", "set_grads", "to_pytree"]


def from_pytree(
    tree: Any, attrs: Mapping[str, Any] | None = None, dtype: Any = None, device: str = "cpu"
) -> nb.ParameterBuffer:
    """Build a buffer from the leaves of a tree, which are copied in.

    Parameters
    ----------
    tree : pytree
        Dictionaries, lists, tuples, named tuples, dataclasses and whatever is registered with JAX, of
        floating-point arrays and numbers. None is a branch without leaves. Without JAX the plain ones work.
    attrs : mapping of str to attr, optional
        As in `ParameterBuffer.from_arrays`, by patterns of names; False leaves leaves out.
    dtype : {"float32", "float64"}, optional
        By default float32 if every leaf is (or is narrower), else float64.
    device : {"cpu", "cuda", "cuda:1", ..., "auto"}

    Returns
    -------
    ParameterBuffer
        Parameters in the order of JAX: keys of dictionaries sorted. A name is the path with dots between its
        keys, as in ``layers.0.weight``.

    Raises
    ------
    TypeError, ParameterError
        If a leaf is no array of floats, or two paths have one name.

    Examples
    --------
    >>> import numpy as np
    >>> import nbopt as nb
    >>> tree = {"layers": [{"w": np.ones((2, 3)), "b": np.zeros(3)}], "scale": 1.0}
    >>> params = nb.jax.from_pytree(tree, attrs={"*.b": nb.ParamAttr(learning_rate=2.0)})
    >>> list(params), params["layers.0.b"].learning_rate
    (['layers.0.b', 'layers.0.w', 'scale'], 2.0)
    """
    arrays = {  # what is left out has a name that patterns must find, and may be anything
        name: np.float32(0.0) if is_left_out(name, attrs) else _as_floats(name, leaf)
        for name, leaf in _named(tree).items()
    }
    return nb.ParameterBuffer.from_arrays(arrays, attrs, dtype, device)


def to_pytree(params: nb.ParameterBuffer, like: Any) -> Any:
    """Return a tree with the values of the parameters.

    Parameters
    ----------
    params : ParameterBuffer
    like : pytree
        Has the structure; it is not changed. A leaf that no parameter is named after stays as it is. The
        others give shape, dtype and kind: arrays of JAX, on their device, for those and for
        ``jax.ShapeDtypeStruct``, else arrays of NumPy.

    Returns
    -------
    pytree
        Its arrays are copies.

    Raises
    ------
    ParameterError
        If a parameter has no leaf, or one of another shape.
    TypeError
        If its leaf is no array of floats, and so could not take the value.

    Examples
    --------
    >>> import numpy as np
    >>> import nbopt as nb
    >>> tree = {"w": np.ones(2), "b": np.zeros(1)}
    >>> params = nb.jax.from_pytree(tree)
    >>> params["w"].value *= 3
    >>> nb.jax.to_pytree(params, tree)
    {'w': array([3., 3.]), 'b': array([0.])}
    """
    leaves = _named(like)
    missing = [name for name in params if name not in leaves]
    if missing:
        there = ", ".join(leaves)
        raise ParameterError(f"the tree has no leaf for parameter {missing[0]!r}; it has: {there}")
    for name, parameter in params.items():
        _check_floats(name, leaves[name])
        if np.shape(leaves[name]) != parameter.shape:
            raise ParameterError(
                f"leaf {name!r} has shape {np.shape(leaves[name])}, but the parameter {parameter.shape}"
            )
    filled = [_like(params[name].numpy(), leaf) if name in params else leaf for name, leaf in leaves.items()]
    return _rebuilt(like, iter(filled))


def set_grads(params: nb.ParameterBuffer, grads: Any) -> None:
    """Copy gradients in, from a tree with the structure of the parameters'.

    Parameters
    ----------
    params : ParameterBuffer
    grads : pytree
        As ``jax.grad`` returns it. Parameters that have no leaf, or None in its place, become absent: steps
        skip them.

    Raises
    ------
    ParameterError
        If a leaf belongs to no parameter, or has another shape; nothing was changed.

    Examples
    --------
    >>> import numpy as np
    >>> import nbopt as nb
    >>> params = nb.jax.from_pytree({"w": np.ones(2), "b": np.zeros(1)})
    >>> nb.jax.set_grads(params, {"w": np.array([0.5, 0.25]), "b": None})
    >>> params["w"].grad, params["b"].has_grad
    (array([0.5 , 0.25]), False)
    """
    leaves = {name: _as_floats(name, leaf) for name, leaf in _named(grads).items()}
    params.set_grads({**dict.fromkeys(params), **leaves})


def _named(tree: Any) -> dict[str, Any]:
    """Return the leaves by their names."""
    leaves: dict[str, Any] = {}
    for path, leaf in _leaves(tree, ()):
        name = ".".join(path)
        if not name:
            raise TypeError(
                f"a tree of parameters has keys, got a single {type(leaf).__name__}; write {{'x': leaf}}"
            )
        if name in leaves:
            raise ParameterError(f"two paths of the tree have the name {name!r}; rename a key that has a dot")
        leaves[name] = leaf
    return leaves


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    branch = _branch(node)
    if branch is None:
        yield path, node
        return
    keys, children, _ = branch
    for key, child in zip(keys, children, strict=True):
        yield from _leaves(child, (*path, key))


def _rebuilt(node: Any, leaves: Iterator[Any]) -> Any:
    """Return a copy of a tree, its leaves replaced in order."""
    branch = _branch(node)
    if branch is None:
        return next(leaves)
    _, children, make = branch
    return make([_rebuilt(child, leaves) for child in children])


_Branch = tuple[list[str], Sequence[Any], Callable[[list[Any]], Any]]


def _branch(node: Any) -> _Branch | None:
    """Return keys, children, and what makes such a node of new children; None of a leaf."""
    if node is None:
        return [], [], lambda _: None
    if type(node) is dict:
        keys = _sorted(node)
        return [*map(str, keys)], [node[key] for key in keys], lambda new: _as_dict(node, keys, new)
    if type(node) in (list, tuple):
        return [*map(str, range(len(node)))], node, type(node)
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(node._fields), node, lambda new: type(node)(*new)
    if jax is not None:
        pairs, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
        if not jax.tree_util.treedef_is_leaf(structure):
            return [_key(path[0]) for path, _ in pairs], [child for _, child in pairs], structure.unflatten
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        keys = [field.name for field in dataclasses.fields(node)]
        return keys, [getattr(node, key) for key in keys], lambda new: _as_dataclass(node, keys, new)
    return None


def _key(entry: Any) -> str:
    """Return the key, index or attribute that an entry of a path of JAX stands for."""
    found = (getattr(entry, what) for what in ("key", "idx", "name") if hasattr(entry, what))
    return str(next(found, entry))


def _sorted(keys: Mapping[Any, Any]) -> list[Any]:
    try:
        return sorted(keys)
    except TypeError as error:
        raise TypeError(f"keys of a dictionary in a tree must be of one kind, got {list(keys)!r}") from error


def _as_dict(node: dict[Any, Any], keys: list[Any], children: list[Any]) -> dict[Any, Any]:
    values = dict(zip(keys, children, strict=True))
    return {key: values[key] for key in node}


def _as_dataclass(node: Any, keys: list[str], children: list[Any]) -> Any:
    made = copy.copy(node)
    for key, child in zip(keys, children, strict=True):
        object.__setattr__(made, key, child)  # of a frozen one too
    return made


def _as_floats(name: str, leaf: Any) -> Any:
    _check_floats(name, leaf)
    return np.asarray(leaf)


def _check_floats(name: str, leaf: Any) -> None:
    dtype = getattr(leaf, "dtype", type(leaf))
    if dtype is not float and (not isinstance(dtype, np.dtype) or dtype.kind != "f"):
        raise TypeError(
            f"leaf {name!r} is {dtype.__name__ if isinstance(dtype, type) else dtype}; parameters and their "
            "gradients are float32 or float64. Cast it, put None in its place, or leave it out with "
            f"attrs={{{name!r}: False}}"
        )


def _like(value: np.ndarray[Any, Any], leaf: Any) -> Any:
    if isinstance(leaf, float):
        return float(value)
    value = value.astype(leaf.dtype, copy=False)
    if jax is not None and isinstance(leaf, jax.Array):
        return jax.device_put(value, leaf.sharding)
    if jax is not None and isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.numpy.asarray(value)
    return value
