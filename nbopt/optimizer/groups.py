"""Parameter groups: dictionaries whose edits are checked and seen by the next step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

import numpy as np

from nbopt._validation import as_flag, as_number, nearest
from nbopt.clip import as_clip
from nbopt.interrupts import uninterrupted
from nbopt.regularizer import Regularizer, as_regularizer

__all__ = [
    "Check",
    "ParamGroup",
    "as_finite",
    "as_fraction",
    "as_switch",
    "check_value",
    "checked_group",
    "decay_columns",
    "storable",
]

Check = Callable[[Any, str], Any]


def as_finite(value: Any, name: str) -> float:
    """A finite number."""
    return as_number(value, name)


def as_fraction(value: Any, name: str) -> float:
    """A number in [0, 1)."""
    return as_number(value, name, low=0.0, high=1.0, open_high=True)


def as_switch(value: Any, name: str) -> bool:
    """True or False."""
    return as_flag(value, name)


def _as_decay(value: Any, name: str) -> float | Regularizer | None:
    decay = as_regularizer(value, name)
    return decay if value is None or isinstance(value, Regularizer) or decay is None else decay.coeff


def _as_scale(value: Any, name: str) -> float:
    return as_number(value, name, low=0.0)


# Keys that every rule has; its hyper-parameters join them.
COMMON: dict[str, Check] = {
    "learning_rate": _as_scale,
    "weight_decay": _as_decay,
    "grad_clip": as_clip,
    "rescale_grad": as_finite,
}


def check_value(checks: Mapping[str, Check], key: str, value: Any, where: str) -> Any:
    """Return `value` as the group holds it, or say why it cannot."""
    if key == "params":
        raise TypeError(
            f"{where}: the parameters of a group do not change; use add_param_group, or freeze them"
        )
    if key not in checks:
        hint = nearest(str(key), checks)
        if key == "lr":
            hint = f"did you mean 'learning_rate', a multiplier of the rate? {nearest('', checks)}"
        raise TypeError(f"{where}: unknown key {key!r}; {hint}")
    return checks[key](value, f"{where} {key}")


def storable(check: Check, dtype: np.dtype[Any]) -> Check:
    """Return a check that refuses also what is out of range once it is rounded to the storage dtype."""
    kind = str(dtype)  # slow, and for every edit

    def check_both(value: Any, name: str) -> Any:
        result = check(value, name)
        number = result.coeff if isinstance(result, Regularizer) else result
        if isinstance(number, float):
            with np.errstate(over="ignore"):
                check(float(dtype.type(number)), f"{name}, {number!r} rounded to {kind},")
        return result

    return check_both


def checked_group(
    spec: Mapping[str, Any], defaults: Mapping[str, Any], checks: Mapping[str, Check], where: str
) -> dict[str, Any]:
    """Return a group with its values checked and the absent ones inherited."""
    own = {key: check_value(checks, key, value, where) for key, value in spec.items() if key != "params"}
    return {**defaults, **own, "params": spec["params"]}


def decay_columns(value: float | Regularizer | None) -> tuple[float, float]:
    """The coefficients (l1, l2) of a weight decay."""
    decay = as_regularizer(value, "weight_decay")
    return decay._columns if decay else (0.0, 0.0)


class ParamGroup(dict[str, Any]):
    """One parameter group of an optimizer.

    A dictionary of ``params`` and every key that a group may have, inherited ones filled in. A value that
    is set is checked at once, and seen by the next step; keys are neither added nor removed.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    >>> group = nb.optimizer.SGD(0.1, parameters=params).param_groups[0]
    >>> group["learning_rate"] = 0.5
    >>> sorted(group)
    ['grad_clip', 'learning_rate', 'params', 'rescale_grad', 'weight_decay']
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        checks: Mapping[str, Check],
        where: str,
        written: Callable[[Collection[str]], None],
    ):
        super().__init__(values)
        self._checks = checks
        self._where = where
        self._written = written

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several values; all of them or, on an error, none."""
        checked = {
            key: check_value(self._checks, key, value, self._where)
            for key, value in dict(*args, **kwargs).items()
        }
        before = dict(self)
        with uninterrupted():
            super().update(checked)
            try:
                self._written(checked)
            except Exception:
                super().update(before)
                raise

    def __ior__(self, other: Any) -> ParamGroup:  # type: ignore[misc,override]
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; every legal key is there."""
        if key not in self:
            check_value(self._checks, key, default, self._where)
        return self[key]

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{self._where}: keys are not removed; set weight_decay or grad_clip to None")

    __delitem__ = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def copy(self) -> dict[str, Any]:
        """Return a plain dictionary of the values."""
        return dict(self)
