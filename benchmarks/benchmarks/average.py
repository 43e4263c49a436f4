"""The averages that are timed, and the plain NumPy loop that does the same update."""

from __future__ import annotations

import numpy as np

import nbopt as nb

from .common import arrays

KINDS = ["mean", "exponential"]
DECAY = 1.0 - 2.0**-10  # a float32 number


def nbopt_average(layout: str, kind: str) -> nb.ModelAverage | nb.ExponentialMovingAverage:
    """An average of a buffer of this layout."""
    values, _ = arrays(layout)
    params = nb.ParameterBuffer.from_arrays({f"p{i}": value for i, value in enumerate(values)})
    if kind == "mean":
        return nb.ModelAverage(0.15, params)
    return nb.ExponentialMovingAverage(DECAY, params)


class NumPyAverage:
    """The loop that one writes without nbopt."""

    def __init__(self, layout: str, kind: str) -> None:
        self.values, _ = arrays(layout)
        self.sums = [np.zeros_like(value) for value in self.values]
        self.work = np.empty_like(self.values[0])
        self.update = self.add if kind == "mean" else self.decay

    def add(self) -> None:
        for value, total in zip(self.values, self.sums, strict=True):
            np.add(total, value, out=total)

    def decay(self) -> None:
        for value, average in zip(self.values, self.sums, strict=True):
            np.multiply(average, DECAY, out=average)
            np.multiply(value, 1.0 - DECAY, out=self.work)
            np.add(average, self.work, out=average)
