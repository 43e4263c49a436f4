"""Adam."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import as_flag, as_number
from nbopt.clip import GradientClip
from nbopt.kernels import rules
from nbopt.optimizer.base import Optimizer
from nbopt.optimizer.groups import as_fraction
from nbopt.optimizer.lr.base import LRScheduler

__all__ = ["ADAM_CHECKS", "Adam", "check_flags"]


def _as_epsilon(value: Any, name: str) -> float:
    return as_number(value, name, low=0.0)


ADAM_CHECKS = MappingProxyType({"beta1": as_fraction, "beta2": as_fraction, "epsilon": _as_epsilon})


def check_flags(kind: str, **flags: bool) -> None:
    """Refuse what is no flag."""
    for name, value in flags.items():
        as_flag(value, f"{kind} {name}")


@check_calls
class Adam(Optimizer):
    """Adam: steps scaled by running moments of the gradient.

    With g the gradient after clip and regularization, ``m1 = beta1 * m1 + (1 - beta1) * g`` and
    ``m2 = beta2 * m2 + (1 - beta2) * g**2``, both from zero; then ``p -= lr * c1 / (sqrt(c2) + epsilon)``,
    where ``c1 = m1 / (1 - beta1**t)`` and ``c2 = m2 / (1 - beta2**t)`` correct the start at the t-th update
    of the parameter.

    Parameters
    ----------
    learning_rate : float or LRScheduler
        The base rate, finite and >= 0, or a schedule of it.
    beta1, beta2 : float
        In [0, 1).
    epsilon : float
        Finite and >= 0. With 0, an element whose gradients were all zero becomes NaN.
    parameters : ParameterBuffer, list of Parameter, or list of dict
        See `Optimizer`.
    weight_decay, grad_clip, name, nonfinite
        See `Optimizer`; the decay is coupled, a part of the gradient. `AdamW` decouples it.
    lazy_mode, multi_precision, use_multi_tensor : bool
        Accepted as in Paddle; they change nothing here, where everything is one call.
    amsgrad : bool
        Divide by the largest m2 so far.

    Notes
    -----
    Kingma and Ba (2015); `amsgrad` of Reddi et al. (2018), over uncorrected moments as in Paddle and torch;
    arguments of Paddle's `Adam`. The accumulators are ``moment1``, ``moment2`` and ``moment2_max``.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, -2.0]})
    >>> opt = nb.optimizer.Adam(0.1, parameters=params)
    >>> opt.step({"w": [0.1, 20.0]})
    >>> params["w"].value.round(4)
    array([ 0.9, -2.1])
    """

    _checks = ADAM_CHECKS

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        parameters: Any = None,
        weight_decay: Any = None,
        grad_clip: GradientClip | None = None,
        lazy_mode: bool = False,
        multi_precision: bool = False,
        use_multi_tensor: bool = False,
        amsgrad: bool = False,
        name: str | None = None,
        *,
        nonfinite: str = "raise",
    ):
        check_flags(
            "Adam",
            lazy_mode=lazy_mode,
            multi_precision=multi_precision,
            use_multi_tensor=use_multi_tensor,
            amsgrad=amsgrad,
        )
        super().__init__(
            rules.adam_amsgrad if amsgrad else rules.adam,
            learning_rate,
            parameters,
            weight_decay,
            grad_clip,
            name,
            nonfinite=nonfinite,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
        )
