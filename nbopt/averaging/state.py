"""What an average remembers, as a flat dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbopt._state_dict import as_mapping, as_saved_array, misfits, refuse
from nbopt.errors import NboptError
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
    as_mapping(saved)
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
                    view = views[name]
                    arrays.append((view, as_saved_array(saved[key], key, view.dtype, view.shape)))
                else:
                    checked = average._checked_number(name, saved[key], key)
                    numbers.setdefault(s, {})[name] = checked
            except (NboptError, TypeError) as error:
                problems.append(str(error))
    refuse(average, [*(misfits(saved, legal) if strict else []), *problems])
    for view, values in arrays:
        np.copyto(view, values)
    for s, found in numbers.items():
        average._set_numbers(s, found)
