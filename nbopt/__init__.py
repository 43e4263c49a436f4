"""Named parameters with their own policies on one flat buffer, and optimizers that obey them.

Public names are imported when they are first used: importing the package compiles nothing.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nbopt import callbacks, compat, errors, initializer, optimizer, plot, regularizer, testing
    from nbopt.attr import ParamAttr, WeightNormParamAttr
    from nbopt.averaging import ExponentialMovingAverage, ModelAverage
    from nbopt.buffer import ParameterBuffer
    from nbopt.checkpoint import export, load, restore, save
    from nbopt.clip import (
        ClipGradByGlobalNorm,
        ClipGradByNorm,
        ClipGradByValue,
        clip_grad_norm_,
        clip_grad_value_,
    )
    from nbopt.errors import NboptError
    from nbopt.gradient import check_gradient
    from nbopt.info import show_config
    from nbopt.interop import jax as jax
    from nbopt.interop import scipy as scipy
    from nbopt.interop import torch as torch
    from nbopt.kernels.rule import rule
    from nbopt.minimizing import minimize
    from nbopt.norms import norm
    from nbopt.optimizer import Optimizer
    from nbopt.parameter import Parameter
    from nbopt.weightnorm import weight_norm, weight_norm_backward

__all__ = [
    "ClipGradByGlobalNorm",
    "ClipGradByNorm",
    "ClipGradByValue",
    "ExponentialMovingAverage",
    "ModelAverage",
    "NboptError",
    "Optimizer",
    "ParamAttr",
    "Parameter",
    "ParameterBuffer",
    "WeightNormParamAttr",
    "callbacks",
    "check_gradient",
    "clip_grad_norm_",
    "clip_grad_value_",
    "compat",
    "errors",
    "export",
    "initializer",
    "load",
    "minimize",
    "norm",
    "optimizer",
    "plot",
    "regularizer",
    "restore",
    "rule",
    "save",
    "show_config",
    "testing",
    "weight_norm",
    "weight_norm_backward",
]

_HOMES = {
    "ClipGradByGlobalNorm": "clip",
    "ClipGradByNorm": "clip",
    "ClipGradByValue": "clip",
    "ExponentialMovingAverage": "averaging",
    "ModelAverage": "averaging",
    "NboptError": "errors",
    "Optimizer": "optimizer",
    "ParamAttr": "attr",
    "Parameter": "parameter",
    "ParameterBuffer": "buffer",
    "WeightNormParamAttr": "attr",
    "check_gradient": "gradient",
    "clip_grad_norm_": "clip",
    "clip_grad_value_": "clip",
    "export": "checkpoint",
    "load": "checkpoint",
    "minimize": "minimizing",
    "norm": "norms",
    "restore": "checkpoint",
    "rule": "kernels.rule",
    "save": "checkpoint",
    "show_config": "info",
    "weight_norm": "weightnorm",
    "weight_norm_backward": "weightnorm",
}

# Modules that serve another library.
_ROOMS = {"jax": "interop.jax", "scipy": "interop.scipy", "torch": "interop.torch"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"nbopt.{_HOMES[name]}"), name)
    elif name in _ROOMS or name in __all__:
        value = importlib.import_module(f"nbopt.{_ROOMS.get(name, name)}")
    else:
        raise AttributeError(f"module 'nbopt' has no attribute {name!r}{_elsewhere(name)}")
    globals()[name] = value
    return value


def _elsewhere(name: str) -> str:
    """Say where a name is that was looked for here; modules are asked for while the package is imported."""
    if name[:1].isupper():
        for home in ("optimizer", "optimizer.lr", "regularizer", "initializer", "callbacks"):
            if name in importlib.import_module(f"nbopt.{home}").__all__:
                return f"; it is nbopt.{home}.{name}"
    if name == "lr":
        return "; it is nbopt.optimizer.lr"
    close = difflib.get_close_matches(name, [*__all__, *_ROOMS], n=1, cutoff=0.7)
    return f"; did you mean nbopt.{close[0]}?" if close and not name.startswith("_") else ""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
