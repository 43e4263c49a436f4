"""Slopes measured along one direction, and what a difference from the written gradient may mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Slope", "hint", "settled"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """The slope along one direction: what is written, and how far the losses are from that."""

    written: float
    difference: float  # numeric - written
    error: float
    typical: float  # a slope below that does not count
    index: int | None

    @property
    def numeric(self) -> float:
        """The slope of the losses."""
        return self.written + self.difference

    @property
    def _size(self) -> float:
        return max(abs(self.written), abs(self.numeric), self.typical)

    @property
    def uncertainty(self) -> float:
        """The error, relative."""
        return self.error / self._size if self._size else math.inf

    def fits(self, factor: float) -> bool:
        """Whether what is written may be so many times the slope."""
        off = abs(self.written - factor * self.numeric)
        return off <= 0.005 * self._size + 3.0 * abs(factor) * self.error

    def verdict(self, rtol: float) -> str:
        """Return "ok", "wrong" or "unclear"."""
        if not abs(self.difference) <= rtol * self._size + 3.0 * self.error:
            return "wrong"
        nothing = self.written == 0.0 and math.isfinite(self.error)
        return "ok" if nothing or self.uncertainty <= 0.1 else "unclear"

    @property
    def badness(self) -> float:
        """The relative difference that no error explains."""
        return max(abs(self.difference) - 3.0 * self.error, 0.0) / (self._size or 1.0)

    @property
    def ratio(self) -> float:
        """Written over numeric; infinite where the losses have no slope, and 1 where neither has one."""
        if self.numeric == 0.0 or abs(self.numeric) <= 3.0 * self.error < abs(self.written):
            return math.copysign(math.inf, self.written) if self.written else 1.0
        if self.written == 0.0 and abs(self.numeric) <= 3.0 * self.error:
            return 1.0
        return self.written / self.numeric


def settled(estimates: list[float], rounding: list[float]) -> tuple[float, float]:
    """Return the estimate of the four steps in a row that agree best, and how sure it is.

    Large steps leave the straight part of the loss, small ones meet its rounding, and at kinks two estimates
    may agree by chance. Those of losses that rounding made equal agree too: hence the second list.

    Parameters
    ----------
    estimates : list of float
        Of the slope, the largest step first.
    rounding : list of float
        What the rounding of the losses makes of each.

    Returns
    -------
    estimate, error : float
        The error is how far the four are apart, or what rounding makes of them, if that is more.
    """
    if len(estimates) < 4:
        return (estimates[-1] if estimates else 0.0), math.inf
    apart = [*map(abs, np.diff(estimates))]
    errors = [max(*apart[i : i + 3], *rounding[i : i + 4]) for i in range(len(estimates) - 3)]
    best = int(np.argmin(errors))
    return float(np.median(estimates[best : best + 4])), float(errors[best])


def hint(wrong: list[Slope], clear: list[Slope], grad: Vector) -> str:
    """Say what the wrong ones among slopes often come from."""
    if not grad.any():
        return "all zeros: is it written?"
    factor = min(wrong, key=lambda s: s.uncertainty).ratio
    if math.isinf(factor) and len(wrong) == len(clear):
        return "the loss does not change with it: does fun read it?"
    if math.isfinite(factor) and all(s.fits(factor) for s in clear):
        if abs(factor + 1.0) <= 0.02:
            return "the sign is turned throughout"
        return f"{factor:.4g} times the slope throughout: a factor or a mean over other things?"
    if len(wrong) < len(clear):
        return "in part of the elements: an index, a boundary or a term?"
    return "by different factors: a term is missing, or a wrong one is there"
