"""Optimizers: a rule and the policies of the parameters it moves, taken in one compiled call."""

from typing import NoReturn

from nbopt.optimizer import lr
from nbopt.optimizer.adam import Adam
from nbopt.optimizer.adamw import AdamW
from nbopt.optimizer.base import Optimizer
from nbopt.optimizer.momentum import Momentum
from nbopt.optimizer.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Optimizer", "lr"]


def __getattr__(name: str) -> NoReturn:
    hint = f"; there are {', '.join(__all__)}, and nbopt.rule makes others" if name[:1].isupper() else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
