"""What an update rule is: a function of floats whose signature says what it keeps and what it takes.

`param`, the accumulators (they start at zero), `grad`, `lr`, the hyper-parameters. A rule returns the new
parameter and the new accumulators, in that order.
"""

from __future__ import annotations

import inspect
import operator
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, overload

__all__ = ["Rule", "rule"]

FORM = "def rule(param, <accumulators>, grad, lr, <hyper-parameters>)"
_VARIADIC = {
    inspect.Parameter.VAR_POSITIONAL: "*{}",
    inspect.Parameter.VAR_KEYWORD: "**{}",
    inspect.Parameter.KEYWORD_ONLY: "{} by keyword alone",
}


@dataclass(frozen=True, repr=False)
class Rule:
    """An update rule and what its signature says; `nbopt.rule` makes one.

    Attributes
    ----------
    function : callable
        The scalar function.
    prepare : callable or None
        ``prepare(step, lr, <hyper-parameters>)`` returns what the rule reads in their place, and more.
    accumulators : tuple of str
        Names of what the rule keeps per element.
    hyper : tuple of str
        Names of the hyper-parameters.
    reads : tuple of str
        Names of what the function takes after `lr`: the hyper-parameters, and what else `prepare` returns.
    defaults : dict
        The defaults of the hyper-parameters that have one.
    """

    function: Callable[..., Any]
    prepare: Callable[..., Any] | None = None
    accumulators: tuple[str, ...] = field(init=False)
    hyper: tuple[str, ...] = field(init=False)
    reads: tuple[str, ...] = field(init=False)
    defaults: dict[str, float] = field(init=False, hash=False, compare=False)

    def __post_init__(self) -> None:
        function = _plain(self.function, "an update rule")
        defaults = _arguments(function, "update rule", FORM)
        names = list(defaults)
        try:
            grad, lr = names.index("grad"), names.index("lr")
        except ValueError:
            grad = lr = -1
        if names[:1] != ["param"] or lr != grad + 1 or grad < 1:
            raise TypeError(f"{_call(function, names)} is no update rule: write {FORM}")
        accumulators, reads = tuple(names[1:grad]), tuple(names[lr + 1 :])
        if "step" in accumulators:
            raise TypeError(f"{_call(function, names)}: 'step' counts steps; rename the accumulator")
        hyper = reads
        prepare = self.prepare
        if prepare is not None:
            prepare = _plain(prepare, "prepare of a rule")
            hyper, own = _prepared(prepare, reads)
            defaults |= {name: value for name, value in own.items() if value is not inspect.Parameter.empty}
        found = {name: defaults[name] for name in hyper if defaults[name] is not inspect.Parameter.empty}
        values = {
            "function": function,
            "prepare": prepare,
            "accumulators": accumulators,
            "hyper": hyper,
            "reads": reads,
            "defaults": found,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
            "__doc__": function.__doc__,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Name of the rule, as a state dictionary records it."""
        return self.function.__name__.strip("_")

    @property
    def py_func(self) -> Callable[..., Any]:
        """The function, under the name of Numba: a rule may call another one."""
        return self.function

    def __call__(self, *arguments: Any) -> Any:
        """Apply the rule to one element, in plain Python."""
        return self.function(*arguments)

    def __repr__(self) -> str:
        return f"Rule({_call(self.function, ['param', *self.accumulators, 'grad', 'lr', *self.reads])})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By name where a decorator put the rule in the place of its function."""
        module = sys.modules.get(self.__module__)
        name: str = self.function.__qualname__
        try:
            found = operator.attrgetter(name)(module)
        except AttributeError:
            found = None
        if found is self:
            return name
        return Rule, (self.function, self.prepare)


@overload
def rule(function: Callable[..., Any], /, *, prepare: Callable[..., Any] | None = None) -> Rule: ...
@overload
def rule(*, prepare: Callable[..., Any] | None = None) -> Callable[[Callable[..., Any]], Rule]: ...
def rule(
    function: Callable[..., Any] | None = None, /, *, prepare: Callable[..., Any] | None = None
) -> Rule | Callable[[Callable[..., Any]], Rule]:
    """Make an update rule of a scalar function; a decorator.

    The signature says everything: ``param``, the accumulators (they start at zero), ``grad``, ``lr``, and
    the hyper-parameters with their defaults. The function returns the new parameter and the new
    accumulators, in this order. It is compiled into the loops that the rules of `nbopt.optimizer` run in,
    with all policies of parameters and groups around it.

    Parameters
    ----------
    function : callable
        Plain arithmetic, comparisons, ``if``, and ``math.*`` on single numbers, and calls of functions of
        the same kind. Numbers written in it take the dtype of the parameters.
    prepare : callable, optional
        ``prepare(step, lr, <hyper-parameters>)`` returns ``lr`` and the hyper-parameters as the rule shall
        read them, then what the further arguments of the rule name. It runs in float64, once per parameter
        and step, where ``step`` counts the updates of the parameter from 1; each result is rounded once.
        It gets each hyper-parameter rounded to the dtype of the parameters, as the rule would.

    Returns
    -------
    Rule
        What `nbopt.Optimizer` takes.

    Raises
    ------
    TypeError
        If the signature is of another form. What is wrong inside is refused when an optimizer is built.

    Notes
    -----
    A rule with a hyper-parameter ``weight_decay`` decays parameters itself: it gets the number of the
    optimizer or group, and nothing is added to the gradient but the regularizer of a `ParamAttr`.

    Examples
    --------
    >>> import nbopt as nb
    >>> @nb.rule
    ... def heavy_ball(param, velocity, grad, lr, mu):
    ...     velocity = mu * velocity + grad
    ...     return param - lr * velocity, velocity
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
    >>> opt = nb.Optimizer(heavy_ball, learning_rate=0.5, mu=0.9, parameters=params)
    >>> opt.step({"w": [1.0, 2.0]})
    >>> params["w"].value
    array([0.5, 1. ])

    A mean of the gradients that starts at zero, and is corrected for that once per step:

    >>> def unbiased(step, lr, beta=0.9):
    ...     return lr / (1 - beta**step), beta
    >>> @nb.rule(prepare=unbiased)
    ... def mean(param, moment, grad, lr, beta):
    ...     moment = beta * moment + (1 - beta) * grad
    ...     return param - lr * moment, moment
    >>> opt = nb.Optimizer(mean, learning_rate=0.25, parameters=params)
    >>> opt.step({"w": [2.0, 4.0]})
    >>> params["w"].value.round(6)
    array([0., 0.])
    """
    if function is None:
        return lambda given: Rule(given, prepare)
    return Rule(function, prepare)


def _plain(function: Any, what: str) -> types.FunctionType:
    """The plain function behind what was given."""
    function = getattr(function, "py_func", function)  # Numba's dispatchers hold theirs
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{what} is a plain function, got {function!r}: write {FORM}")
    return function


def _arguments(function: types.FunctionType, kind: str, form: str) -> dict[str, Any]:
    """Names and defaults of the arguments of a function that takes a fixed number of them."""
    arguments = inspect.signature(function, follow_wrapped=False).parameters
    for argument in arguments.values():
        if argument.kind in _VARIADIC:
            what = _VARIADIC[argument.kind].format(argument.name)
            raise TypeError(f"{function.__name__} takes {what} and is no {kind}: write {form}")
    return {argument.name: argument.default for argument in arguments.values()}


def _prepared(prepare: types.FunctionType, reads: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The hyper-parameters that `prepare` names, and its arguments."""
    form = f"def {prepare.__name__}(step, lr, <hyper-parameters>)"
    arguments = _arguments(prepare, "prepare of a rule", form)
    names = tuple(arguments)
    hyper = names[2:]
    if names[:2] != ("step", "lr"):
        raise TypeError(f"{_call(prepare, names)} prepares no rule: write {form}")
    if reads[: len(hyper)] != hyper:
        raise TypeError(
            f"{_call(prepare, names)} and a rule that reads ({', '.join(('lr', *reads))}) differ: both name "
            f"the same hyper-parameters in the same order; write def {prepare.__name__}"
            f"({', '.join(('step', 'lr', *reads))}), and leave out from the end what it adds"
        )
    return hyper, arguments


def _call(function: types.FunctionType | Callable[..., Any], names: Any) -> str:
    return f"{function.__name__}({', '.join(names)})"
