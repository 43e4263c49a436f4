"""Schedules that decay: by a power, an exponential, a polynomial, or in stairs."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from nbopt._validation import as_flag, as_number
from nbopt.errors import HyperparameterError
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.lr.checks import as_epoch, as_increasing, as_list, as_rate
from nbopt.optimizer.lr.curves import line

__all__ = [
    "ExponentialDecay",
    "InverseTimeDecay",
    "MultiStepDecay",
    "NaturalExpDecay",
    "NoamDecay",
    "PiecewiseDecay",
    "PolynomialDecay",
    "StepDecay",
]


class NoamDecay(LRScheduler):
    """A linear warm-up, then decay by the square root: ``base * d_model**-0.5 * min(e**-0.5, e * w**-1.5)``.

    With e the step number and w the `warmup_steps`; 0 at step 0.

    Parameters
    ----------
    d_model : int
        The width of the model; >= 1.
    warmup_steps : int
        The step of the largest rate; >= 1.
    learning_rate : float
        The factor ``base``, finite and >= 0.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Vaswani et al. (2017), section 5.3; arguments of Paddle's `NoamDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.NoamDecay(d_model=64, warmup_steps=4)
    >>> for _ in range(5):
    ...     schedule.step()
    ...     print(round(schedule(), 4))
    0.0156
    0.0312
    0.0469
    0.0625
    0.0559
    """

    def __init__(
        self,
        d_model: int,
        warmup_steps: int,
        learning_rate: float = 1.0,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.d_model = as_epoch(d_model, "NoamDecay d_model", low=1)
        self.warmup_steps = as_epoch(warmup_steps, "NoamDecay warmup_steps", low=1)
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        warm, decay = self.warmup_steps**-1.5 * epoch, max(epoch, 1) ** -0.5
        rate: float = self.base_lr * self.d_model**-0.5 * min(warm, decay)
        return rate


class PiecewiseDecay(LRScheduler):
    """Constant pieces: ``values[i]`` from ``boundaries[i - 1]`` on, up to ``boundaries[i]``.

    Parameters
    ----------
    boundaries : sequence of int
        The step numbers at which the next value begins, increasing; at least one.
    values : sequence of float
        The rates, one more than boundaries; finite and >= 0. The first is `base_lr`.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `PiecewiseDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.PiecewiseDecay(boundaries=[2, 3], values=[0.1, 0.05, 0.01])
    >>> for _ in range(4):
    ...     print(schedule())
    ...     schedule.step()
    0.1
    0.1
    0.05
    0.01
    """

    def __init__(
        self,
        boundaries: Sequence[int],
        values: Sequence[float],
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.boundaries = as_increasing(boundaries, "PiecewiseDecay boundaries")
        rates = as_list(values, "PiecewiseDecay values", "numbers")
        self.values = tuple(as_rate(v, f"PiecewiseDecay values[{i}]") for i, v in enumerate(rates))
        if not self.boundaries or len(self.values) != len(self.boundaries) + 1:
            raise HyperparameterError(
                "PiecewiseDecay needs one of boundaries at least, and one more of values, "
                f"got {len(self.boundaries)} boundaries and {len(self.values)} values"
            )
        super().__init__(self.values[0], last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        return self.values[bisect.bisect_right(self.boundaries, epoch)]


class NaturalExpDecay(LRScheduler):
    """Natural exponential decay: ``base * exp(-gamma * e)``, with e the step number.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` of step 0, finite and >= 0.
    gamma : float
        Finite and > 0.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `NaturalExpDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.NaturalExpDecay(0.5, gamma=0.1)
    >>> schedule.step(10)
    >>> round(schedule(), 6)
    0.18394
    """

    def __init__(self, learning_rate: float, gamma: float, last_epoch: int = -1, verbose: bool = False):
        self.gamma = as_number(gamma, "NaturalExpDecay gamma", low=0.0, open_low=True)
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        return self.base_lr * math.exp(-self.gamma * epoch)


class InverseTimeDecay(LRScheduler):
    """Inverse decay: ``base / (1 + gamma * e)``, with e the step number.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` of step 0, finite and >= 0.
    gamma : float
        Finite and >= 0.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    The steps of Robbins and Monro (1951); arguments of Paddle's `InverseTimeDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.InverseTimeDecay(0.5, gamma=0.25)
    >>> schedule.step(4)
    >>> schedule()
    0.25
    """

    def __init__(self, learning_rate: float, gamma: float, last_epoch: int = -1, verbose: bool = False):
        self.gamma = as_number(gamma, "InverseTimeDecay gamma", low=0.0)
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        return self.base_lr / (1.0 + self.gamma * epoch)


class PolynomialDecay(LRScheduler):
    """Polynomial decay: ``(base - end_lr) * (1 - e / decay_steps)**power + end_lr``.

    With e the step number; from step `decay_steps` on, `end_lr`.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` of step 0, finite and >= 0.
    decay_steps : int
        The number of steps; >= 1.
    end_lr : float
        The rate at the end, finite and >= 0.
    power : float
        Finite and > 0; 1 is a straight line.
    cycle : bool
        Stretch the decay to the next multiple of `decay_steps` each time that it ends, so that the rate jumps
        up again, by less each time.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    The "poly" policy of Chen et al. (2017), with an end; arguments of Paddle's `PolynomialDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.PolynomialDecay(0.5, decay_steps=5, end_lr=0.1, power=2.0)
    >>> for epoch in (0, 1, 5, 9):
    ...     schedule.step(epoch)
    ...     print(round(schedule(), 3))
    0.5
    0.356
    0.1
    0.1
    """

    def __init__(
        self,
        learning_rate: float,
        decay_steps: int,
        end_lr: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.decay_steps = as_epoch(decay_steps, "PolynomialDecay decay_steps", low=1)
        self.end_lr = as_rate(end_lr, "PolynomialDecay end_lr")
        self.power = as_number(power, "PolynomialDecay power", low=0.0, open_low=True)
        self.cycle = as_flag(cycle, "PolynomialDecay cycle")
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, -(-epoch // steps))
        left = 1.0 - min(epoch, steps) / steps
        return line(self.end_lr, self.base_lr, left**self.power)


class ExponentialDecay(LRScheduler):
    """Exponential decay: ``base * gamma**e``, with e the step number.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` of step 0, finite and >= 0.
    gamma : float
        Between 0 and 1, neither of them.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `ExponentialDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.ExponentialDecay(0.5, gamma=0.9)
    >>> schedule.step(2)
    >>> round(schedule(), 6)
    0.405
    """

    def __init__(self, learning_rate: float, gamma: float, last_epoch: int = -1, verbose: bool = False):
        self.gamma = as_number(
            gamma, "ExponentialDecay gamma", low=0.0, high=1.0, open_low=True, open_high=True
        )
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        return self.base_lr * self.gamma**epoch


class MultiStepDecay(LRScheduler):
    """Decay in stairs: ``base * gamma**n``, with n the number of milestones that were reached.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` before the first milestone, finite and >= 0.
    milestones : sequence of int
        Step numbers, increasing; none is legal.
    gamma : float
        In [0, 1).
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `MultiStepDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.MultiStepDecay(0.5, milestones=[2, 5], gamma=0.5)
    >>> for epoch in (1, 2, 5):
    ...     schedule.step(epoch)
    ...     print(schedule())
    0.5
    0.25
    0.125
    """

    def __init__(
        self,
        learning_rate: float,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.milestones = as_increasing(milestones, "MultiStepDecay milestones")
        self.gamma = as_number(gamma, "MultiStepDecay gamma", low=0.0, high=1.0, open_high=True)
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        reached = bisect.bisect_right(self.milestones, epoch)
        return self.base_lr * self.gamma**reached


class StepDecay(LRScheduler):
    """Decay in even stairs: ``base * gamma**(e // step_size)``, with e the step number.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` of the first `step_size` steps, finite and >= 0.
    step_size : int
        How many steps have the same rate; >= 1.
    gamma : float
        In [0, 1).
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Arguments of Paddle's `StepDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.StepDecay(0.5, step_size=3, gamma=0.5)
    >>> for epoch in (2, 3, 6):
    ...     schedule.step(epoch)
    ...     print(schedule())
    0.5
    0.25
    0.125
    """

    def __init__(
        self,
        learning_rate: float,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.step_size = as_epoch(step_size, "StepDecay step_size", low=1)
        self.gamma = as_number(gamma, "StepDecay gamma", low=0.0, high=1.0, open_high=True)
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        return self.base_lr * self.gamma ** (epoch // self.step_size)
