"""AdamW."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import as_number
from nbopt.clip import GradientClip
from nbopt.kernels import rules
from nbopt.optimizer.adam import ADAM_CHECKS, check_flags
from nbopt.optimizer.base import Optimizer
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.parameter import Parameter

__all__ = ["AdamW"]


@check_calls
class AdamW(Optimizer):
    """Adam with a weight decay of its own, decoupled from the gradient.

    ``p -= lr * weight_decay * p``, then the update of `Adam` with the gradient after clip. A regularizer of a
    `ParamAttr` is coupled, and comes on top.

    Parameters
    ----------
    learning_rate : float or LRScheduler
        The base rate, finite and >= 0, or a schedule of it.
    beta1, beta2, epsilon : float
        See `Adam`.
    parameters : ParameterBuffer, list of Parameter, or list of dict
        See `Optimizer`. The ``weight_decay`` of a group is the decoupled one.
    weight_decay : float, optional
        Finite and >= 0; None decays nothing.
    lr_ratio : callable, optional
        ``lr_ratio(parameter)`` multiplies the rate of a parameter, finite and >= 0, as for decay by layer.
    apply_decay_param_fun : callable, optional
        ``apply_decay_param_fun(name)`` says whether a parameter decays.
    grad_clip, name, nonfinite
        See `Optimizer`.
    lazy_mode, multi_precision : bool
        Accepted as in Paddle; they change nothing here, where everything is one call.
    amsgrad : bool
        Divide by the largest second moment so far.

    Notes
    -----
    Loshchilov and Hutter (2019); arguments of Paddle's `AdamW`. `lr_ratio` and `apply_decay_param_fun` are
    asked once per parameter, when it joins. A copy, and what `pickle` makes, keep the answers and not the
    functions. A weight-normed parameter is asked for once, under its own name.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, -2.0], "b": [1.0]})
    >>> opt = nb.optimizer.AdamW(
    ...     0.1, parameters=params, weight_decay=0.5, apply_decay_param_fun=lambda name: name != "b"
    ... )
    >>> opt.step({"w": [0.0, 0.0], "b": [0.0]})
    >>> params["w"].value, params["b"].value
    (array([ 0.95, -1.9 ]), array([1.]))
    """

    _checks = ADAM_CHECKS

    def __init__(
        self,
        learning_rate: float | LRScheduler = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        parameters: Any = None,
        weight_decay: float | None = 0.01,
        lr_ratio: Callable[[Parameter], float] | None = None,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        grad_clip: GradientClip | None = None,
        lazy_mode: bool = False,
        multi_precision: bool = False,
        amsgrad: bool = False,
        name: str | None = None,
        *,
        nonfinite: str = "raise",
    ):
        check_flags(
            "AdamW",
            lazy_mode=lazy_mode,
            multi_precision=multi_precision,
            amsgrad=amsgrad,
        )
        for key, value in (("lr_ratio", lr_ratio), ("apply_decay_param_fun", apply_decay_param_fun)):
            if value is not None and not callable(value):
                raise TypeError(f"AdamW {key} must be a function of a parameter, got {value!r}")
        self._lr_ratio, self._applies = lr_ratio, apply_decay_param_fun
        self._answers: dict[str, tuple[float, bool]] = {}
        # Rows of the group table by group, ratio, and whether there is decay.
        self._rows: dict[tuple[int, float, bool], int] = {}
        super().__init__(
            rules.adamw_amsgrad if amsgrad else rules.adamw,
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

    def _setup(self, rule: Any, buffer: Any, groups: list[dict[str, Any]], *rest: Any) -> None:
        for group in groups:
            self._ask(group["params"])
        super()._setup(rule, buffer, groups, *rest)

    def _ask(self, parameters: list[Parameter]) -> None:
        """Ask the functions about parameters that they were not yet asked about."""
        new = {}
        for parameter in parameters:
            name = parameter.name
            if name in self._answers:
                continue
            ratio, applies = 1.0, True
            if self._lr_ratio is not None:
                ratio = as_number(self._lr_ratio(parameter), f"AdamW lr_ratio of {name!r}", low=0.0)
            if self._applies is not None:
                applies = bool(self._applies(name))
            new[name] = ratio, applies
        self._answers |= new

    def _place_group(self, values: Mapping[str, Any]) -> None:
        """Give the parameters of a group that have other answers a row of their own in the group table."""
        self._ask(values["params"])
        number = len(self._groups)
        super()._place_group(values)
        segment_of = self._buffer._seal().segment_of
        answers = {segment_of[q.name]: self._answers[p.name] for p in values["params"] for q in p._moved}
        for segment, answer in answers.items():
            self._tables.group_of[segment] = self._rows.setdefault((number, *answer), len(self._rows))

    def _write_groups(self) -> None:
        rows = []
        for number, ratio, applies in self._rows:
            group = self._groups[number]
            decay = group["weight_decay"] if applies else 0.0
            rows.append({**group, "learning_rate": group["learning_rate"] * ratio, "weight_decay": decay})
        self._tables.write(rows)

    def _write_group(self, index: int, keys: Collection[str]) -> None:
        self._write_groups()  # a group may have several rows

    def __getstate__(self) -> dict[str, Any]:
        asked = {"lr_ratio": self._lr_ratio, "applies": self._applies}
        kept = {key: None if function is None else _forgotten for key, function in asked.items()}
        return {**super().__getstate__(), "answers": self._answers, **kept}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self._lr_ratio, self._applies = saved["lr_ratio"], saved["applies"]
        self._answers = dict(saved["answers"])
        self._rows = {}
        super().__setstate__(saved)


def _forgotten(parameter: Any) -> Any:
    """Stands for a function that a copy has not."""
    raise TypeError(
        "this AdamW is a copy, without lr_ratio and apply_decay_param_fun: build a new one to add parameters"
    )
