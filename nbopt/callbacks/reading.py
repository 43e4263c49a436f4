"""What a callback takes from a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Row", "fields", "row"]


class Row(NamedTuple):
    """What there is to log of one iteration; what is not known is NaN."""

    step: int
    loss: float
    lr: float
    grad_norm: float


def fields(intermediate_result: Any) -> Mapping[str, Any]:
    """Return a result as a mapping; a number is the loss."""
    if isinstance(intermediate_result, Mapping):
        return intermediate_result
    try:
        return {"fun": float(intermediate_result)}
    except (TypeError, ValueError):
        raise TypeError(
            "a callback takes an intermediate_result, as scipy.optimize.OptimizeResult(fun=loss, opt=opt), "
            f"or the loss; got {type(intermediate_result).__name__}"
        ) from None


def row(result: Mapping[str, Any], calls: int) -> Row:
    """Return what there is to log; the step is the optimizer's, else the iteration, else the call."""
    opt = result.get("opt")
    if opt is None:
        return Row(result.get("nit", calls), float(result["fun"]), result.get("lr", math.nan), math.nan)
    norm = opt.grad_norm
    lr = result["lr"] if "lr" in result else opt.get_lr()
    return Row(opt.step_count, float(result["fun"]), lr, math.nan if norm is None else norm)
