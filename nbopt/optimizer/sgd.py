"""Gradient descent."""

from __future__ import annotations

from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import as_flag
from nbopt.clip import GradientClip
from nbopt.kernels import rules
from nbopt.optimizer.base import Optimizer
from nbopt.optimizer.lr.base import LRScheduler

__all__ = ["SGD"]


@check_calls
class SGD(Optimizer):
    """Gradient descent, ``p -= lr * g``, where g is the gradient after clip and regularization.

    Parameters
    ----------
    learning_rate : float or LRScheduler
        The base rate, finite and >= 0, or a schedule of it.
    parameters : ParameterBuffer, list of Parameter, or list of dict
        See `Optimizer`.
    weight_decay, grad_clip, name, nonfinite
        See `Optimizer`.
    multi_precision : bool
        Accepted as in Paddle; it changes nothing here.

    Notes
    -----
    Robbins and Monro (1951); arguments of Paddle's `SGD`.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, -2.0]})
    >>> opt = nb.optimizer.SGD(0.1, parameters=params, weight_decay=0.1)
    >>> opt.step({"w": [0.1, 0.2]})
    >>> params["w"].value
    array([ 0.98, -2.  ])
    """

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.001,
        parameters: Any = None,
        weight_decay: Any = None,
        grad_clip: GradientClip | None = None,
        multi_precision: bool = False,
        name: str | None = None,
        *,
        nonfinite: str = "raise",
    ):
        as_flag(multi_precision, "SGD multi_precision")
        super().__init__(
            rules.sgd, learning_rate, parameters, weight_decay, grad_clip, name, nonfinite=nonfinite
        )
