"""What an optimizer remembers, as a flat dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbopt._state_dict import as_mapping, as_saved_array, misfits, refuse
from nbopt._validation import as_integer, as_number
from nbopt.errors import NboptError, StateDictError
from nbopt.interrupts import uninterrupted
from nbopt.kernels import tables as t
from nbopt.memory import Array
from nbopt.optimizer import schedule
from nbopt.standstill import Standstill

if TYPE_CHECKING:
    from nbopt.optimizer.base import Optimizer

__all__ = ["examine", "get", "live", "overflowed", "pack", "put", "refill", "unpack", "views"]

_COUNTERS = {
    "step_count": t.STEPS,
    "steps_skipped": t.SKIPPED,
    "steps_skipped_in_a_row": t.CONSECUTIVE,
}


def _entries(opt: Optimizer) -> dict[str, tuple[int, Array | None]]:
    """Every per-parameter entry: its segment, and the view of an accumulator (None for a step count)."""
    layout = opt._tables.layout
    found: dict[str, tuple[int, Array | None]] = {}
    for s in np.flatnonzero(opt._tables.group_of >= 0):
        begin = int(layout.segments[s, t.SEGMENT_START])
        end = begin + int(layout.segments[s, t.SEGMENT_SIZE])
        for a, accumulator in enumerate(opt._rule.accumulators):
            view = opt._tables.accumulators[a, begin:end].reshape(layout.shapes[s])
            found[f"{layout.names[s]}.{accumulator}"] = int(s), view
        found[f"{layout.names[s]}.step"] = int(s), None
    return found


def get(opt: Optimizer) -> dict[str, Any]:
    """Return the state dictionary."""
    still = Standstill(f"this {type(opt).__name__}", [opt._tables])
    found = {
        key: value.copy() if isinstance(value, np.ndarray) else value for key, value in live(opt).items()
    }
    still.check("its state was read. Read it between steps")
    return found


def live(opt: Optimizer) -> dict[str, Any]:
    """Return the state dictionary, with views in place of copies where the arrays are on the host."""
    result: dict[str, Any] = {}
    tables = opt._tables
    steps, counters = tables.members[:, t.MEMBER_STEPS], tables.counters[:]
    for key, (s, view) in _entries(opt).items():
        result[key] = int(steps[s]) if view is None else tables.memory.read(view)
    result["rule"] = opt._rule.name
    result["learning_rate"] = opt._rate()
    for key, counter in _COUNTERS.items():
        result[key] = int(counters[counter])
    return result | schedule.get(opt)


def views(opt: Optimizer) -> dict[str, Array]:
    """Return the accumulators by name, where `live` returns copies: on a GPU."""
    if opt._tables.memory.is_host:
        return {}
    return {key: view for key, (_, view) in _entries(opt).items() if view is not None}


def overflowed(opt: Optimizer) -> dict[str, int]:
    """Count the elements that are not finite, of what moves and of its accumulators, by name."""
    names, memory = opt._tables.layout.names, opt._tables.memory
    found = {}
    for key, (s, view) in _entries(opt).items():
        if view is None:
            found[names[s]] = opt._buffer[names[s]]._current()
        else:
            found[key] = memory.read(view)
    counts = {key: array.size - int(np.count_nonzero(np.isfinite(array))) for key, array in found.items()}
    return {key: count for key, count in sorted(counts.items()) if count}


def put(opt: Optimizer, saved: Mapping[str, Any], strict: bool) -> None:
    """Fill in a state dictionary, after checking all of it."""
    problems, fill = examine(opt, saved, strict)
    refuse(opt, problems)
    with uninterrupted(), Standstill(f"this {type(opt).__name__}", [opt._tables]).held():
        fill()


def examine(opt: Optimizer, saved: Mapping[str, Any], strict: bool) -> tuple[list[str], Callable[[], None]]:
    """Return what is wrong with a state dictionary, and what fills it in where nothing is."""
    as_mapping(saved)
    entries = _entries(opt)
    scheduled = schedule.get(opt)
    legal = dict.fromkeys([*entries, "rule", "learning_rate", *_COUNTERS, *scheduled])
    problems = []
    rule = saved.get("rule", opt._rule.name)
    if isinstance(rule, np.ndarray) and rule.ndim == 0:
        rule = rule.item()  # as numpy.load gives it
    if not isinstance(rule, str) or rule != opt._rule.name:
        problems.append(f"it belongs to the rule {rule!r}, not {opt._rule.name!r}")
    if strict:
        problems += misfits(saved, legal) + schedule.misfit(opt, saved)
    arrays: list[tuple[Array, NDArray[Any]]] = []
    steps: list[tuple[int, int]] = []
    numbers: dict[str, Any] = {}
    for key in legal:
        if key not in saved or key == "rule" or key in scheduled:
            continue
        try:
            segment, view = entries.get(key, (-1, None))
            if view is not None:
                arrays.append((view, _as_accumulator(opt, key, saved[key], view)))
            elif segment >= 0:
                steps.append((segment, _as_count(saved[key], key)))
            elif key == "learning_rate":
                numbers[key] = as_number(saved[key], key, low=0.0)
            else:
                numbers[key] = _as_count(saved[key], key)
        except (NboptError, TypeError, ValueError) as error:
            problems.append(str(error))
    rates, wrong = schedule.examine(opt, saved)
    problems += wrong

    def fill() -> None:
        for view, values in arrays:
            opt._tables.memory.write(view, values)
        for segment, count in steps:
            opt._tables.members[segment, t.MEMBER_STEPS] = count
        if opt._scheduler is not None:
            opt._scheduler._take(rates)
        elif "learning_rate" in numbers:
            opt._tables.rates[0] = numbers["learning_rate"]
        for key, counter in _COUNTERS.items():
            if key in numbers:
                opt._tables.counters[counter] = numbers[key]
        opt._tables.counters[t.STATUS] = 0

    return problems, fill


def _as_count(value: Any, key: str) -> int:
    count = as_integer(value, key, low=0)
    if count >= 2**63:
        raise StateDictError(f"{key}: {count} is no count")
    return count


def _as_accumulator(opt: Optimizer, key: str, value: Any, view: Array) -> NDArray[Any]:
    array = as_saved_array(value, key, view.dtype, view.shape)
    if opt._tables.counters[t.GUARD] != t.GUARD_PROPAGATE and not np.isfinite(array).all():
        raise StateDictError(f"{key}: holds NaN or Inf")
    return array


def pack(opt: Optimizer) -> dict[str, Any]:
    """Return what makes the optimizer again: its arguments, parameters by name, and what it remembers."""
    Standstill(f"this {type(opt).__name__}", [opt._tables])
    return {
        "rule": opt._rule,
        "buffer": opt._buffer,
        "groups": [{**group, "params": [p.name for p in group["params"]]} for group in opt._groups],
        "defaults": opt._defaults,
        "name": opt.name,
        "last_loss": opt._last_loss,
        "accumulators": opt._tables.memory.read(opt._tables.accumulators),
        "steps": np.array(opt._tables.members[:, t.MEMBER_STEPS]),
        "rates": np.array(opt._tables.rates[:]),
        "scheduler": opt._scheduler,
        "counters": np.array(opt._tables.counters[:]),
    }


def unpack(saved: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of `Optimizer._setup`."""
    buffer = saved["buffer"]
    groups = [{**group, "params": [buffer[name] for name in group["params"]]} for group in saved["groups"]]
    rate, guard = float(saved["rates"][0]), int(saved["counters"][t.GUARD])
    return saved["rule"], buffer, groups, saved["defaults"], saved["name"], rate, guard


def refill(opt: Optimizer, saved: dict[str, Any]) -> None:
    """Copy in what the optimizer remembered."""
    opt._last_loss = saved["last_loss"]
    schedule.follow(opt, saved["scheduler"])
    opt._tables.memory.write(opt._tables.accumulators, saved["accumulators"])
    opt._tables.members[:, t.MEMBER_STEPS] = saved["steps"]
    kept = [t.STATUS, t.STEPS, t.SKIPPED, t.CONSECUTIVE, t.BAD_SEGMENT]
    opt._tables.counters[kept] = saved["counters"][kept]
