"""Initializers: what a parameter holds before its first step.

An initializer is an immutable value: equal arguments make equal initializers, and all randomness
comes from the generator handed to `draw`. Names, arguments and fans are those of Paddle 3.3.1
(``paddle.nn.initializer``), which checks arguments at their use or never; here they are checked at
once: a wrong type is a `TypeError`, a value out of its range a `HyperparameterError`, and a shape
that an initializer cannot fill a `ParameterError`, raised by `draw`.

Sources: Glorot and Bengio, AISTATS 2010 (Xavier); He, Zhang, Ren and Sun, ICCV 2015 (Kaiming);
Saxe, McClelland and Ganguli, ICLR 2014, and Mezzadri, Notices of the AMS 54(5), 2007 (Orthogonal);
Long, Shelhamer and Darrell, CVPR 2015 (Bilinear); Zagoruyko and Komodakis, 2017 (Dirac).
"""

from nbopt.initializer.base import Initializer
from nbopt.initializer.everywhere import set_global_initializer
from nbopt.initializer.plain import Constant, Normal, TruncatedNormal, Uniform
from nbopt.initializer.scaled import (
    KaimingNormal,
    KaimingUniform,
    XavierNormal,
    XavierUniform,
    calculate_gain,
)
from nbopt.initializer.shaped import Assign, Bilinear, Dirac, Orthogonal

__all__ = [
    "Assign",
    "Bilinear",
    "Constant",
    "Dirac",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "Normal",
    "Orthogonal",
    "TruncatedNormal",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "calculate_gain",
    "set_global_initializer",
]
