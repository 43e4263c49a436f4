"""A rule and its hyper-parameters, as an optimizer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbopt._validation import as_number, nearest
from nbopt.kernels import rules
from nbopt.kernels.rule import Rule
from nbopt.optimizer.groups import COMMON, Check, as_finite, check_value, storable

__all__ = ["all_checks", "as_rule", "check_types", "checked_defaults"]

# What an optimizer takes beside hyper-parameters; `weight_decay` may be both.
_TAKEN = {*COMMON, "rule", "params", "parameters", "name", "nonfinite"} - {"weight_decay"}


def as_rule(value: Any, kind: str) -> Rule:
    """Return the rule that a rule or a plain function is."""
    if not isinstance(value, Rule) and not callable(value):
        raise TypeError(
            f"{kind} takes a rule, a plain function or what nbopt.rule made of one, got {value!r}"
        )
    rule = value if isinstance(value, Rule) else Rule(value)
    for key in rule.hyper:
        if key in _TAKEN:
            raise TypeError(f"{kind} has an argument {key!r} of its own; rename that of the rule {rule.name}")
    return rule


def check_types(rule: Rule, dtype: np.dtype[Any]) -> None:
    """Refuse a rule that does not work for the storage dtype; those of the package do."""
    if rule.function.__module__ != rules.__name__:
        from nbopt.kernels.check import check_rule

        check_rule(rule, dtype)


def _as_decoupled(value: Any, name: str) -> float:
    """The coefficient of a decay that the rule applies itself."""
    return 0.0 if value is None else as_number(value, name, low=0.0)


def all_checks(rule: Rule, own: Mapping[str, Check], dtype: np.dtype[Any]) -> dict[str, Check]:
    """Return the check of every key of a group; `own` are those of an optimizer."""
    checks = {**COMMON, **{name: own.get(name, as_finite) for name in rule.hyper}}
    if "weight_decay" in rule.hyper:
        checks["weight_decay"] = _as_decoupled
    return {name: storable(check, dtype) for name, check in checks.items()}


def checked_defaults(
    rule: Rule,
    hyper: Mapping[str, Any],
    weight_decay: Any,
    grad_clip: Any,
    checks: Mapping[str, Check],
    kind: str,
) -> dict[str, Any]:
    """Return what a group inherits, from the arguments of an optimizer."""
    for key in hyper:
        if key not in rule.hyper and key != "rescale_grad":
            legal = dict.fromkeys([*rule.hyper, "rescale_grad"])
            raise TypeError(f"{kind} got an unknown argument {key!r}; {nearest(key, legal)}")
    given = {"rescale_grad": 1.0, "weight_decay": None, **rule.defaults, **hyper}
    given |= {"learning_rate": 1.0, "grad_clip": grad_clip}
    if weight_decay is not None:
        given["weight_decay"] = weight_decay
    for key in rule.hyper:
        if key not in given:
            raise TypeError(f"{kind} needs {key}=..., for which the rule {rule.name} has no default")
    return {key: check_value(checks, key, value, kind) for key, value in given.items()}
