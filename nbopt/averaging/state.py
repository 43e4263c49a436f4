"""What an average remembers, as a flat dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbopt._state_dict import as_mapping, as_saved_array, misfits, refuse
from nbopt.errors import NboptError, StateDictError
from nbopt.kernels import averages
from nbopt.kernels import tables as t
from nbopt.standstill import tables_of

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
    is_guarded = all(one.counters[t.GUARD] != t.GUARD_PROPAGATE for one in tables_of(average._buffer))
    for part, s in _members(average).items():
        views, before = _views(average, s), len(problems)
        found: dict[str, Any] = {**views, **average._numbers(s)}  # as it would be
        for name in list(found):
            key = f"{part}.{name}"
            legal[key] = None
            if key not in saved:
                continue
            try:
                if name in views:
                    found[name] = _as_sum(saved[key], key, views[name], is_guarded)
                    arrays.append((views[name], found[name]))
                else:
                    found[name] = average._checked_number(name, saved[key], key)
                    numbers.setdefault(s, {})[name] = found[name]
            except (NboptError, TypeError) as error:
                problems.append(str(error))
        if len(problems) == before:
            problems += [f"{part}.{text}" for text in average._contradictions(found)]
    refuse(average, [*(misfits(saved, legal) if strict else []), *problems])
    for view, values in arrays:
        np.copyto(view, values)
    for s, checked in numbers.items():
        average._set_numbers(s, checked)


def _as_sum(value: Any, key: str, view: NDArray[Any], is_guarded: bool) -> NDArray[Any]:
    array = as_saved_array(value, key, view.dtype, view.shape)
    if is_guarded and not np.isfinite(array).all():
        raise StateDictError(
            f"{key}: holds NaN or Inf, and no optimizer of these parameters has nonfinite='propagate'"
        )
    return array
