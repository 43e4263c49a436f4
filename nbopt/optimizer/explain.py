"""What an optimizer does with a parameter, in words: its rate, its decay, its clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbopt.clip import ClipGradByValue
from nbopt.errors import ParameterError
from nbopt.kernels import tables as t
from nbopt.parameter import Parameter
from nbopt.regularizer import as_regularizer

if TYPE_CHECKING:
    from nbopt.optimizer.base import Optimizer

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, repr=False)
class Explanation:
    """How one array that an optimizer moves is treated; `str` gives the sentences.

    Attributes
    ----------
    name : str
    rate : float
        The effective learning rate.
    factors : dict
        What it is the product of: ``base``, ``group``, ``lr_ratio`` where there is one, ``parameter``.
    regularizer : str
        What is added to the gradient, and whose it is.
    decay : str
        What the rule decays by itself; empty if it does not.
    clip : str
        The clip, and its factor in the last step.
    dim : str
        The kept axis of weight norm; empty without.
    state : str
        ``"moves"``, ``"frozen"`` or ``"absent"``.
    """

    name: str
    rate: float
    factors: dict[str, float]
    regularizer: str
    decay: str
    clip: str
    dim: str
    state: str

    def __repr__(self) -> str:
        return f"Explanation({self.name!r}, rate={self.rate:g}, {self.state})"

    def __str__(self) -> str:
        product = " x ".join(f"{value:g} ({key})" for key, value in self.factors.items())
        lines = [
            ("state", _STATES[self.state]),
            ("rate", f"{self.rate:g} = {product}"),
            ("regularizer", self.regularizer),
            ("decay", self.decay),
            ("clip", self.clip),
            ("weight norm", self.dim),
        ]
        return "\n".join([self.name, *(f"  {key:<12} {text}" for key, text in lines if text)])


_STATES = {
    "moves": "moves",
    "frozen": "frozen: trainable is False, so nothing of it changes",
    "absent": "absent: its gradient was not written, so steps leave it alone",
}


def explain(opt: Optimizer, name: Any) -> tuple[Explanation, ...]:
    """Return one explanation per array that the optimizer moves, of one parameter or of all."""
    named = {part.name: p for p in opt._held() for q in p._moved for part in (p, q)}
    if isinstance(name, Parameter):
        name = name.name
    if name is not None and not isinstance(name, str):
        raise TypeError(f"explain takes a name or a Parameter, got {type(name).__name__} {name!r}")
    if name is not None and name not in named:
        raise ParameterError(f"explain: {name!r} is none of this optimizer's parameters: {', '.join(named)}")
    chosen = opt._held() if name is None else [named[name]]
    parts = [(p, part) for p in chosen for part in p._moved]
    if name is not None and name != chosen[0].name:
        parts = [(p, part) for p, part in parts if part.name == name]
    segment_of = opt._buffer._seal().segment_of
    number_of = {
        id(q): number for number, group in enumerate(opt._groups) for p in group["params"] for q in p._moved
    }
    return tuple(_explained(opt, p, part, segment_of[part.name], number_of[id(part)]) for p, part in parts)


def _explained(opt: Optimizer, whole: Parameter, part: Parameter, s: int, number: int) -> Explanation:
    group = opt._groups[number]
    row = opt._tables.group_rows[opt._tables.group_of[s]]
    attributes = part._row
    factors = {"base": opt._rate(), "group": group["learning_rate"]}
    if group["learning_rate"] and row[t.GROUP_RATE] != group["learning_rate"]:
        factors["lr_ratio"] = float(row[t.GROUP_RATE] / group["learning_rate"])
    factors["parameter"] = part.learning_rate
    rate = opt._rate() * float(row[t.GROUP_RATE]) * part.learning_rate
    state = "moves"
    if not attributes[t.ATTRIBUTE_TRAINABLE]:
        state = "frozen"
    elif not (part._parent or part).has_grad:
        state = "absent"
    owner = whole._parent or whole
    return Explanation(
        name=part.name,
        rate=rate,
        factors=factors,
        regularizer=_regularizer(opt, part, number),
        decay=_own_decay(opt, row, group),
        clip=_clip(opt, part, group, s),
        dim=f"part of {owner.name!r}, along dim={owner.dim}" if part is not owner else "",
        state=state,
    )


def _regularizer(opt: Optimizer, part: Parameter, number: int) -> str:
    """Which penalty is in the gradient, and why."""
    own, given = part.regularizer, opt._groups[number]["weight_decay"]
    decoupled = "weight_decay" in opt._rule.hyper
    if own is not None:
        over = "" if decoupled else ", which stands in place of any other"
        return f"{own!r}: the parameter's own{over}"
    decay = None if decoupled else as_regularizer(given, "weight_decay")
    if decay is None:
        return "none"
    inherited = opt._defaults["weight_decay"] == given
    return f"{decay!r}: the {'optimizer' if inherited else f'group {number}'}'s, as the parameter has none"


def _own_decay(opt: Optimizer, row: Any, group: Any) -> str:
    if "weight_decay" not in opt._rule.hyper:
        return ""
    value = float(row[t.GROUP_HYPER + opt._rule.hyper.index("weight_decay")])
    if value != group["weight_decay"]:
        return f"none: apply_decay_param_fun says so, of {group['weight_decay']:g}"
    return f"{value:g}, decoupled: the rule {opt._rule.name} applies it"


def _clip(opt: Optimizer, part: Parameter, group: Any, s: int) -> str:
    """The clip of the group, and what it did in the last step."""
    clip, row = group["grad_clip"], opt._tables.coefficients[s]
    if clip is None:
        return "none"
    if not part.need_clip:
        return f"none: need_clip is False, so {type(clip).__name__} leaves it out"
    if not row[t.COEFFICIENT_ACTIVE]:
        return f"{clip!r}; the last step did not take it in"
    if isinstance(clip, ClipGradByValue):
        return repr(clip)
    return f"{clip!r}; the last step multiplied by {row[t.COEFFICIENT_CLIP]:g}"
