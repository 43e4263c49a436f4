"""Optimizers: a rule and the policies of the parameters it moves, taken in one compiled call."""

from nbopt.optimizer import lr
from nbopt.optimizer.adam import Adam
from nbopt.optimizer.adamw import AdamW
from nbopt.optimizer.base import Optimizer
from nbopt.optimizer.momentum import Momentum
from nbopt.optimizer.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Optimizer", "lr"]
