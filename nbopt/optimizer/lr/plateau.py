"""The schedule that waits for a metric to stop getting better."""

from __future__ import annotations

import math
from typing import Any

from nbopt._validation import as_number, as_real
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.lr.checks import as_choice, as_epoch, as_rate

__all__ = ["ReduceOnPlateau"]


class ReduceOnPlateau(LRScheduler):
    """Multiply the rate by `factor` when a metric has not got better for more than `patience` steps.

    Parameters
    ----------
    learning_rate : float
        The first rate, finite and >= 0.
    mode : {"min", "max"}
        Whether a smaller or a larger metric is better.
    factor : float
        In [0, 1).
    patience : int
        How many steps in a row may be no better than the best; >= 0.
    threshold : float
        How much better the best a metric has to be to count; finite and >= 0.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is a part of the best, ``best * threshold``, or a difference. For metrics that
        may be negative, take "abs".
    cooldown : int
        For how many steps after a reduction metrics are ignored; >= 0.
    min_lr : float
        The smallest rate, finite and >= 0.
    epsilon : float
        A reduction by no more than this is not made; finite and >= 0.
    verbose : bool
        Print the rate of every reduction.

    Notes
    -----
    Arguments and rules of Paddle's `ReduceOnPlateau`. A metric that is NaN is no better than any. The state
    holds the best metric, infinite before the first.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.ReduceOnPlateau(0.5, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    ...     print(schedule())
    0.5
    0.5
    0.5
    0.25
    """

    _state = ("cooldown_counter", "best", "num_bad_epochs", "last_epoch", "last_lr")

    def __init__(
        self,
        learning_rate: float,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        epsilon: float = 1e-8,
        verbose: bool = False,
    ):
        named = self._named
        self.mode = as_choice(_lower(mode), named("mode"), ["min", "max"])
        self.factor = as_number(factor, named("factor"), low=0.0, high=1.0, open_high=True)
        self.patience = as_epoch(patience, named("patience"), low=0)
        self.threshold = as_number(threshold, named("threshold"), low=0.0)
        self.threshold_mode = as_choice(_lower(threshold_mode), named("threshold_mode"), ["rel", "abs"])
        self.cooldown = as_epoch(cooldown, named("cooldown"), low=0)
        self.min_lr = as_rate(min_lr, named("min_lr"))
        self.epsilon = as_number(epsilon, named("epsilon"), low=0.0)
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self.best = math.inf if self.mode == "min" else -math.inf
        self._start(learning_rate, 0, verbose)

    def _rate(self, epoch: int) -> float:
        return self._last_lr

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take in the metric of a step, and reduce the rate if it is time to.

        Parameters
        ----------
        metrics : float or array of size 1
            What is to get better. NaN and infinities are legal.
        epoch : int, optional
            The number of this step, >= 0; by default the next. Only `last_epoch` tells of it.

        Examples
        --------
        >>> import nbopt as nb
        >>> schedule = nb.optimizer.lr.ReduceOnPlateau(0.5, mode="max", patience=0)
        >>> schedule.step(0.9)
        >>> schedule.step(0.8)
        >>> schedule.last_epoch, schedule.last_lr
        (2, 0.05)
        """
        metric = as_real(metrics, f"{self._named('metrics')} must be a number")
        self.last_epoch = as_epoch(self.last_epoch + 1 if epoch is None else epoch, self._named("epoch"))
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            return
        if self._is_better(metric):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
            rate = max(self.last_lr * self.factor, self.min_lr)
            if self.last_lr - rate > self.epsilon:
                self.last_lr = rate
                self._tell()

    def _is_better(self, metric: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if math.isinf(self.best):  # where differences are NaN
            return sign * metric < sign * self.best
        margin = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        return metric < self.best - margin if self.mode == "min" else metric > self.best + margin

    def _checked(self, key: str, value: Any, strict: bool) -> Any:
        if key in ("cooldown_counter", "num_bad_epochs"):
            return as_epoch(value, key, low=0)
        if key == "best":
            return as_number(value, key, allow_inf=True)
        return super()._checked(key, value, strict)


def _lower(word: Any) -> Any:
    return word.lower() if isinstance(word, str) else word
