"""Checks of a state dictionary: what of it does not fit what is to be filled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt._validation import as_array
from nbopt.errors import StateDictError

__all__ = ["as_mapping", "as_saved_array", "misfits", "refuse"]


def as_mapping(saved: Any) -> Mapping[Any, Any]:
    """Return what is a mapping, or say that it is none."""
    if not isinstance(saved, Mapping):
        raise TypeError(f"state_dict must be a dictionary, got {type(saved).__name__}")
    return saved


def misfits(saved: Collection[Any], legal: Collection[str]) -> list[str]:
    """Name the keys that are missing, and those that are unexpected.

    Examples
    --------
    >>> from nbopt._state_dict import misfits
    >>> misfits({"w.velocity": 0.0, "x": 1}, ["w.velocity", "w.step", "rule"])
    ['missing: w.step, rule', 'unexpected: x']
    """
    found = {
        "missing": [key for key in legal if key not in saved],
        "unexpected": [str(key) for key in saved if key not in legal],
    }
    return [f"{word}: {', '.join(keys)}" for word, keys in found.items() if keys]


def as_saved_array(value: Any, key: str, dtype: np.dtype[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return an array that has the dtype and the shape, or say what it has."""
    array = as_array(value, key, StateDictError)
    if array.dtype != dtype or array.shape != tuple(shape):
        raise StateDictError(
            f"{key}: got {array.dtype} of shape {array.shape}, need {dtype} of shape {tuple(shape)}"
        )
    return array


def refuse(thing: object, problems: Sequence[str]) -> None:
    """Raise with all that does not fit an object, if anything does not."""
    if problems:
        raise StateDictError(
            f"the state dictionary does not fit this {type(thing).__name__}; nothing was changed:\n  "
            + "\n  ".join(problems)
        )
