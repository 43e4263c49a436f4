"""The initializers of parameters that name none."""

from __future__ import annotations

from typing import Any

from nbopt._calls import check_calls
from nbopt.initializer.base import Initializer

__all__ = ["global_initializer", "set_global_initializer"]


_global: tuple[Initializer | None, Initializer | None] = (None, None)  # of weights, of biases


@check_calls
def set_global_initializer(weight_init: Initializer | None, bias_init: Initializer | None = None) -> None:
    """Set the initializers of parameters created from now on whose attribute names none.

    They go before a `default_initializer`. As in Paddle every call sets both: leaving `bias_init`
    out clears it, and ``set_global_initializer(None)`` clears all.

    Parameters
    ----------
    weight_init, bias_init : Initializer, optional
        For weights, and for parameters created with ``is_bias=True``.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.initializer.set_global_initializer(nb.initializer.Constant(2.0))
    >>> nb.ParameterBuffer().create_parameter([2]).numpy()
    array([2., 2.], dtype=float32)
    >>> nb.initializer.set_global_initializer(None)
    """
    global _global
    given: dict[str, Any] = {"weight_init": weight_init, "bias_init": bias_init}
    for name, value in given.items():
        if value is not None and not isinstance(value, Initializer):
            legal = "an Initializer, such as Constant(0.0), or None"
            raise TypeError(f"{name} must be {legal}, got {value!r}")
    _global = (weight_init, bias_init)


def global_initializer(is_bias: bool) -> Initializer | None:
    """Return what `set_global_initializer` set for biases or for weights."""
    return _global[1] if is_bias else _global[0]
