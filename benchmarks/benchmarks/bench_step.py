"""One step of Momentum."""

from __future__ import annotations

from .common import LAYOUTS, SETTINGS, NumPyMomentum, nbopt_momentum


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
