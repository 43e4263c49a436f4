"""One step of Momentum."""

from __future__ import annotations

from .common import LAYOUTS, SETTINGS, NumPyMomentum, nbopt_momentum
from .weight_norm import DIMS, NORMED, nbopt_weight_norm, numpy_weight_norm


class Step:
    """Few and many parameters, with and without clip and L2."""

    param_names = ["layout", "setting"]
    params = [list(LAYOUTS), list(SETTINGS)]

    def setup(self, layout: str, setting: str) -> None:
        self.opt = nbopt_momentum(layout, setting)
        self.loop = NumPyMomentum(layout, setting)
        self.opt.step()  # compiles
        self.loop.step()

    def time_nbopt(self, layout: str, setting: str) -> None:
        self.opt.step()

    def time_numpy(self, layout: str, setting: str) -> None:
        self.loop.step()


class NonFinite:
    """What the guard costs where no clip needs the norm; the loop in NumPy has no guard."""

    param_names = ["layout", "nonfinite"]
    params = [["10x100", "1x1e6"], ["raise", "skip", "propagate"]]

    def setup(self, layout: str, nonfinite: str) -> None:
        self.opt = nbopt_momentum(layout, "plain", nonfinite=nonfinite)
        self.loop = NumPyMomentum(layout, "plain")
        self.opt.step()
        self.loop.step()

    def time_nbopt(self, layout: str, nonfinite: str) -> None:
        self.opt.step()

    def time_numpy(self, layout: str, nonfinite: str) -> None:
        self.loop.step()


class WeightNorm:
    """From dL/dw to the next w, with clip and L2."""

    param_names = ["layout", "dim"]
    params = [list(NORMED), DIMS]

    def setup(self, layout: str, dim: int | None) -> None:
        self.opt = nbopt_weight_norm(layout, dim)
        self.loop = numpy_weight_norm(layout, dim)
        self.opt.step()
        self.loop.step()

    def time_nbopt(self, layout: str, dim: int | None) -> None:
        self.opt.step()

    def time_numpy(self, layout: str, dim: int | None) -> None:
        self.loop.step()
