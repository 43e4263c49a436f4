"""Calls that do not fit a signature: what was wrong, in the words of the other errors."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nbopt._validation import nearest

__all__ = ["check_calls", "show_as"]

F = TypeVar("F", bound=Callable[..., Any])


def check_calls(function: F, *, hints: Mapping[str, str] = types.MappingProxyType({})) -> F:
    """Let a function, or the constructor of a class, say which arguments are legal; a decorator.

    A call that fits costs one more frame; nothing is looked at before Python refuses it.

    Parameters
    ----------
    function : function or class
        A class is changed in place, if it has a constructor of its own.
    hints : mapping of str to str
        What to say of some unknown arguments, in place of the nearest legal ones.

    Examples
    --------
    >>> from nbopt._calls import check_calls
    >>> @check_calls
    ... def scale(values, factor=1.0): ...
    >>> scale([1.0], factr=2.0)
    Traceback (most recent call last):
        ...
    TypeError: scale got an unknown argument 'factr'; did you mean 'factor'? Legal keys: values, factor
    """
    if isinstance(function, type):
        if "__init__" in vars(function):
            type.__setattr__(function, "__init__", check_calls(vars(function)["__init__"], hints=hints))
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            misfit = _misfit(function, args, kwargs, hints)
            if misfit is None:
                raise
        raise TypeError(misfit)

    return call  # type: ignore[return-value]


def _misfit(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], hints: Mapping[str, str]
) -> str | None:
    """Say why a call does not fit the signature; None where it does."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        reason = str(error)
    else:
        return None
    label = function.__qualname__.removesuffix(".__init__")
    legal = {name: part for name, part in signature.parameters.items() if name not in ("self", "cls")}
    for key in kwargs:
        if key not in legal:
            return f"{label} got an unknown argument {key!r}; {hints.get(key) or nearest(key, legal)}"
    form = [
        name if part.default is part.empty and part.kind is not part.KEYWORD_ONLY else f"{name}=..."
        for name, part in legal.items()
    ]
    return f"{label}: {reason}; write {label}({', '.join(form)})"


def show_as(name: str, *parts: type) -> None:
    """Let the methods of the parts that a public class is made of go by its name in Python's own errors."""
    for part in parts:
        for member in vars(part).values():
            if isinstance(member, types.FunctionType):
                member.__qualname__ = f"{name}.{member.__name__}"
