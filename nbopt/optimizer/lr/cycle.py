"""Schedules that go up and down."""

from __future__ import annotations

import math
from collections.abc import Callable

from nbopt._validation import as_flag, as_number
from nbopt.errors import HyperparameterError
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.lr.checks import as_choice, as_epoch, as_function, as_rate
from nbopt.optimizer.lr.curves import cosine, line

__all__ = ["CosineAnnealingDecay", "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR"]


class CosineAnnealingDecay(LRScheduler):
    """Cosine waves: ``eta_min + (base - eta_min) * (1 + cos(pi * e / T_max)) / 2``.

    With e the step number: the rate falls for `T_max` steps and rises for as many, without end.

    Parameters
    ----------
    learning_rate : float
        The rate ``base`` of step 0, finite and >= 0.
    T_max : int
        Half the period; >= 1.
    eta_min : float
        The rate of step `T_max`, finite and >= 0.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Loshchilov and Hutter (2017), equation 5, without the restarts; arguments of Paddle's
    `CosineAnnealingDecay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.CosineAnnealingDecay(0.5, T_max=4, eta_min=0.1)
    >>> for epoch in (0, 2, 4, 8):
    ...     schedule.step(epoch)
    ...     print(round(schedule(), 3))
    0.5
    0.3
    0.1
    0.5
    """

    def __init__(
        self,
        learning_rate: float,
        T_max: int,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.T_max = as_epoch(T_max, "CosineAnnealingDecay T_max", low=1)
        self.eta_min = as_rate(eta_min, "CosineAnnealingDecay eta_min")
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        epoch %= 2 * self.T_max
        return cosine(self.base_lr, self.eta_min, min(epoch, 2 * self.T_max - epoch) / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosine waves: ``eta_min + (base - eta_min) * (1 + cos(pi * c / length)) / 2``.

    With c the step in a cycle, counted from 0, so that every cycle begins at ``base``. The first has the
    length `T_0`, and each next one is `T_mult` times as long.

    Parameters
    ----------
    learning_rate : float
        The rate ``base``, finite and >= 0.
    T_0 : int
        The length of the first cycle; >= 1.
    T_mult : int
        How many times as long the next cycle is; >= 1.
    eta_min : float
        What a cycle falls to, finite and >= 0.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    SGDR of Loshchilov and Hutter (2017); arguments of Paddle's `CosineAnnealingWarmRestarts`, which loses the
    place in the cycle when it is saved.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.CosineAnnealingWarmRestarts(0.5, T_0=2, T_mult=2, eta_min=0.1)
    >>> for epoch in (0, 1, 2, 4, 6):
    ...     schedule.step(epoch)
    ...     print(round(schedule(), 3))
    0.5
    0.3
    0.5
    0.3
    0.5
    """

    def __init__(
        self,
        learning_rate: float,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.T_0 = as_epoch(T_0, "CosineAnnealingWarmRestarts T_0", low=1)
        self.T_mult = as_epoch(T_mult, "CosineAnnealingWarmRestarts T_mult", low=1)
        self.eta_min = as_rate(eta_min, "CosineAnnealingWarmRestarts eta_min")
        super().__init__(learning_rate, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        length = self.T_0
        if self.T_mult == 1:
            epoch %= length
        while epoch >= length:
            epoch -= length
            length *= self.T_mult
        return cosine(self.base_lr, self.eta_min, epoch / length)


class OneCycleLR(LRScheduler):
    """One rise to a large rate, and a fall to a small one.

    The rate goes from ``max / divide_factor`` at step 0 to ``max`` at step ``phase_pct * total_steps - 1``,
    then to the end at step ``total_steps - 1``, where it stays. With three phases it returns to its start at
    step ``2 * phase_pct * total_steps - 2``, before it goes to the end.

    Parameters
    ----------
    max_learning_rate : float
        The rate ``max``, finite and >= 0.
    total_steps : int
        >= 1.
    divide_factor : float
        Finite and > 0. ``max / divide_factor`` is `base_lr`.
    end_learning_rate : float
        The rate at the end, finite and >= 0.
    phase_pct : float
        The part of the steps that the rise takes, in [0, 1]; with three phases, in [0, 0.5).
    anneal_strategy : {"cos", "linear"}
        Half a cosine wave, or a straight line.
    three_phase : bool
        Whether to fall in two phases.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Smith and Topin (2019); arguments of Paddle's `OneCycleLR`, which leaves its range after the end.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.OneCycleLR(1.0, total_steps=10)
    >>> for epoch in (0, 1, 2, 5, 9, 99):
    ...     schedule.step(epoch)
    ...     print(round(schedule(), 4))
    0.04
    0.52
    1.0
    0.6113
    0.0001
    0.0001
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        divide_factor: float = 25.0,
        end_learning_rate: float = 0.0001,
        phase_pct: float = 0.3,
        anneal_strategy: str = "cos",
        three_phase: bool = False,
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        top = as_rate(max_learning_rate, "OneCycleLR max_learning_rate")
        self.total_steps = steps = as_epoch(total_steps, "OneCycleLR total_steps", low=1)
        divisor = as_number(divide_factor, "OneCycleLR divide_factor", low=0.0, open_low=True)
        end = as_rate(end_learning_rate, "OneCycleLR end_learning_rate")
        part = as_number(phase_pct, "OneCycleLR phase_pct", low=0.0, high=1.0)
        as_choice(anneal_strategy, "OneCycleLR anneal_strategy", ["cos", "linear"])
        self._anneal = cosine if anneal_strategy == "cos" else line
        start = as_rate(top / divisor, "OneCycleLR max_learning_rate / divide_factor")
        # Where each phase ends, and what rate it reaches there.
        self._ends, self._levels = [0.0, part * steps - 1, steps - 1], [start, top, end]
        if as_flag(three_phase, "OneCycleLR three_phase"):
            if part >= 0.5:
                raise HyperparameterError(
                    f"OneCycleLR phase_pct must be < 0.5 with three_phase, got {part!r}"
                )
            self._ends.insert(2, 2 * part * steps - 2)
            self._levels.insert(2, start)
        super().__init__(start, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        for i in range(1, len(self._ends)):
            begin, end = self._ends[i - 1 : i + 1]
            if epoch <= end:
                part = (epoch - begin) / (end - begin) if end > begin else 1.0
                return self._anneal(self._levels[i - 1], self._levels[i], part)
        return self._levels[-1]


class CyclicLR(LRScheduler):
    """A triangle wave between two rates: ``base + (max - base) * height * scale``.

    The height rises from 0 to 1 in `step_size_up` steps, and falls to 0 in `step_size_down`.

    Parameters
    ----------
    base_learning_rate : float
        The rate ``base`` at the feet, finite and >= 0.
    max_learning_rate : float
        The rate ``max`` at the first peak, finite and >= 0.
    step_size_up : int
        >= 1.
    step_size_down : int, optional
        >= 1; `step_size_up` by default.
    mode : {"triangular", "triangular2", "exp_range"}
        The scale: 1, half as much in each cycle, or ``exp_gamma**e`` with e the step number.
    exp_gamma : float
        Finite and > 0.
    scale_fn : callable, optional
        A scale of your own, in place of `mode`.
    scale_mode : {"cycle", "iterations"}
        What `scale_fn` is asked with: the number of the cycle, counted from 1, or of the step, from 0.
    last_epoch, verbose
        See `LRScheduler`.

    Notes
    -----
    Smith (2017); arguments of Paddle's `CyclicLR`.

    Examples
    --------
    >>> import nbopt as nb
    >>> schedule = nb.optimizer.lr.CyclicLR(0.1, 0.5, step_size_up=2, mode="triangular2")
    >>> for _ in range(7):
    ...     print(round(schedule(), 3), end=" ")
    ...     schedule.step()
    0.1 0.3 0.5 0.3 0.1 0.2 0.3
    """

    def __init__(
        self,
        base_learning_rate: float,
        max_learning_rate: float,
        step_size_up: int,
        step_size_down: int | None = None,
        mode: str = "triangular",
        exp_gamma: float = 1.0,
        scale_fn: Callable[[int], float] | None = None,
        scale_mode: str = "cycle",
        last_epoch: int = -1,
        verbose: bool = False,
    ):
        self.max_lr = as_rate(max_learning_rate, "CyclicLR max_learning_rate")
        self.step_size_up = as_epoch(step_size_up, "CyclicLR step_size_up", low=1)
        down = step_size_up if step_size_down is None else step_size_down
        self.step_size_down = as_epoch(down, "CyclicLR step_size_down", low=1)
        self.exp_gamma = as_number(exp_gamma, "CyclicLR exp_gamma", low=0.0, open_low=True)
        self.scale_mode = as_choice(scale_mode, "CyclicLR scale_mode", ["cycle", "iterations"])
        if scale_fn is None:
            as_choice(mode, "CyclicLR mode", ["triangular", "triangular2", "exp_range"])
        else:
            as_function(scale_fn, "CyclicLR scale_fn")
        self.mode, self.scale_fn = mode, scale_fn
        base = as_rate(base_learning_rate, "CyclicLR base_learning_rate")
        super().__init__(base, last_epoch, verbose)

    def _rate(self, epoch: int) -> float:
        cycle, at = divmod(epoch, self.step_size_up + self.step_size_down)
        up, down = self.step_size_up, self.step_size_down
        height = at / up if at <= up else (up + down - at) / down
        return line(self.base_lr, self.max_lr, height * self._scale(epoch, cycle))

    def _scale(self, epoch: int, cycle: int) -> float:
        if self.scale_fn is not None:
            number = cycle + 1 if self.scale_mode == "cycle" else epoch
            return as_number(self.scale_fn(number), f"CyclicLR scale_fn({number})")
        if self.mode == "exp_range":
            try:
                return self.exp_gamma**epoch
            except OverflowError:
                return math.inf
        return 0.5**cycle if self.mode == "triangular2" else 1.0
