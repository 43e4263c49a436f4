"""The optimizer: a rule, the parameters it moves, and the tables that a step reads."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Self

from nbopt._calls import check_calls, show_as
from nbopt._validation import as_flag, as_name
from nbopt.buffer import ParameterBuffer
from nbopt.clip import GradientClip
from nbopt.errors import ParameterError
from nbopt.interrupts import uninterrupted
from nbopt.kernels import tables as t
from nbopt.kernels.rule import Rule
from nbopt.optimizer import schedule, state
from nbopt.optimizer.groups import Check, ParamGroup, checked_group
from nbopt.optimizer.hyper import all_checks, as_rule, check_types, checked_defaults
from nbopt.optimizer.lr.base import LRScheduler
from nbopt.optimizer.nonfinite import as_guard
from nbopt.optimizer.report import Report
from nbopt.optimizer.specs import as_specs, check_disjoint, check_places
from nbopt.optimizer.stepping import Stepping
from nbopt.optimizer.tables import Tables, clip_rows
from nbopt.standstill import Standstill

__all__ = ["Optimizer"]


@check_calls
class Optimizer(Stepping):
    """An update rule over named parameters, taken in one compiled call.

    The order of one step: rescale, weight-norm backward, clip, regularize, rate times multipliers, update,
    recompose.

    Parameters
    ----------
    rule : Rule or callable
        The update rule, made by `nbopt.rule`, or the function that it takes; `nbopt.optimizer.Momentum` and
        the others bring theirs.
    learning_rate : float or LRScheduler
        The base rate, finite and >= 0, or a schedule of it; groups and parameters multiply it.
    parameters : ParameterBuffer, list of Parameter, or list of dict
        What to move. A dictionary is a group: ``params`` and any of ``learning_rate`` (a multiplier),
        ``weight_decay``, ``grad_clip``, ``rescale_grad`` and the rule's hyper-parameters. A key that is
        present wins, also when None; an absent one inherits.
    weight_decay : float, L1Decay or L2Decay, optional
        Coupled penalty of the parameters that bring no regularizer of their own; a number is the
        coefficient of L2. A rule with a hyper-parameter of this name gets the number instead.
    grad_clip : ClipGradByValue, ClipGradByNorm or ClipGradByGlobalNorm, optional
        Acts on every parameter with `need_clip`.
    name : str, optional
        Shown by ``repr``.
    nonfinite : {"raise", "skip", "propagate"}
        What a NaN or Inf in a gradient does: an error, a step that changes nothing (and an error at the
        tenth in a row), or what arithmetic makes of it.
    **hyper
        Hyper-parameters of the rule, and ``rescale_grad``, which multiplies the gradient before everything
        else.

    Raises
    ------
    TypeError
        If an argument has a wrong type, a group an unknown key, or the rule a wrong form.
    HyperparameterError
        If a number is out of range.
    ParameterError
        If there is no parameter, one is in two groups, or they belong to several buffers.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [1.0]})
    >>> groups = [{"params": params["w"]}, {"params": params["b"], "learning_rate": 2.0}]
    >>> opt = nb.optimizer.SGD(0.5, parameters=groups)
    >>> opt.step({"w": [1.0], "b": [1.0]})
    >>> params.to_vector()
    array([0.5, 0. ])
    """

    _checks: Mapping[str, Check] = MappingProxyType({})
    _scheduler: LRScheduler | None = None

    def __init__(
        self,
        rule: Rule | Callable[..., Any],
        learning_rate: float | LRScheduler = 0.001,
        parameters: Any = None,
        weight_decay: Any = None,
        grad_clip: GradientClip | None = None,
        name: str | None = None,
        *,
        nonfinite: str = "raise",
        **hyper: Any,
    ):
        kind = type(self).__name__
        rule = as_rule(rule, kind)
        check_places(kind, {"learning_rate": learning_rate, **hyper})
        if parameters is None:
            raise TypeError(
                f"{kind} needs parameters: write {kind}(..., parameters=params) with the "
                "ParameterBuffer, a list of its parameters, or a list of groups"
            )
        if name is not None:
            as_name(name, f"{kind} name")
        guard = as_guard(nonfinite, f"{kind} nonfinite")
        buffer, specs = as_specs(parameters, kind)
        check_types(rule, buffer.dtype)
        checks = all_checks(rule, self._checks, buffer.dtype)
        rate = schedule.first_rate(learning_rate, checks["learning_rate"], kind + " learning_rate")
        scheduler = learning_rate if isinstance(learning_rate, LRScheduler) else None
        if scheduler is not None:
            schedule.check_names(buffer)
        defaults = checked_defaults(rule, hyper, weight_decay, grad_clip, checks, kind)
        checked = [
            checked_group(spec, defaults, checks, f"{kind} group {index}") for index, spec in enumerate(specs)
        ]
        self._setup(rule, buffer, checked, defaults, name, rate, guard)
        schedule.follow(self, scheduler)

    def _setup(
        self,
        rule: Rule,
        buffer: ParameterBuffer,
        groups: list[dict[str, Any]],
        defaults: dict[str, Any],
        name: str | None,
        rate: float,
        guard: int,
    ) -> None:
        """Allocate every table once, from checked values."""
        # Everything that can be refused is, before the buffer is laid out.
        check_disjoint(groups)
        clip_rows([group["grad_clip"] for group in groups])
        self.name = name
        self._rule = rule
        self._buffer = buffer
        self._defaults = defaults
        self._group_checks = all_checks(rule, self._checks, buffer.dtype)
        self._groups: list[ParamGroup] = []
        self._last_loss = None
        self._tables = Tables(rule, buffer, rate, guard)
        self._run: Callable[[], int] = self._first_run
        for group in groups:
            self._place_group(group)
        self._write_groups()

    def _place_group(self, values: Mapping[str, Any]) -> None:
        where = f"{type(self).__name__} group {len(self._groups)}"
        segment_of = self._buffer._seal().segment_of
        segments = [segment_of[part.name] for p in values["params"] for part in p._moved]
        self._tables.group_of[segments] = len(self._groups)
        values = {**values, "params": tuple(values["params"])}
        written = functools.partial(self._write_group, len(self._groups))
        self._groups.append(ParamGroup(values, self._group_checks, where, written))

    def _write_groups(self) -> None:
        self._tables.write(self._groups)

    def _write_group(self, index: int, keys: Collection[str]) -> None:
        """Let the steps that follow see an edit: one row, where no more has changed."""
        if "grad_clip" in keys or not self._tables.write_row(index, self._groups[index]):
            self._write_groups()

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group of parameters of the same buffer that no group holds yet; nothing moves.

        Parameters
        ----------
        group : dict
            As in the constructor. It is not changed.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [0.0]})
        >>> opt = nb.optimizer.SGD(0.1, [params["w"]])
        >>> opt.add_param_group({"params": params["b"], "learning_rate": 2.0})
        >>> len(opt.param_groups)
        2
        """
        kind = type(self).__name__
        given: Any = group
        if not isinstance(given, Mapping) or isinstance(given, ParameterBuffer):
            raise TypeError(f"{kind}: a group is a dictionary with 'params', got {type(given).__name__}")
        buffer, specs = as_specs([group], kind)
        if buffer is not self._buffer:
            raise ParameterError(f"{kind}: the new group's parameters belong to another buffer")
        where = f"{kind} group {len(self._groups)}"
        values = checked_group(specs[0], self._defaults, self._group_checks, where)
        held = [{"params": g["params"]} for g in self._groups]
        check_disjoint([*held, values])
        clip_rows([*(g["grad_clip"] for g in self._groups), values["grad_clip"]])
        with uninterrupted():
            self._place_group(values)
            self._write_groups()

    # --- rates and groups

    def get_lr(self) -> float:
        """Return the base learning rate, which groups and parameters multiply.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]})).get_lr()
        0.1
        """
        self._raise_at_hand()
        return self._rate()

    def _rate(self) -> float:
        return float(self._tables.rates[0])

    def set_lr(self, value: float) -> None:
        """Set the base learning rate; the next step obeys.

        Raises
        ------
        RuntimeError
            If the optimizer follows a schedule.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
        >>> opt.set_lr(0.05)
        >>> opt.get_lr()
        0.05
        """
        if self._scheduler is not None:
            raise RuntimeError(
                f"the rate of this {type(self).__name__} follows a {type(self._scheduler).__name__}; call "
                "set_lr_scheduler with another schedule, or with None and then set_lr"
            )
        if isinstance(value, LRScheduler):
            raise TypeError(f"{type(self).__name__}.set_lr takes a number; call set_lr_scheduler(schedule)")
        self._tables.rates[0] = self._checked_rate(value, f"{type(self).__name__} learning_rate")

    def _checked_rate(self, value: Any, name: str) -> float:
        rate: float = self._group_checks["learning_rate"](value, name)
        return rate

    def set_lr_scheduler(self, scheduler: LRScheduler | None) -> None:
        """Follow a schedule, in place of a number or of another schedule.

        Parameters
        ----------
        scheduler : LRScheduler or None
            It may drive several optimizers. None keeps the rate as it is now, for `set_lr` to change.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
        >>> schedule = nb.optimizer.lr.StepDecay(0.5, step_size=1)
        >>> opt.set_lr_scheduler(schedule)
        >>> schedule.step()
        >>> opt.get_lr()
        0.05
        """
        if scheduler is not None:
            kind = type(self).__name__
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"{kind}.set_lr_scheduler takes a schedule of nbopt.optimizer.lr or None, "
                    f"got {type(scheduler).__name__} {scheduler!r}"
                )
            rate = schedule.first_rate(scheduler, self._checked_rate, f"{kind} learning_rate")
            schedule.check_names(self._buffer)
            self._tables.rates[0] = rate
        schedule.follow(self, scheduler)

    @property
    def param_groups(self) -> list[ParamGroup]:
        """The groups; a value set in one is checked and seen by the next step. The list itself is a copy.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
        >>> opt.param_groups[0]["weight_decay"] = 0.5
        >>> sorted(opt.param_groups[0])
        ['grad_clip', 'learning_rate', 'params', 'rescale_grad', 'weight_decay']
        """
        self._raise_at_hand()
        return list(self._groups)

    # --- what it remembers

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what the optimizer remembers.

        Returns
        -------
        dict
            ``<parameter>.<accumulator>`` arrays, ``<parameter>.step`` counts, and plain scalars; those of a
            schedule begin with ``LR_Scheduler.``.

        Raises
        ------
        ConcurrencyError
            If another thread is stepping this optimizer.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt = nb.optimizer.Momentum(0.1, parameters=params)
        >>> sorted(opt.state_dict())
        ['learning_rate', 'rule', 'step_count', 'steps_skipped', 'steps_skipped_in_a_row', 'w.step',
        'w.velocity']
        """
        self._raise_found()
        return state.get(self)

    def set_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Fill in what `state_dict` gave; all of it or, on an error, nothing.

        Parameters
        ----------
        state_dict : mapping
            As `state_dict` returns it.
        strict : bool
            False takes what is there: missing and unexpected entries are no errors then.

        Raises
        ------
        StateDictError
            If entries are missing, unexpected, or of a wrong shape, dtype or value; it names all of them.
        ConcurrencyError
            If another thread is stepping this optimizer; a step that begins meanwhile is refused.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt, again = (nb.optimizer.Momentum(0.1, parameters=params) for _ in range(2))
        >>> opt.step({"w": [1.0]})
        >>> again.set_state_dict(opt.state_dict())
        >>> again.step_count
        1
        """
        state.put(self, state_dict, as_flag(strict, "strict"))

    load_state_dict = set_state_dict

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        still = Standstill(f"this {type(self).__name__}", [self._tables])
        twin = memo[id(self)] = type(self).__new__(type(self))
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        still.check("it was copied. Copy it between steps")
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return state.pack(self)

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self._setup(*state.unpack(saved))
        state.refill(self, saved)

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return (
            f"{type(self).__name__}{label}({len(self._held())} parameters in {len(self._groups)} groups, "
            f"learning_rate={self._rate():g}, step {int(self._tables.counters[t.STEPS])})"
        )


show_as("Optimizer", Stepping, Report)
