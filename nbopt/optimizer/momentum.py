"""Momentum, plain and Nesterov."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import as_flag
from nbopt.clip import GradientClip
from nbopt.kernels import rules
from nbopt.optimizer.base import Optimizer
from nbopt.optimizer.groups import as_fraction, as_switch
from nbopt.optimizer.lr.base import LRScheduler

__all__ = ["Momentum"]


@check_calls
class Momentum(Optimizer):
    """Gradient descent with momentum.

    ``v = momentum * v + g``, then ``p -= lr * v``, or with `use_nesterov` ``p -= lr * (g + momentum * v)``,
    where g is the gradient after clip and regularization. v starts at zero; there is no dampening.

    Parameters
    ----------
    learning_rate : float or LRScheduler
        The base rate, finite and >= 0, or a schedule of it.
    momentum : float
        In [0, 1).
    parameters : ParameterBuffer, list of Parameter, or list of dict
        See `Optimizer`.
    use_nesterov : bool
        Legal with ``momentum=0`` too.
    weight_decay, grad_clip, name, nonfinite
        See `Optimizer`.
    multi_precision, use_multi_tensor : bool
        Accepted as in Paddle; they change nothing here, where everything is one call.
    rescale_grad : float
        Multiplies the gradient before everything else, also where `need_clip` is False.

    Notes
    -----
    Polyak (1964); Nesterov's form of Sutskever et al. (2013); arguments of Paddle's `Momentum`.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, -2.0]})
    >>> opt = nb.optimizer.Momentum(0.1, momentum=0.9, parameters=params, use_nesterov=True)
    >>> opt.step({"w": [0.1, 0.2]})
    >>> params["w"].value
    array([ 0.981, -2.038])
    """

    _checks = MappingProxyType({"momentum": as_fraction, "use_nesterov": as_switch})

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.001,
        momentum: float = 0.9,
        parameters: Any = None,
        use_nesterov: bool = False,
        weight_decay: Any = None,
        grad_clip: GradientClip | None = None,
        multi_precision: bool = False,
        rescale_grad: float = 1.0,
        use_multi_tensor: bool = False,
        name: str | None = None,
        *,
        nonfinite: str = "raise",
    ):
        as_flag(multi_precision, "Momentum multi_precision")
        as_flag(use_multi_tensor, "Momentum use_multi_tensor")
        super().__init__(
            rules.momentum,
            learning_rate,
            parameters,
            weight_decay,
            grad_clip,
            name,
            nonfinite=nonfinite,
            momentum=momentum,
            use_nesterov=use_nesterov,
            rescale_grad=rescale_grad,
        )
