"""The optimizer: a rule, the parameters it moves, and the tables that a step reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt._validation import as_flag, as_name, as_number, nearest
from nbopt.buffer import ParameterBuffer, as_parameters
from nbopt.clip import DEFAULT_GROUP, ClipGradByGlobalNorm, GradientClip
from nbopt.errors import (
    ConcurrencyError,
    HyperparameterError,
    NonFiniteGradientError,
    ParameterError,
)
from nbopt.kernels import tables as t
from nbopt.kernels.rules import Rule
from nbopt.optimizer import state
from nbopt.optimizer.groups import COMMON, Check, ParamGroup, as_finite, check_value, decay_columns
from nbopt.parameter import Parameter

__all__ = ["Optimizer"]

_GUARDS = {"propagate": t.GUARD_PROPAGATE, "skip": t.GUARD_SKIP, "raise": t.GUARD_RAISE}


class Optimizer:
    """An update rule over named parameters, taken in one compiled call.

    The order of one step: rescale, weight-norm backward, clip, regularize, rate times multipliers, update, recompose.

    Parameters
    ----------
    rule : Rule
        The update rule.
    learning_rate : float
        The base rate, finite and >= 0; groups and parameters multiply it.
    parameters : ParameterBuffer, list of Parameter, or list of dict
        What to move. A dictionary is a group: ``params`` and any of ``learning_rate`` (a multiplier), ``weight_decay``,
        ``grad_clip``, ``rescale_grad`` and the rule's hyper-parameters. A key that is present wins, also when None; an
        absent one inherits.
    weight_decay : float, L1Decay or L2Decay, optional
        Coupled penalty of the parameters that bring no regularizer of their own; a number is the coefficient of L2.
    grad_clip : ClipGradByValue, ClipGradByNorm or ClipGradByGlobalNorm, optional
    name : str, optional
    nonfinite : {"raise", "skip", "propagate"}
        What a NaN or Inf in a gradient does: an error, a step that changes nothing (and an error at the tenth in a
        row), or what arithmetic makes of it.
    **hyper
        Hyper-parameters of the rule, and ``rescale_grad``, which multiplies the gradient before everything else.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a group an unknown key.
    HyperparameterError
        If a number is out of range.
    ParameterError
        If there is no parameter, one is in two groups, or they belong to several buffers.

    See Also
    --------
    nbopt.optimizer.Momentum, nbopt.optimizer.SGD
    """

    _checks: Mapping[str, Check] = {}

    def __init__(
        self,
        rule: Rule,
        learning_rate: float = 0.001,
        parameters: Any = None,
        weight_decay: Any = None,
        grad_clip: GradientClip | None = None,
        name: str | None = None,
        *,
        nonfinite: str = "raise",
        **hyper: Any,
    ):
        kind = type(self).__name__
        if not isinstance(rule, Rule):
            raise TypeError(f"{kind} takes a rule, got {rule!r}")
        if parameters is None:
            raise TypeError(
                f"{kind} needs parameters: write {kind}(..., parameters=params) with the "
                "ParameterBuffer, a list of its parameters, or a list of groups"
            )
        if name is not None:
            as_name(name, f"{kind} name")
        if nonfinite not in _GUARDS:
            raise HyperparameterError(
                f"{kind} nonfinite must be one of {', '.join(_GUARDS)}, got {nonfinite!r}"
            )
        rate = as_number(learning_rate, f"{kind} learning_rate", low=0.0)
        checks = {n: self._checks.get(n, as_finite) for n in rule.hyper}
        given = {**rule.defaults, "rescale_grad": 1.0, **hyper}
        for key in given:
            if key not in checks and key != "rescale_grad":
                raise TypeError(f"{kind} got an unknown argument {key!r}; {nearest(key, checks)}")
        for key in checks:
            if key not in given:
                raise TypeError(f"{kind} needs {key}=...")
        given.update(learning_rate=1.0, weight_decay=weight_decay, grad_clip=grad_clip)
        checks = {**COMMON, **checks}
        defaults = {key: check_value(checks, key, value, kind) for key, value in given.items()}
        buffer, specs = _as_specs(parameters, kind)
        checked = [
            {
                **defaults,
                **{
                    key: check_value(checks, key, value, f"{kind} group {index}")
                    for key, value in spec.items()
                    if key != "params"
                },
                "params": spec["params"],
            }
            for index, spec in enumerate(specs)
        ]
        self._setup(rule, buffer, checked, defaults, name, rate, _GUARDS[nonfinite])

    # --- tables

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
        segments = _segments_of_groups(buffer, groups)
        clip_rows([group["grad_clip"] for group in groups])  # refuses what cannot be one clip
        layout = buffer._seal()
        count = len(layout.names)
        self.name = name
        self._rule = rule
        self._buffer = buffer
        self._defaults = defaults
        self._check_table = {**COMMON, **{n: self._checks.get(n, as_finite) for n in rule.hyper}}
        self._groups: list[ParamGroup] = []
        self._last_loss: float | None = None
        trainable = layout.size - layout.trainable_start
        self._accumulators = np.zeros((len(rule.accumulators), trainable), buffer.dtype)
        self._members = np.zeros((count, t.MEMBER_COLUMNS), np.int64)
        self._members[:, t.MEMBER_GROUP] = -1
        self._group_table = np.zeros((count, t.GROUP_HYPER + len(rule.hyper)))
        self._clips = np.zeros((count + 1, t.CLIP_COLUMNS))
        self._coefficients = np.zeros((count, t.COEFFICIENT_RULE + 1 + len(rule.hyper)))
        self._rates = np.array([rate])
        self._counters = np.zeros(t.COUNTER_COLUMNS, np.int64)
        self._counters[t.GUARD] = guard
        self._counters[t.CLIPS_USED] = 1
        effective, derived = layout.effective_size, layout.trainable_start
        # In the order of nbopt.kernels.tables, from TRAINABLE on.
        self._arrays = (
            buffer._data[derived:],
            buffer._grad[derived:effective],
            buffer._data[:derived],
            buffer._grad[:derived],
            self._accumulators,
            layout.chunks,
            layout.segments,
            buffer._attributes,
            self._members,
            self._group_table,
            self._clips,
            self._coefficients,
            np.zeros((layout.slices, t.SLICE_COLUMNS)),
            np.zeros((t.BINS, layout.partials + count)),
            np.zeros((3, layout.tiles)),
            self._rates,
            self._counters,
        )
        self._run: Callable[[], int] = self._first_run
        for group, members in zip(groups, segments, strict=True):
            self._place_group(group, members)
        self._write_tables()

    def _place_group(self, values: Mapping[str, Any], segments: list[int]) -> None:
        where = f"{type(self).__name__} group {len(self._groups)}"
        self._members[segments, t.MEMBER_GROUP] = len(self._groups)
        values = {"params": values["params"], **values}
        self._groups.append(ParamGroup(values, self._check_table, where, self._write_tables))

    def _write_tables(self) -> None:
        """Bring the group and clip tables to what the groups say; refuses before it writes."""
        rows, clips = clip_rows([group["grad_clip"] for group in self._groups])
        for index, group in enumerate(self._groups):
            row = self._group_table[index]
            row[t.GROUP_RATE] = group["learning_rate"]
            row[t.GROUP_L1], row[t.GROUP_L2] = decay_columns(group["weight_decay"])
            row[t.GROUP_RESCALE] = group["rescale_grad"]
            row[t.GROUP_CLIP] = rows[index]
            row[t.GROUP_HYPER :] = [group[name] for name in self._rule.hyper]
        names = self._buffer._seal().names
        groups = self._members[:, t.MEMBER_GROUP]
        clip_of = np.where(groups >= 0, self._group_table[groups, t.GROUP_CLIP], 0).astype(np.int64)
        order = sorted(range(len(names)), key=lambda s: (clip_of[s], names[s]))
        self._members[:, t.MEMBER_ORDER] = order
        counts = np.bincount(clip_of, minlength=len(clips))
        firsts = np.cumsum(counts) - counts
        for index, clip in enumerate(clips):
            columns = clip.columns if clip else (t.CLIP_NONE, np.inf, -np.inf, np.inf)
            self._clips[index, : t.CLIP_FIRST] = columns
            self._clips[index, t.CLIP_FIRST] = firsts[index]
            self._clips[index, t.CLIP_COUNT] = counts[index]
        self._counters[t.CLIPS_USED] = len(clips)

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
        >>> opt = nb.optimizer.SGD(0.1, parameters=[params["w"]])
        >>> opt.add_param_group({"params": params["b"], "learning_rate": 2.0})
        >>> len(opt.param_groups)
        2
        """
        kind = type(self).__name__
        buffer, specs = _as_specs([group], kind)
        if buffer is not self._buffer:
            raise ParameterError(f"{kind}: the new group's parameters belong to another buffer")
        where = f"{kind} group {len(self._groups)}"
        values = {
            **self._defaults,
            **{
                key: check_value(self._check_table, key, value, where)
                for key, value in specs[0].items()
                if key != "params"
            },
            "params": specs[0]["params"],
        }
        held = [{"params": g["params"]} for g in self._groups]
        segments = _segments_of_groups(buffer, [*held, values])[-1]
        clip_rows([*(g["grad_clip"] for g in self._groups), values["grad_clip"]])
        self._place_group(values, segments)
        self._write_tables()

    # --- the step

    def _first_run(self) -> int:
        self.compile()
        return self._run()

    def compile(self) -> None:
        """Make the machine code now; else the first step does.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> nb.optimizer.SGD(0.1, parameters=params).compile()
        """
        from nbopt.kernels.cpu.run import bind_step

        layout = self._buffer._seal()
        elements = int(layout.segments[:, t.SEGMENT_SIZE].sum())
        self._run = bind_step(self._rule, self._buffer.dtype, layout.normed, self._arrays, elements)

    def step(self, grads: Mapping[str, ArrayLike | None] | ArrayLike | None = None) -> None:
        """Take one step.

        Parameters
        ----------
        grads : mapping of str to array_like, or vector, optional
            Gradients to copy in first, as in `ParameterBuffer.set_grads`. Of a mapping, this optimizer's parameters
            that it leaves out are absent from the step.

        Raises
        ------
        NonFiniteGradientError
            If a gradient holds NaN or Inf, under ``nonfinite="raise"``; nothing was changed.
        ConcurrencyError
            If another thread is stepping this optimizer; nothing was changed by this call.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
        >>> opt = nb.optimizer.SGD(0.5, parameters=params)
        >>> opt.step({"w": [1.0, -1.0]})
        >>> params["w"].value
        array([0.5, 2.5])
        """
        if grads is not None:
            if isinstance(grads, Mapping):
                left_out = {p.name: None for p in self.parameters if p.name not in grads}
                grads = {**grads, **{n: g for n, g in left_out.items() if n in set(self._buffer)}}
            self._buffer.set_grads(grads)
        code = self._run()
        if code:
            self._refused(code)

    def _refused(self, code: int) -> None:
        if code == t.CONCURRENT:
            raise ConcurrencyError(
                f"another thread is stepping this {type(self).__name__}; give each thread an optimizer "
                "of its own, or hold a lock around step()"
            )
        self.check()

    def check(self) -> None:
        """Raise what a step has found and not yet raised.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> nb.optimizer.SGD(0.1, parameters=params).check()
        """
        counters = self._counters
        if not counters[t.STATUS]:
            return
        row = int(counters[t.CONSECUTIVE])
        counters[t.STATUS] = counters[t.CONSECUTIVE] = 0
        name, what, index = self._first_nonfinite(int(counters[t.BAD_SEGMENT]))
        step = int(counters[t.STEPS]) + 1
        where = f" at {index}" if index else ""
        tale = f", the {row}th refusal in a row" if row > 1 else ""
        raise NonFiniteGradientError(
            f"step {step} was refused{tale}: {what}{where}. Nothing was changed. Mend the gradient, or "
            'choose nonfinite="skip" or "propagate"',
            name,
            index,
            step,
        )

    def _first_nonfinite(self, segment: int) -> tuple[str, str, tuple[int, ...]]:
        """Name of the parameter, what is wrong with it, and the index of the first bad element."""
        part = self._buffer[self._buffer._seal().names[segment]]
        owner = part._parent or part
        arrays: list[tuple[str, NDArray[Any]]] = [("gradient", owner.grad)]
        if owner is not part:
            arrays += [(f"value of {p.name!r}, part", p.value) for p in owner._moved]
        for what, array in arrays:
            bad = np.flatnonzero(~np.isfinite(array))
            if bad.size:
                index = tuple(int(i) for i in np.unravel_index(int(bad[0]), array.shape))
                return owner.name, f"the {what} of {owner.name!r} is {array[index]}", index
        return owner.name, f"the gradient of {owner.name!r} was not finite", ()

    def minimize(
        self,
        loss: float | Callable[[], Any] | None = None,
        startup_program: Any = None,
        parameters: Iterable[Parameter | str] | None = None,
        no_grad_set: Iterable[Parameter | str] | None = None,
    ) -> tuple[list[Any], list[tuple[Parameter, NDArray[Any]]]]:
        """Take one step on some of the parameters.

        Parameters
        ----------
        loss : float or callable, optional
            A callable writes the gradients and returns the loss; the number is then `last_loss`.
        startup_program : object
            Accepted as in Paddle and not used.
        parameters : iterable of Parameter or str, optional
            Move only these.
        no_grad_set : iterable of Parameter or str, optional
            Do not move these.

        Returns
        -------
        tuple
            An empty list, and the pairs (parameter, view of its gradient) that took part.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [3.0]})
        >>> w = params["w"]
        >>> opt = nb.optimizer.SGD(0.5, parameters=params)
        >>> def loss():
        ...     w.grad = 2 * w.value
        ...     return float(w.value @ w.value)
        >>> _ = opt.minimize(loss)
        >>> opt.last_loss, w.value
        (9.0, array([0.]))
        """
        own = self.parameters
        chosen = own if parameters is None else self._named(parameters, "parameters")
        left_out = [] if no_grad_set is None else self._named(no_grad_set, "no_grad_set")
        if loss is not None:
            value = loss() if callable(loss) else loss
            if value is not None:
                self._last_loss = (
                    as_number(value, "loss", low=-np.inf, high=np.inf, allow_inf=True)
                    if not _is_nan(value)
                    else float("nan")
                )
        moving = {part for p in chosen if p not in left_out for part in p._moved}
        still = [part for p in own for part in p._moved if part not in moving]
        before = [part._row[t.ATTRIBUTE_TRAINABLE] for part in still]
        try:
            for part in still:
                part._row[t.ATTRIBUTE_TRAINABLE] = 0.0
            self.step()
        finally:
            for part, value in zip(still, before, strict=True):
                part._row[t.ATTRIBUTE_TRAINABLE] = value
        return [], [
            (p, p.grad)
            for p in own
            if p.trainable and p.has_grad and any(part in moving for part in p._moved)
        ]

    def _named(self, items: Iterable[Parameter | str], what: str) -> list[Parameter]:
        own = {p.name: p for p in self.parameters}
        if isinstance(items, (str, Parameter)):
            items = [items]
        found = []
        for item in items:
            name = item.name if isinstance(item, Parameter) else item
            if own.get(name) is None or (isinstance(item, Parameter) and own[name] is not item):
                raise ParameterError(f"{what}: {name!r} is none of this optimizer's parameters")
            found.append(own[name])
        return found

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Fill the gradients of this optimizer's parameters with zeros; `set_to_zero=False` also marks them absent."""
        keep = as_flag(set_to_zero, "set_to_zero")
        for parameter in self.parameters:
            parameter.clear_grad(keep)

    def zero_grad(self) -> None:
        """Fill the gradients of this optimizer's parameters with zeros."""
        self.clear_grad()

    # --- rates and groups

    def get_lr(self) -> float:
        """Return the base learning rate."""
        return float(self._rates[0])

    def set_lr(self, value: float) -> None:
        """Set the base learning rate; the next step obeys.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt = nb.optimizer.SGD(0.1, parameters=params)
        >>> opt.set_lr(0.05)
        >>> opt.get_lr()
        0.05
        """
        self._rates[0] = as_number(value, f"{type(self).__name__} learning_rate", low=0.0)

    @property
    def param_groups(self) -> list[ParamGroup]:
        """The groups; a value set in one is checked and seen by the next step. The list itself is a copy."""
        return list(self._groups)

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters, in group order."""
        return [p for group in self._groups for p in group["params"]]

    # --- what happened

    @property
    def step_count(self) -> int:
        """Steps taken."""
        self.check()
        return int(self._counters[t.STEPS])

    @property
    def steps_skipped(self) -> int:
        """Steps refused for a non-finite gradient."""
        self.check()
        return int(self._counters[t.SKIPPED])

    @property
    def last_loss(self) -> float | None:
        """The loss of the last `minimize` that had one."""
        return self._last_loss

    @property
    def grad_norm(self) -> float | None:
        """Norm of all gradients that moved in the last step, after rescale and before clipping; None if none was taken."""
        self.check()
        return state.grad_norm(self)

    @property
    def clip_coefficients(self) -> dict[str, float]:
        """What clipping multiplied the gradients by in the last step, by name; 1 for what it left alone."""
        self.check()
        return {
            self._buffer._seal().names[s]: float(row[t.COEFFICIENT_CLIP])
            for s, row in enumerate(self._coefficients)
            if row[t.COEFFICIENT_ACTIVE]
        }

    # --- state

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what the optimizer remembers.

        Returns
        -------
        dict
            ``<parameter>.<accumulator>`` arrays, ``<parameter>.step`` counts, and plain scalars.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt = nb.optimizer.Momentum(0.1, parameters=params)
        >>> sorted(opt.state_dict())
        ['learning_rate', 'rule', 'step_count', 'steps_skipped', 'steps_skipped_in_a_row', 'w.step', 'w.velocity']
        """
        self.check()
        return state.get(self)

    def set_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Fill in what `state_dict` gave; all of it or, on an error, nothing.

        Parameters
        ----------
        state_dict : mapping
        strict : bool
            False takes what is there: missing and unexpected entries are no errors then.

        Raises
        ------
        StateDictError
            If entries are missing, unexpected, or of a wrong shape, dtype or value; it names all of them.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt = nb.optimizer.Momentum(0.1, parameters=params)
        >>> opt.set_state_dict(opt.state_dict())
        """
        state.put(self, state_dict, as_flag(strict, "strict"))

    load_state_dict = set_state_dict

    def __getstate__(self) -> dict[str, Any]:
        return {
            "rule": self._rule,
            "buffer": self._buffer,
            "groups": [
                {**group, "params": [p.name for p in group["params"]]} for group in self._groups
            ],
            "defaults": self._defaults,
            "name": self.name,
            "last_loss": self._last_loss,
            "accumulators": self._accumulators,
            "steps": self._members[:, t.MEMBER_STEPS].copy(),
            "rates": self._rates.copy(),
            "counters": self._counters.copy(),
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        buffer = saved["buffer"]
        groups = [
            {**group, "params": [buffer[name] for name in group["params"]]}
            for group in saved["groups"]
        ]
        counters = saved["counters"]
        self._setup(
            saved["rule"],
            buffer,
            groups,
            saved["defaults"],
            saved["name"],
            float(saved["rates"][0]),
            int(counters[t.GUARD]),
        )
        self._last_loss = saved["last_loss"]
        np.copyto(self._accumulators, saved["accumulators"])
        self._members[:, t.MEMBER_STEPS] = saved["steps"]
        kept = [t.STATUS, t.STEPS, t.SKIPPED, t.CONSECUTIVE, t.BAD_SEGMENT]
        self._counters[kept] = counters[kept]

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return (
            f"{type(self).__name__}{label}({len(self.parameters)} parameters in {len(self._groups)} groups, "
            f"learning_rate={self.get_lr():g}, step {int(self._counters[t.STEPS])})"
        )


def _is_nan(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _as_specs(parameters: Any, kind: str) -> tuple[ParameterBuffer, list[dict[str, Any]]]:
    """Return the one buffer of all parameters, and one dictionary per group with a list of parameters."""
    if isinstance(parameters, Mapping) and not isinstance(parameters, ParameterBuffer):
        raise TypeError(
            f"{kind} takes groups as a list: write parameters=[{{'params': [...], ...}}]"
        )
    if isinstance(parameters, Iterable) and not isinstance(
        parameters, (str, bytes, ParameterBuffer, set, frozenset)
    ):
        parameters = list(parameters)
    grouped = isinstance(parameters, list) and any(isinstance(p, Mapping) for p in parameters)
    specs = []
    for index, spec in enumerate(parameters if grouped else [{"params": parameters}]):
        if not isinstance(spec, Mapping) or isinstance(spec, ParameterBuffer):
            raise TypeError(f"{kind}: parameters mixes groups with {type(spec).__name__}")
        if "params" not in spec:
            raise TypeError(f"{kind} group {index} has no 'params'")
        found = as_parameters(spec["params"])
        if not found:
            where = f"{kind} group {index}" if grouped else kind
            raise ParameterError(f"{where} got no parameters")
        specs.append({**spec, "params": found})
    if not specs:
        raise ParameterError(f"{kind} got no parameters")
    buffers = {id(p._buffer): p for spec in specs for p in spec["params"]}
    if len(buffers) > 1:
        names = [p.name for p in buffers.values()]
        raise ParameterError(
            f"{kind} got parameters of {len(buffers)} buffers ({names[0]!r}, {names[1]!r}, ...); one "
            "optimizer moves one buffer"
        )
    return specs[0]["params"][0]._buffer, specs


def _segments_of_groups(buffer: ParameterBuffer, groups: list[dict[str, Any]]) -> list[list[int]]:
    """Return the segments of each group, refusing one that is in two."""
    index = {name: s for s, name in enumerate(buffer._seal().names)}
    owner: dict[int, int] = {}
    result = []
    for number, group in enumerate(groups):
        segments = []
        for parameter in group["params"]:
            for part in parameter._moved:
                s = index[part.name]
                if owner.setdefault(s, number) != number:
                    raise ParameterError(
                        f"parameter {parameter.name!r} is in group {owner[s]} and in group {number}"
                    )
                segments.append(s)
        result.append(segments)
    return result


def clip_rows(
    clips: list[GradientClip | None],
) -> tuple[list[int], list[GradientClip | None]]:
    """Return the row of the clip table of each group, and the clips by row; row 0 clips nothing.

    Raises
    ------
    HyperparameterError
        If clips of one explicit `group_name` have several limits.
    """
    rows: list[int] = []
    table: list[GradientClip | None] = [None]
    seen: dict[Any, int] = {}
    for clip in clips:
        if clip is None:
            rows.append(0)
            continue
        key: Any = id(clip)
        if isinstance(clip, ClipGradByGlobalNorm) and clip.group_name != DEFAULT_GROUP:
            key = clip.group_name
        row = seen.setdefault(key, len(table))
        if row == len(table):
            table.append(clip)
        held = table[row]
        assert held is not None
        if held.columns != clip.columns:
            raise HyperparameterError(
                f"clips of group_name={key!r} have limits {held.columns[1]!r} and {clip.columns[1]!r}; "
                "one norm has one limit"
            )
        rows.append(row)
    return rows, table
