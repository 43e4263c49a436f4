"""Schedules made of a function of the user."""

from __future__ import annotations

from collections.abc import Callable

from nbopt._validation import as_number
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.lr.checks import as_function

__all__ = ["LambdaDecay", "MultiplicativeDecay"]


class LambdaDecay(LRScheduler):
    """A function of the user's: ``base * lr_lambda(e)``, with e the step number.

    Parameters
    ----------
    learning_rate : float
        The factor ``base``, finite and >= 0.
    lr_lambda : callable
        From a step number to a factor, so that the rate is finite and >= 0. To be pickled, it has to be a
        function of a module.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `LambdaDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.LambdaDecay(0.5, lr_lambda=lambda epoch: 1 / (1 + epoch))
    >>> schedule.step(4)
    >>> schedule()
    0.1
    """

    def __init__(
        self,
        learning_rate: float,
        lr_lambda: Callable[[int], float],
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.lr_lambda = as_function(lr_lambda, "LambdaDecay lr_lambda")
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        return self.base_lr * as_number(self.lr_lambda(epoch), f"LambdaDecay lr_lambda({epoch})")


class MultiplicativeDecay(LRScheduler):
    """A product of the user's: ``base`` times every ``lr_lambda(i)``, with i from 1 to the step number.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` of step 0, finite and >= 0.
    lr_lambda : callable
        From a step number, counted from 1, to a factor, so that the rate is finite and >= 0. To be pickled,
        it has to be a function of a module.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `MultiplicativeDecay`. A jump back, and the first step after a state was loaded,
    multiply from the beginning, a step forward by what is new.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.MultiplicativeDecay(0.5, lr_lambda=lambda epoch: 0.5)
    >>> schedule.step(2)
    >>> schedule()
    0.125
    """

    def __init__(
        self,
        learning_rate: float,
        lr_lambda: Callable[[int], float],
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.lr_lambda = as_function(lr_lambda, "MultiplicativeDecay lr_lambda")
        self._walked = (0, 0.0, 0.0)
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        done, base, rate = self._walked
        if done > epoch or base != self.base_lr:
            done, rate = 0, self.base_lr
        for number in range(done + 1, epoch + 1):
            factor = as_number(self.lr_lambda(number), f"MultiplicativeDecay lr_lambda({number})")
            rate *= factor
        self._walked = epoch, self.base_lr, rate
        return rate
