"""What an average remembers, as a flat dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import NboptError, StateDictError
from nbopt.kernels import averages
from nbopt.kernels import tables as t

if TYPE_CHECKING:
    from nbopt.averaging.base import Average

__all__ = ["get", "put"]


def _views(average: Average, s: int) -> dict[str, NDArray[Any]]:
    """The arrays of one segment by name, not copied."""
    layout = average._storage.layout
    begin = int(layout.segments[s, t.SEGMENT_START])
    end = begin + int(layout.segments[s, t.SEGMENT_SIZE])
    rows = zip(average._rows, average._sums, strict=True)
    return {name: row[begin:end].reshape(layout.shapes[s]) for name, row in rows}


def _members(average: Average) -> dict[str, int]:
    """The segments that it was given, by name."""
    found = np.flatnonzero(average._counts[:, averages.COUNT_MEMBER])
    return {average._storage.layout.names[s]: int(s) for s in found}


def get(average: Average) -> dict[str, Any]:
    """Return the state dictionary."""
    result: dict[str, Any] = {}
    for part, s in _members(average).items():
        result |= {f"{part}.{name}": view.copy() for name, view in _views(average, s).items()}
        result |= {f"{part}.{name}": number for name, number in average._numbers(s).items()}
    return result


def put(average: Average, saved: Mapping[str, Any], strict: bool) -> None:
    """Fill in a state dictionary, after checking all of it."""
    if not isinstance(saved, Mapping):
        raise TypeError(f"state_dict must be a dictionary, got {type(saved).__name__}")
    problems: list[str] = []
    arrays: list[tuple[NDArray[Any], NDArray[Any]]] = []
    numbers: dict[int, dict[str, Any]] = {}
    legal: dict[str, None] = {}
    for part, s in _members(average).items():
        views = _views(average, s)
        for name in [*views, *average._numbers(s)]:
            key = f"{part}.{name}"
            legal[key] = None
            if key not in saved:
                continue
            try:
                if name in views:
                    arrays.append((views[name], _as_array(key, saved[key], views[name])))
                else:
                    checked = average._checked_number(name, saved[key], key)
                    numbers.setdefault(s, {})[name] = checked
            except (NboptError, TypeError) as error:
                problems.append(str(error))
    if strict:
        missing = [key for key in legal if key not in saved]
        unexpected = [key for key in saved if key not in legal]
        if missing:
            problems.append(f"missing: {', '.join(missing)}")
        if unexpected:
            problems.append(f"unexpected: {', '.join(map(str, unexpected))}")
    if problems:
        raise StateDictError(
            f"the state dictionary does not fit this {type(average).__name__}; nothing was changed:\n  "
            + "\n  ".join(problems)
        )
    for view, values in arrays:
        np.copyto(view, values)
    for s, found in numbers.items():
        average._set_numbers(s, found)


def _as_array(key: str, value: Any, view: NDArray[Any]) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise StateDictError(f"{key}: no array of numbers ({error})") from error
    if array.dtype != view.dtype or array.shape != view.shape:
        raise StateDictError(
            f"{key}: got {array.dtype} of shape {array.shape}, need {view.dtype} of shape {view.shape}"
        )
    return array
