"""What the tables of wrong inputs share: the small model that a call is made on."""

from functools import cached_property

import numpy as np

import nbopt as nb

NAN, INF = float("nan"), float("inf")


class Model:
    """A fresh model: w (2, 3) and b (3,), moved by Momentum once, a schedule, an average, a file of them all.

    What a table needs beside the parameters and the optimizer is made when it is asked for.
    """

    def __init__(self, folder):
        self.folder = folder
        self.params = nb.ParameterBuffer.from_arrays(
            {"w": np.arange(1, 7, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float32)}
        )
        self.w, self.b = self.params.values()
        self.opt = nb.optimizer.Momentum(0.1, 0.9, self.params)
        self.good_step()

    def good_step(self):
        self.opt.step({"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)})

    @cached_property
    def other(self):
        """Another buffer with the same names."""
        return nb.ParameterBuffer.from_arrays({"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)})

    @cached_property
    def normed(self):
        attrs = {"w": nb.WeightNormParamAttr(dim=0)}
        return nb.ParameterBuffer.from_arrays({"w": np.ones((2, 3), np.float32)}, attrs=attrs)

    @cached_property
    def scheduled(self):
        """An optimizer of the same parameters that follows a schedule."""
        return nb.optimizer.Momentum(nb.optimizer.lr.StepDecay(0.5, 3), 0.9, self.params)

    @cached_property
    def schedule(self):
        return nb.optimizer.lr.StepDecay(0.5, step_size=3)

    @cached_property
    def average(self):
        average = nb.ModelAverage(0.5, self.params, 2, 4)
        average.step()
        return average

    @cached_property
    def path(self):
        path = self.folder / "run.safetensors"
        nb.save(path, self.params, self.opt)
        return path

    def state(self, **changes):
        """Another state than that of the optimizer, with some entries changed; None leaves one out."""
        state = self.opt.state_dict()
        state |= {key: 2 * value for key, value in state.items() if key != "rule"}
        state |= {key.replace("__", "."): value for key, value in changes.items()}
        return {key: value for key, value in state.items() if value is not None}
