"""Schedules of the learning rate, under Paddle's names; closed forms of the step number in float64."""

import difflib
from typing import NoReturn

from nbopt._calls import check_calls
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.lr.cycle import (
    CosineAnnealingDecay,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    OneCycleLR,
)
from nbopt.optimizer.lr.decay import (
    ExponentialDecay,
    InverseTimeDecay,
    MultiStepDecay,
    NaturalExpDecay,
    NoamDecay,
    PiecewiseDecay,
    PolynomialDecay,
    StepDecay,
)
from nbopt.optimizer.lr.functions import LambdaDecay, MultiplicativeDecay
from nbopt.optimizer.lr.linear import LinearLR, LinearWarmup
from nbopt.optimizer.lr.plateau import ReduceOnPlateau

__all__ = [
    "CosineAnnealingDecay",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LRScheduler",
    "LambdaDecay",
    "LinearLR",
    "LinearWarmup",
    "MultiStepDecay",
    "MultiplicativeDecay",
    "NaturalExpDecay",
    "NoamDecay",
    "OneCycleLR",
    "PiecewiseDecay",
    "PolynomialDecay",
    "ReduceOnPlateau",
    "StepDecay",
]

for _name in __all__:
    check_calls(globals()[_name])


def __getattr__(name: str) -> NoReturn:
    close = difflib.get_close_matches(name, __all__, n=1, cutoff=0.5) if name[:1].isupper() else []
    hint = f"; did you mean {close[0]}?" if close else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
