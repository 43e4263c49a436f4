"""One update of an average, beside a NumPy loop and, where it is installed, torch's AveragedModel."""

from __future__ import annotations

import importlib.util

from .average import DECAY, KINDS, NumPyAverage, nbopt_average
from .common import LAYOUTS, arrays


class Update:
    """Few and many parameters; the mean takes no window's end in."""

    param_names = ["layout", "kind"]
    params = [list(LAYOUTS), KINDS]

    def setup(self, layout: str, kind: str) -> None:
        self.average, self.loop = nbopt_average(layout, kind), NumPyAverage(layout, kind)
        self.update = self.average.step if kind == "mean" else self.average.update
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
