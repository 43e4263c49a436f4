"""Checks of what a schedule is made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

from nbopt._validation import as_integer, as_number, nearest
from nbopt.errors import HyperparameterError

__all__ = ["as_choice", "as_epoch", "as_function", "as_increasing", "as_list", "as_rate"]


def as_rate(value: Any, name: str) -> float:
    """A learning rate: finite and >= 0."""
    if type(value) is float and 0.0 <= value < math.inf:  # as of most steps
        return value
    return as_number(value, name, low=0.0)


def as_epoch(value: Any, name: str, low: int = 0) -> int:
    """A step number that fits an int64."""
    if type(value) is int and low <= value < 2**63:  # as of most steps
        return value
    epoch = as_integer(value, name, low=low)
    if epoch >= 2**63:
        raise HyperparameterError(f"{name} must be < 2**63, got {epoch}")
    return epoch


def as_function(value: Any, name: str) -> Callable[[int], Any]:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function of a step number, got {type(value).__name__} {value!r}")
    function: Callable[[int], Any] = value
    return function


def as_choice(value: Any, name: str, legal: Iterable[str]) -> str:
    """One of some words."""
    legal = list(legal)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(legal)}, got {type(value).__name__} {value!r}")
    if value not in legal:
        raise HyperparameterError(f"{name} {value!r} is unknown; {nearest(value, legal)}")
    return value


def as_list(values: Any, name: str, items: str) -> list[Any]:
    """Several values in an order."""
    if isinstance(values, (str, bytes, set, frozenset, dict)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of {items}, got {type(values).__name__} {values!r}")
    return list(values)


def as_increasing(values: Any, name: str) -> tuple[int, ...]:
    """Step numbers, each larger than the one before."""
    items = as_list(values, name, "integers")
    numbers = tuple(as_epoch(value, f"{name}[{i}]") for i, value in enumerate(items))
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise HyperparameterError(f"{name} must increase from each to the next, got {list(numbers)}")
    return numbers
