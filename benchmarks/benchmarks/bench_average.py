"""One update of an average, beside a NumPy loop and, where it is installed, torch's AveragedModel."""

from __future__ import annotations

import importlib.util

import numpy as np

import nbopt as nb

from .common import LAYOUTS, arrays

KINDS = ["mean", "exponential"]
DECAY = 0.999


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


class Update:
    """Few and many parameters; the mean takes no window's end in."""

    param_names = ["layout", "kind"]
    params = [list(LAYOUTS), KINDS]

    def setup(self, layout: str, kind: str) -> None:
        average = nbopt_average(layout, kind)
        self.update = average.step if kind == "mean" else average.update
        self.loop = NumPyAverage(layout, kind)
        self.update()  # compiles
        self.loop.update()

    def time_nbopt(self, layout: str, kind: str) -> None:
        self.update()

    def time_numpy(self, layout: str, kind: str) -> None:
        self.loop.update()


class Apply:
    """Averages in place of the parameters, and back."""

    param_names = ["layout"]
    params = [list(LAYOUTS)]

    def setup(self, layout: str) -> None:
        self.average = nbopt_average(layout, "mean")
        self.average.step()
        with self.average.apply():
            pass

    def time_nbopt(self, layout: str) -> None:
        with self.average.apply():
            pass


if importlib.util.find_spec("torch"):

    class Torch:
        """The same update in torch: the parameters of a module into their averages."""

        param_names = ["layout", "kind"]
        params = [list(LAYOUTS), KINDS]

        def setup(self, layout: str, kind: str) -> None:
            import torch
            from torch.optim import swa_utils

            values, _ = arrays(layout)
            self.module = torch.nn.ParameterList(torch.from_numpy(value) for value in values)
            multi = swa_utils.get_ema_multi_avg_fn(DECAY) if kind == "exponential" else None
            self.average = swa_utils.AveragedModel(self.module, multi_avg_fn=multi)
            for _ in range(2):  # the first one copies
                self.average.update_parameters(self.module)

        def time_torch(self, layout: str, kind: str) -> None:
            self.average.update_parameters(self.module)
