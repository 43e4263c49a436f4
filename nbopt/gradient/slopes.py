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

    def verdict(self, rtol: float) -> str:
        """Return "ok", "wrong" or "unclear"."""
        size = self._size
        if not abs(self.difference) <= rtol * size + 3.0 * self.error:
            return "wrong"
        return "ok" if self.error <= 0.1 * size or self.written == 0.0 else "unclear"

    @property
    def badness(self) -> float:
        """The relative difference that no error explains."""
        return max(abs(self.difference) - 3.0 * self.error, 0.0) / (self._size or 1.0)

    @property
    def ratio(self) -> float:
        """Written over numeric."""
        if self.numeric == 0.0 or (self.written == 0.0 and abs(self.numeric) <= 3.0 * self.error):
            return math.copysign(math.inf, self.written) if self.written else 1.0
        return self.written / self.numeric


def settled(estimates: list[float]) -> tuple[float, float]:
    """Return the estimate of the four steps in a row that agree best, and how far apart they are.

    Large steps leave the straight part of the loss, small ones meet its rounding, and at kinks two estimates
    may agree by chance.
    """
    if len(estimates) < 4:
        return (estimates[-1] if estimates else 0.0), math.inf
    apart = np.abs(np.diff(estimates))
    worst = np.max([apart[:-2], apart[1:-1], apart[2:]], axis=0)
    best = int(np.argmin(worst))
    return float(np.median(estimates[best : best + 4])), float(worst[best])


def hint(found: list[Slope], slopes: list[Slope], grad: Vector) -> str:
    """Say what a difference of this kind often comes from."""
    if not grad.any():
        return "all zeros: is it written?"
    ratios = np.array([p.ratio for p in slopes])
    if len(found) == len(slopes) and np.ptp(ratios) <= 0.02 * abs(ratios[0]):
        if abs(ratios[0] + 1.0) <= 0.02:
            return "the sign is turned throughout"
        return f"{ratios[0]:.4g} times the slope throughout: a factor or a mean over other things?"
    if len(found) < len(slopes):
        return "in part of the elements: an index, a boundary or a term?"
    return "by different factors: a term is missing, or a wrong one is there"
