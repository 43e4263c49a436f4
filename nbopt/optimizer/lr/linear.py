"""Schedules that rise or fall in a straight line, then go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbopt._validation import as_number
from nbopt.errors import HyperparameterError, StateDictError
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.lr.checks import as_epoch, as_rate
from nbopt.optimizer.lr.plateau import ReduceOnPlateau

__all__ = ["LinearLR", "LinearWarmup"]

INNER = "LinearWarmup_LR"  # Paddle's key of the state of the schedule that follows


class LinearWarmup(LRScheduler):
    """A straight line from `start_lr` to `end_lr` in `warmup_steps`, then a rate or another schedule.

    Step e of the warm-up has the rate ``start_lr + (end_lr - start_lr) * e / warmup_steps``. From step
    `warmup_steps` on, it is `learning_rate` or, of a schedule, its rate of step ``e - warmup_steps``.

    Parameters
    ----------
    learning_rate : float or LRScheduler
        What follows. A schedule is stepped from here; only the warm-up is to be stepped, and given to
        optimizers. A `ReduceOnPlateau` is refused, as it needs a metric.
    warmup_steps : int
        >= 1.
    start_lr, end_lr : float
        Finite, ``0 <= start_lr < end_lr``. The first is `base_lr`.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Goyal et al. (2017), section 2.2; arguments of Paddle's `LinearWarmup`.

    Examples
    --------
    >>> import nbopt as nb
    >>> lr = nb.optimizer.lr
    >>> schedule = lr.LinearWarmup(lr.StepDecay(0.4, step_size=2), warmup_steps=2, start_lr=0.0, end_lr=0.4)
    >>> for _ in range(5):
    ...     print(round(schedule(), 3))
    ...     schedule.step()
    0.0
    0.2
    0.4
    0.4
    0.04
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler,
        warmup_steps: int,
        start_lr: float,
        end_lr: float,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        if isinstance(learning_rate, ReduceOnPlateau):
            raise TypeError(
                "LinearWarmup learning_rate cannot be a ReduceOnPlateau, which needs a metric at every step; "
                "warm up to a number, then call opt.set_lr_scheduler with the ReduceOnPlateau"
            )
        if isinstance(learning_rate, LRScheduler):
            self._state = (*LRScheduler._state, INNER)
            self.learning_rate: float | LRScheduler = learning_rate
        else:
            self.learning_rate = as_rate(learning_rate, "LinearWarmup learning_rate, if it is no schedule,")
        self.warmup_steps = as_epoch(warmup_steps, "LinearWarmup warmup_steps", low=1)
        self.start_lr = as_rate(start_lr, "LinearWarmup start_lr")
        self.end_lr = as_rate(end_lr, "LinearWarmup end_lr")
        if self.start_lr >= self.end_lr:
            raise HyperparameterError(
                f"LinearWarmup end_lr must be > start_lr, got {self.end_lr!r} and start_lr={self.start_lr!r}"
            )
        super().__init__(self.start_lr, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        if epoch < self.warmup_steps:
            return (self.end_lr - self.start_lr) * epoch / self.warmup_steps + self.start_lr
        if isinstance(self.learning_rate, LRScheduler):
            return self.learning_rate._rate_at(epoch - self.warmup_steps)
        return self.learning_rate

    def _move(self, epoch: int) -> None:
        super()._move(epoch)
        # After its rate was asked for, as one of the user may go by its own last one.
        inner, target = self.learning_rate, max(epoch - self.warmup_steps, 0)
        if isinstance(inner, LRScheduler) and inner.last_epoch != target:
            inner.step(target)

    # --- the state of what follows is a part of the state

    def _present_keys(self) -> list[str]:
        inner = [INNER] if isinstance(self.learning_rate, LRScheduler) else []
        return [*super()._present_keys(), *inner]

    def _saved(self, key: str) -> Any:
        inner = self.learning_rate
        if key == INNER and isinstance(inner, LRScheduler):
            return inner.state_dict()
        return super()._saved(key)

    def _checked(self, key: str, value: Any, strict: bool) -> Any:
        inner = self.learning_rate
        if key != INNER or not isinstance(inner, LRScheduler):
            return super()._checked(key, value, strict)
        values, problems = inner._read(value, strict)
        if problems:
            raise StateDictError(f"{INNER}: {'; '.join(problems)}")
        return values

    def _take(self, values: Mapping[str, Any]) -> None:
        own = dict(values)
        inner, state = self.learning_rate, own.pop(INNER, None)
        if isinstance(inner, LRScheduler) and state is not None:
            inner._take(state)
        super()._take(own)


class LinearLR(LRScheduler):
    """A straight line from ``base * start_factor`` to ``base * end_factor`` in `total_steps`, then constant.

    Step e has the rate ``base * (start_factor + (end_factor - start_factor) * e / total_steps)``.

    Parameters
    ----------
    learning_rate : float
        The rate ``base``, finite and >= 0.
    total_steps : int
        >= 1.
    start_factor : float
        In (0, 1].
    end_factor : float
        In [0, 1].
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `LinearLR`, which goes from step to step and so jumps to other rates.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.LinearLR(0.5, total_steps=4, start_factor=0.5)
    >>> for epoch in (0, 2, 4, 9):
    ...     schedule.step(epoch)
    ...     print(schedule())
    0.25
    0.375
    0.5
    0.5
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.total_steps = as_epoch(total_steps, "LinearLR total_steps", low=1)
        self.start_factor = as_number(start_factor, "LinearLR start_factor", low=0.0, high=1.0, open_low=True)
        self.end_factor = as_number(end_factor, "LinearLR end_factor", low=0.0, high=1.0)
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        if epoch >= self.total_steps:
            return self.base_lr * self.end_factor
        rise = (self.end_factor - self.start_factor) * epoch / self.total_steps
        return self.base_lr * (self.start_factor + rise)
