"""Written gradients against slopes measured from the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_integer, as_number
from nbopt.buffer import ParameterBuffer
from nbopt.errors import ParameterError
from nbopt.gradient.losses import Losses, rms
from nbopt.gradient.report import GradientReport, GradientRow
from nbopt.gradient.slopes import Slope, hint, settled

__all__ = ["GradientReport", "GradientRow", "check_gradient"]

# Steps are LARGEST of the size of the parameter, a quarter of it, and so on, so many for each dtype.
LARGEST = 0.25
LEVELS = {"float32": 6, "float64": 11}
RTOL = {"float32": 1e-2, "float64": 1e-4}

Vector = NDArray[np.float64]


@check_calls
def check_gradient(
    fun: Callable[..., Any],
    params: ParameterBuffer,
    *,
    args: Any = (),
    names: str = "*",
    directions: int = 2,
    coordinates: int = 4,
    rtol: float | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare the gradients that a function writes with slopes measured from its losses.

    Parameters
    ----------
    fun : callable
        ``fun(params, *args)`` writes the gradients of `params` and returns the loss, as for `minimize`. It
        must give the same loss for the same values: fix its random numbers and its batch.
    params : ParameterBuffer
        Checked at its present values. What it holds, gradients included, is afterwards what it was.
    args : tuple
        Further arguments of `fun`; what is no tuple is the only one.
    names : str
        Parameters to check, an `fnmatch` pattern. What is frozen is left out.
    directions : int
        Random directions per parameter, all of its elements moved at once. They find a wrong element wherever
        it is; the worst one is then searched for by halving.
    coordinates : int
        Single elements per parameter: the one with the largest gradient, and others drawn at random. A
        parameter of no more elements is checked whole.
    rtol : float, optional
        The relative difference that still passes: by default 1e-2 for float32, 1e-4 for float64.
    seed : int
        Of the directions and the draws.

    Returns
    -------
    GradientReport
        Printed, one row per parameter: the ratio of written to numeric where they differ most, the index of
        that element, and what such a ratio often comes from. ``report.ok`` tells whether all agree.

    Raises
    ------
    TypeError, ParameterError
        If an argument cannot be used, `fun` returns no finite number, or it changes the parameters.

    Notes
    -----
    Of a weight-normed parameter dL/dw is checked, which is what `fun` writes. Slopes are central differences
    over steps of 1/4, 1/16, ... of the parameter's size (root mean square), and along one element of its own
    size first; of these, the four in a row count that agree best. How far they are apart, and what the
    rounding of the losses makes of them, tells how sure the slope is. A step is what is left of it after
    rounding to the dtype of the parameters. Small errors are found best with float64 parameters. `fun`
    is called about ``12 * (directions + coordinates)`` times per parameter in float32, and almost twice as
    often in float64.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0], "b": [0.5]})
    >>> def fun(params):
    ...     w, b = params["w"], params["b"]
    ...     residual = w.value.sum() + b.value[0] - 1.0
    ...     w.grad[:] = 2.0 * residual
    ...     b.grad[:] = residual  # forgets the factor 2
    ...     return residual**2
    >>> print(nb.check_gradient(fun, params))
    name  shape  ratio  worst at  written  numeric  verdict
    ------...
    w     2      1      (0,)      5        5        ok
    b     1      0.5    (0,)      2.5      5        wrong: 0.5 times the slope throughout: a factor...
    1 ok, 1 wrong; ... calls of fun
    """
    if not callable(fun):
        raise TypeError(f"fun must be callable, got {type(fun).__name__}")
    if not isinstance(params, ParameterBuffer):
        raise TypeError(
            f"params must be a ParameterBuffer, got {type(params).__name__}; write nb.check_gradient(fun, "
            "params), or for a function of a vector scipy.optimize.check_grad(fun, jac, x0)"
        )
    directions = as_integer(directions, "directions", low=0)
    coordinates = as_integer(coordinates, "coordinates", low=1)
    allowed = RTOL[params.dtype.name] if rtol is None else as_number(rtol, "rtol", low=0.0, open_low=True)
    chosen = [p for p in params.select(names) if p.trainable and p.size]
    if not chosen:
        raise ParameterError(f"names={names!r} chooses no parameter that trains")
    seed = as_integer(seed, "seed", low=0)
    losses = Losses(fun, params, args if isinstance(args, tuple) else (args,))
    rows: list[GradientRow] = []
    with losses:
        for p in chosen:
            rng = np.random.default_rng([seed, len(rows)])
            rows.append(_Check(losses, p.name, p.shape, allowed, rng).row(directions, coordinates))
    return GradientReport(tuple(rows), losses.loss, losses.calls, losses.noise)


class _Check:
    """One parameter's row."""

    def __init__(
        self,
        losses: Losses,
        name: str,
        shape: tuple[int, ...],
        rtol: float,
        rng: np.random.Generator,
    ):
        self._losses, self._name, self._shape, self._rtol, self._rng = losses, name, shape, rtol, rng
        self._values, self._grad = losses.of(name)
        self._scale = rms(self._values) or losses.scale

    def row(self, directions: int, coordinates: int) -> GradientRow:
        bad = np.flatnonzero(~np.isfinite(self._grad))
        if bad.size:
            value, at = float(self._grad[bad[0]]), self._index(int(bad[0]))
            return self._row(math.nan, at, value, math.nan, "wrong", f"{bad.size} of the elements written")
        n = self._values.size
        slopes = [self._element(i) for i in self._chosen(coordinates)]
        if n > coordinates:
            slopes += [self._direction(0, n) for _ in range(directions)]
        wrong = self._wrong(slopes)
        if wrong and all(s.index is None for s in wrong):
            slopes.append(self._element(self._search()))
            wrong = self._wrong(slopes)
        clear = [s for s in slopes if s.verdict(self._rtol) != "unclear"]
        if wrong:
            verdict, told = "wrong", hint(wrong, clear, self._grad)
        elif 2 * len(clear) < len(slopes):
            verdict, told = "unclear", "the losses are too rough or too coarse to tell; try float64"
        else:
            verdict, told = "ok", ""
        candidates = wrong or slopes
        worst = max([s for s in candidates if s.index is not None] or candidates, key=lambda s: s.badness)
        place = None if worst.index is None else self._index(worst.index)
        return self._row(worst.ratio, place, worst.written, worst.numeric, verdict, told)

    def _wrong(self, slopes: list[Slope]) -> list[Slope]:
        return [s for s in slopes if s.verdict(self._rtol) == "wrong"]

    def _row(self, *found: Any) -> GradientRow:
        return GradientRow(self._name, self._shape, *found)

    def _index(self, i: int) -> tuple[int, ...]:
        return tuple(int(k) for k in np.unravel_index(i, self._shape))

    def _chosen(self, count: int) -> list[int]:
        """Return the element of the largest gradient, and others at random."""
        n = self._values.size
        if n <= count:
            return list(range(n))
        drawn = self._rng.choice(n, size=count, replace=False).tolist()
        largest = int(np.argmax(np.abs(self._grad)))
        return [largest, *(i for i in drawn if i != largest)][:count]

    def _element(self, i: int) -> Slope:
        """Measure along one element, by steps of its own size, or where those tell little, of that of all."""
        unit = np.zeros(self._values.size)
        slopes = []
        for size in (abs(float(self._values[i])), self._scale):
            if size:
                unit[i] = size
                slopes.append(self._slope(unit, i))
                if slopes[-1].uncertainty <= self._rtol:
                    break
        return min(slopes, key=lambda slope: slope.uncertainty)

    def _direction(self, start: int, stop: int) -> Slope:
        """Measure along the elements from `start` to `stop` at once."""
        unit = np.zeros(self._values.size)
        unit[start:stop] = self._scale * self._rng.choice([-1.0, 1.0], stop - start)
        return self._slope(unit, None)

    def _search(self) -> int:
        """Return an element that is wrong, by halving, towards where the difference is larger."""
        start, stop = 0, self._values.size
        while stop - start > 1:
            middle = (start + stop) // 2
            left, right = self._direction(start, middle), self._direction(middle, stop)
            start, stop = (start, middle) if abs(left.difference) >= abs(right.difference) else (middle, stop)
        return start

    def _slope(self, unit: Vector, index: int | None) -> Slope:
        """Measure the slope along `unit`, in units of its length."""
        length = rms(unit) * math.sqrt(unit.size)
        values, dtype = self._values.astype(np.float64), self._values.dtype
        estimates, rounding = [], []
        for level in range(LEVELS[dtype.name]):
            step = LARGEST / 4.0**level
            ahead, behind = ((values + sign * step * unit).astype(dtype) for sign in (1.0, -1.0))
            moved = ahead.astype(np.float64) - behind
            losses = [self._losses.at(self._name, at) for at in (ahead, behind)]
            difference = losses[0] - losses[1] - float(self._grad @ moved)
            if math.isfinite(difference) and moved.any():  # not where rounding undoes a step
                estimates.append(difference / (2.0 * step * length))
                unsure = max(self._losses.noise, self._losses.precision * max(map(abs, losses)))
                rounding.append(unsure / (2.0 * step * length))
        difference, error = settled(estimates, rounding)
        typical = rms(self._grad) * math.sqrt(np.count_nonzero(unit)) * 1e-2
        return Slope(float(self._grad @ unit) / length, difference, error, typical, index)
