"""Schedules that the tests share: those that were recorded, and others at the edges."""

from functools import partial

import nbopt as nb
from tests.recordings import build_schedule, load

lr = nb.optimizer.lr
TABLE = load("lr_tables")

RECORDED = {name: partial(build_schedule, spec) for name, spec in TABLE.meta["schedulers"].items()}


def wave(epoch):
    return 1.0 + 0.5 * (epoch % 3)


class Halving(lr.LRScheduler):
    """One of the user's that goes by its last rate, and remembers something."""

    def __init__(self, learning_rate, last_epoch=-1, verbose=False):
        self.asked = 0
        super().__init__(learning_rate, last_epoch, verbose)

    def state_keys(self):
        self.keys = ["last_epoch", "last_lr", "asked"]

    def get_lr(self):
        self.asked += 1
        return self.last_lr * 0.5 if self.last_epoch else self.base_lr


class Ramp(lr.LRScheduler):
    """One of the user's in closed form."""

    def get_lr(self):
        return self.base_lr * (1 + self.last_epoch % 7)


EDGES = {
    "noam-long": lambda: lr.NoamDecay(512, 30, 2.0),
    "multistep-none": lambda: lr.MultiStepDecay(0.3, []),
    "multistep-at-0": lambda: lr.MultiStepDecay(0.3, (0, 1, 40), 0.7),
    "step-0": lambda: lr.StepDecay(0.3, 7, 0.0),
    "piecewise-one": lambda: lr.PiecewiseDecay((10,), (1, 0.0)),
    "poly-rising": lambda: lr.PolynomialDecay(0.1, 13, 0.7, 0.5),
    "poly-cycle-1": lambda: lr.PolynomialDecay(0.3, 1, cycle=True),
    "exp-tiny": lambda: lr.ExponentialDecay(0.3, 1e-9),
    "cosine-1": lambda: lr.CosineAnnealingDecay(0.3, 1, 0.1),
    "cosine-rising": lambda: lr.CosineAnnealingDecay(0.1, 11, 0.5),
    "restarts-3": lambda: lr.CosineAnnealingWarmRestarts(0.3, 3, 3, 0.01),
    "restarts-1x5": lambda: lr.CosineAnnealingWarmRestarts(0.3, 1, 5),
    "onecycle-1": lambda: lr.OneCycleLR(0.3, 1),
    "onecycle-pct-0": lambda: lr.OneCycleLR(0.3, 20, phase_pct=0),
    "onecycle-pct-1": lambda: lr.OneCycleLR(0.3, 20, phase_pct=1),
    "onecycle3-cos": lambda: lr.OneCycleLR(0.3, 30, 4, 0.02, 0.21, "cos", True),
    "cyclic-1": lambda: lr.CyclicLR(0.3, 0.1, 1),
    "cyclic-own": lambda: lr.CyclicLR(0.1, 0.3, 4, 3, scale_fn=lambda cycle: 1 / cycle),
    "cyclic-own-step": lambda: lr.CyclicLR(0.1, 0.3, 4, scale_fn=wave, scale_mode="iterations"),
    "linear-falling": lambda: lr.LinearLR(0.3, 17, 1, 0),
    "lambda-wave": lambda: lr.LambdaDecay(0.3, wave),
    "multiplicative-wave": lambda: lr.MultiplicativeDecay(1e-3, wave),
    "warmup-warmup": lambda: lr.LinearWarmup(
        lr.LinearWarmup(lr.CosineAnnealingDecay(0.3, 9), 5, 0.1, 0.3), 4, 0.0, 0.1
    ),
    "warmup-own": lambda: lr.LinearWarmup(Ramp(0.1), 6, 0.0, 0.3),
    "own": lambda: Ramp(0.01),
}

# A function of the step number, all of them.
CLOSED = RECORDED | EDGES

# These go from step to step, or need a metric.
STATEFUL = {
    "own-recursive": lambda: Halving(0.4),
    "warmup-own-recursive": lambda: lr.LinearWarmup(Halving(0.4), 5, 0.0, 0.4),
    "plateau": lambda: lr.ReduceOnPlateau(0.4, factor=0.7, patience=2, cooldown=2),
    "plateau-max": lambda: lr.ReduceOnPlateau(0.4, "max", 0.5, 0, 0.1, "abs", 1, 0.01),
}


def advance(schedule, epoch):
    """One step; of a plateau, with a metric that is made of the step number."""
    if isinstance(schedule, lr.ReduceOnPlateau):
        schedule.step(1.0 / (1 + epoch // 6))
    else:
        schedule.step()


def walk(schedule, steps):
    """The rates of steps 0 to `steps` - 1."""
    rates = []
    for epoch in range(steps):
        rates.append(schedule())
        advance(schedule, epoch)
    return rates
