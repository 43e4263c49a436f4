"""Penalties on a parameter, added to its gradient after clipping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import as_number

__all__ = ["L1Decay", "L2Decay", "Regularizer"]


@check_calls
@dataclass(frozen=True)
class Regularizer(ABC):
    """Base class of the penalties, `L1Decay` and `L2Decay`; not used itself.

    Parameters
    ----------
    coeff : float
        Multiplies the penalty; finite and >= 0.

    Examples
    --------
    >>> import nbopt as nb
    >>> isinstance(nb.regularizer.L1Decay(0.1), nb.regularizer.Regularizer)
    True
    """

    coeff: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "coeff", as_number(self.coeff, f"{type(self).__name__} coeff", low=0.0))

    @property
    @abstractmethod
    def _columns(self) -> tuple[float, float]:
        """The coefficients (l1, l2)."""


@check_calls
@dataclass(frozen=True)
class L1Decay(Regularizer):
    """Penalty ``coeff * sum(|p|)``: adds ``coeff * sign(p)`` to the gradient, with ``sign(0) = 0``.

    Parameters
    ----------
    coeff : float
        Finite and >= 0. 0 is a penalty too: on a parameter it means that no other applies.

    Notes
    -----
    Tibshirani (1996); semantics of Paddle's `L1Decay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> w = nb.ParameterBuffer.from_arrays({"w": [2.0, -2.0, 0.0]})["w"]
    >>> w.regularizer = nb.regularizer.L1Decay(0.5)
    >>> nb.optimizer.SGD(1.0, parameters=w).step()
    >>> w.value
    array([ 1.5, -1.5,  0. ])
    """

    @property
    def _columns(self) -> tuple[float, float]:
        return self.coeff, 0.0


@check_calls
@dataclass(frozen=True)
class L2Decay(Regularizer):
    """Penalty ``coeff/2 * sum(p**2)``: adds ``coeff * p`` to the gradient.

    Parameters
    ----------
    coeff : float
        Finite and >= 0. 0 is a penalty too: on a parameter it means that no other applies.

    Notes
    -----
    Coupled weight decay (Krogh and Hertz 1992); semantics of Paddle's `L2Decay`.

    Examples
    --------
    >>> import nbopt as nb
    >>> w = nb.ParameterBuffer.from_arrays({"w": [2.0, -2.0, 0.0]})["w"]
    >>> w.regularizer = nb.regularizer.L2Decay(0.25)
    >>> nb.optimizer.SGD(1.0, parameters=w).step()
    >>> w.value
    array([ 1.5, -1.5,  0. ])
    """

    @property
    def _columns(self) -> tuple[float, float]:
        return 0.0, self.coeff


def as_regularizer(value: Any, name: str) -> Regularizer | None:
    """Return `value` as a penalty: None, a number (the coefficient of L2) or a penalty."""
    if value is None or isinstance(value, Regularizer):
        return value
    try:
        return L2Decay(as_number(value, name, low=0.0))
    except TypeError:
        raise TypeError(
            f"{name} must be None, a number (L2), L1Decay or L2Decay, got {type(value).__name__} {value!r}"
        ) from None
