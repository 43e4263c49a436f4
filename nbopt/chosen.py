"""What a user hands in as parameters: a buffer, one parameter, or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from nbopt.buffer import ParameterBuffer
from nbopt.errors import ParameterError
from nbopt.parameter import Parameter

__all__ = ["as_parameters"]


def as_parameters(params: Any) -> list[Parameter]:
    """Return the parameters that a buffer, a parameter or an iterable of parameters names, each once."""
    if isinstance(params, ParameterBuffer):
        return list(params.values())
    if isinstance(params, Parameter):
        return [params]
    if isinstance(params, (str, bytes, Mapping, set, frozenset)) or not isinstance(params, Iterable):
        kind = type(params).__name__
        mend = "; write nbopt.torch.adopt(module)" if hasattr(params, "named_parameters") else ""
        raise TypeError(f"parameters must be a ParameterBuffer or a list of Parameter, got {kind}{mend}")
    found = list(params)
    if not found and isinstance(params, Iterator):
        raise ParameterError(
            f"parameters: this {type(params).__name__} gives none; hand in a list to use it twice"
        )
    for item in found:
        if not isinstance(item, Parameter):
            raise TypeError(f"parameters must be Parameter objects, got {_instead(item)}")
    return list(dict.fromkeys(found))


def _instead(item: Any) -> str:
    """Say what a thing is that is no parameter, and what to write."""
    kind = type(item).__name__
    if type(item).__module__.partition(".")[0] == "torch":
        return f"a torch {kind}; write params = nbopt.torch.adopt(module)"
    if isinstance(item, (np.ndarray, np.generic)):
        return f"{kind}; write params[name], or params = nbopt.ParameterBuffer.from_arrays({{'x': array}})"
    return f"{kind}; write params[name] or params.select(pattern)"
