"""Averages of parameters over steps, to evaluate and to export with."""

from nbopt.averaging.exponential import ExponentialMovingAverage
from nbopt.averaging.window import ModelAverage

__all__ = ["ExponentialMovingAverage", "ModelAverage"]
