"""Update rules: functions of floats whose signature is their schema.

`param`, the accumulators (they start at zero), `grad`, `lr`, the hyper-parameters. A rule returns the new
parameter and the new accumulators, in that order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Rule", "momentum", "sgd"]


@dataclass(frozen=True)
class Rule:
    """An update rule and what its signature says.

    Attributes
    ----------
    function : callable
        The scalar function.
    accumulators : tuple of str
        Names of what the rule keeps per element.
    hyper : tuple of str
        Names of the hyper-parameters.
    defaults : dict
        The defaults of the hyper-parameters that have one.
    """

    function: Callable[..., Any]
    accumulators: tuple[str, ...] = field(init=False)
    hyper: tuple[str, ...] = field(init=False)
    defaults: dict[str, float] = field(init=False, hash=False, compare=False)

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.function).parameters
        names = list(parameters)
        try:
            grad, lr = names.index("grad"), names.index("lr")
        except ValueError:
            grad = lr = -1
        if names[:1] != ["param"] or lr != grad + 1 or grad < 1:
            raise TypeError(
                f"{self.function.__name__}({', '.join(names)}) is no update rule: write "
                "def rule(param, <accumulators>, grad, lr, <hyper-parameters>)"
            )
        object.__setattr__(self, "accumulators", tuple(names[1:grad]))
        object.__setattr__(self, "hyper", tuple(names[lr + 1 :]))
        object.__setattr__(
            self,
            "defaults",
            {n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty},
        )

    @property
    def name(self) -> str:
        """Name of the rule, as a state dictionary records it."""
        return self.function.__name__.strip("_")


def _sgd(param, grad, lr):
    """Gradient descent (Robbins and Monro 1951)."""
    return (param - lr * grad,)


def _momentum(param, velocity, grad, lr, momentum, use_nesterov):
    """Heavy ball (Polyak 1964) without dampening; Nesterov's look-ahead as Sutskever et al. (2013)."""
    velocity = momentum * velocity + grad
    direction = velocity if use_nesterov == 0 else grad + momentum * velocity
    return param - lr * direction, velocity


sgd = Rule(_sgd)
momentum = Rule(_momentum)
