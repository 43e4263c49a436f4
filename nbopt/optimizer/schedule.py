"""The schedule that an optimizer follows, and its part of the optimizer's state dictionary.

A schedule writes its rate into the table of rates at each of its steps, so that a step of the optimizer, from
Python or from compiled code, has nothing to ask.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from nbopt.buffer import ParameterBuffer
from nbopt.errors import ParameterError
from nbopt.optimizer.groups import Check
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.lr.linear import INNER

if TYPE_CHECKING:
    from nbopt.optimizer.base import Optimizer

__all__ = ["check_names", "examine", "first_rate", "follow", "get", "misfit"]

KEY = "LR_Scheduler"  # as in Paddle


def first_rate(value: Any, check: Check, name: str) -> float:
    """Return the rate that a number or a schedule gives now."""
    if isinstance(value, LRScheduler):
        if not hasattr(value, "_last_lr"):
            kind = type(value).__name__
            raise TypeError(f"{kind}.__init__ must call super().__init__(learning_rate, last_epoch, verbose)")
        value, name = value.last_lr, f"{name}, by {type(value).__name__},"
        rate: float = check(value, name)
        return rate
    try:
        rate = check(value, name)
    except TypeError as error:
        text = "a schedule of nbopt.optimizer.lr is legal too, as LambdaDecay is for a function of the step"
        raise TypeError(f"{error}; {text}") from None
    return rate


def check_names(buffer: ParameterBuffer) -> None:
    """Refuse a parameter whose entries in a state dictionary could be those of the schedule."""
    for name in buffer:
        if name == KEY or name.startswith(f"{KEY}."):
            raise ParameterError(
                f"parameter {name!r}: the state dictionary of an optimizer keeps its schedule under {KEY!r}; "
                "choose another name"
            )


def follow(opt: Optimizer, scheduler: LRScheduler | None) -> None:
    """Let a schedule, or none, set the rate of an optimizer from its next step on."""
    if opt._scheduler is not None:
        opt._scheduler._optimizers.pop(id(opt), None)
    opt._scheduler = scheduler
    if scheduler is not None:
        scheduler._optimizers[id(opt)] = opt


# --- the state, flat -------------------------------------------------------------------------------


def get(opt: Optimizer) -> dict[str, Any]:
    """Return the entries of the schedule in a state dictionary; none without a schedule."""
    return {} if opt._scheduler is None else _flat(KEY, opt._scheduler.state_dict())


def examine(opt: Optimizer, saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a state dictionary has for the schedule, checked, and what is wrong with it."""
    own = _nested(KEY, saved)
    if opt._scheduler is None or not own:
        return {}, []
    values, problems = opt._scheduler._read(own, strict=False)
    return values, [f"{KEY}.{problem}" for problem in problems]


def misfit(opt: Optimizer, saved: Collection[Any]) -> list[str]:
    """Say where one of the optimizer and what is saved has a schedule and the other has none."""
    kind = type(opt).__name__
    there = any(isinstance(key, str) and key.startswith(f"{KEY}.") for key in saved)
    if there and opt._scheduler is None:
        return [f"it was saved with a schedule, which this {kind} has not: call set_lr_scheduler first"]
    if opt._scheduler is not None and not there and "rule" in saved:  # else it is no state of an optimizer
        own = type(opt._scheduler).__name__
        return [
            f"it was saved without a schedule, and this {kind} follows a {own}: call set_lr_scheduler(None), "
            "and set the schedule again afterwards"
        ]
    return []


def _flat(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state whose keys tell where they are; only that of a nested schedule goes deeper."""
    flat: dict[str, Any] = {}
    for key, value in state.items():
        flat |= _flat(f"{prefix}.{key}", value) if key == INNER else {f"{prefix}.{key}": value}
    return flat


def _nested(prefix: str, flat: Mapping[Any, Any]) -> dict[str, Any]:
    """Undo `_flat`."""
    start = f"{prefix}."
    keys = [key for key in flat if isinstance(key, str) and key.startswith(start)]
    found = {key.removeprefix(start): flat[key] for key in keys}
    own = {key: value for key, value in found.items() if not key.startswith(f"{INNER}.")}
    return own if len(own) == len(found) else own | {INNER: _nested(INNER, found)}
