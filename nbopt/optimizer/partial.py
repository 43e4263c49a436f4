"""A step on some of an optimizer's parameters, or with gradients handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt._validation import as_real
from nbopt.errors import ParameterError
from nbopt.kernels import tables as t
from nbopt.parameter import Parameter

if TYPE_CHECKING:
    from nbopt.optimizer.stepping import Stepping

__all__ = ["minimize", "step_with"]


def _alone(opt: Stepping, work: Callable[[], None]) -> None:
    """Do what ends in a step; while another thread is in such a call, refuse.

    Not by a lock, nor by a `with`: an interrupt at its beginning or end would leave it held for ever. What is
    the first to stand in line here has the turn, and one call takes it out.
    """
    turns, own = opt._tables.turns, object()
    try:
        turns[own] = None
        if opt._tables.counters[t.BUSY] or list(turns)[0] is not own:  # noqa: RUF015  (one call: no mixture)
            opt._refused(t.CONCURRENT)
        work()
    finally:
        turns.pop(own, None)


def step_with(opt: Stepping, grads: Mapping[str, ArrayLike | None] | ArrayLike) -> None:
    """Copy gradients in and step, as one: another thread gets in before or after."""

    def work() -> None:
        given = grads
        if isinstance(given, Mapping):
            weights = dict.fromkeys((p._parent or p).name for p in opt._held())
            given = {**weights, **given}
        opt._buffer.set_grads(given)
        opt.step()

    _alone(opt, work)


def minimize(
    opt: Stepping,
    loss: float | Callable[[], Any] | None,
    parameters: Iterable[Parameter | str] | None,
    no_grad_set: Iterable[Parameter | str] | None,
) -> tuple[list[Any], list[tuple[Parameter, NDArray[Any]]]]:
    """Take the step; see `Optimizer.minimize`."""
    own = opt._held()
    chosen = own if parameters is None else _named(opt, parameters, "parameters")
    left_out = set() if no_grad_set is None else set(_named(opt, no_grad_set, "no_grad_set"))
    if loss is not None:
        value = loss() if callable(loss) else loss
        if value is not None:
            opt._last_loss = as_real(value, "loss must be a number, or a callable that returns one")
    moving = {part for p in chosen if p not in left_out for part in p._moved}
    still = [part for p in own for part in p._moved if part not in moving]
    storage = opt._buffer._seal()
    # NumPy looks for interrupts while it reads a list, and not while it copies between arrays.
    places = np.array([storage.segment_of[part.name] for part in still], np.intp), t.ATTRIBUTE_TRAINABLE

    def work() -> None:
        before = np.array(storage.attributes[places])
        try:
            storage.attributes[places] = 0.0
            opt.step()
        finally:
            storage.attributes[places] = before  # at once: no interrupt leaves a part of them frozen

    if still:
        _alone(opt, work)
    else:
        opt.step()
    present = storage.attributes[:, t.ATTRIBUTE_PRESENT]
    took_part = [
        p
        for p in own
        if p.trainable and present[storage.segment_of[p._moved[-1].name]] and not moving.isdisjoint(p._moved)
    ]
    return [], [(p, p.grad) for p in took_part]


def _named(opt: Stepping, items: Iterable[Parameter | str], what: str) -> list[Parameter]:
    own = {p.name: p for p in opt._held()}
    if isinstance(items, (str, Parameter)):
        items = [items]
    if not isinstance(items, Iterable):
        raise TypeError(f"{what} must be parameters or names, got {type(items).__name__} {items!r}")
    found = []
    for item in items:
        if not isinstance(item, (str, Parameter)):
            raise TypeError(f"{what} must hold parameters or names, got {type(item).__name__} {item!r}")
        name = item if isinstance(item, str) else item.name
        if name not in own or (isinstance(item, Parameter) and own[name] is not item):
            raise ParameterError(f"{what}: {name!r} is none of this optimizer's parameters")
        found.append(own[name])
    return found
