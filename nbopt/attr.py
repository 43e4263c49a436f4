"""What a parameter wishes for itself: records that `ParameterBuffer.create_parameter` takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import as_flag, as_integer, as_name, as_number
from nbopt.errors import ParameterError
from nbopt.initializer import Initializer
from nbopt.regularizer import Regularizer

__all__ = ["ParamAttr", "WeightNormParamAttr"]

DIM_MEANINGS = """dim is the axis that is kept, 0 <= dim < rank, or None for one norm over all elements.
What a negative dim means elsewhere:
                          kept or reduced   None             -1
  nbopt                   kept              whole tensor     refused
  Paddle ParamAttr        kept              whole tensor     last axis
  Paddle nn.utils, torch  kept              whole tensor     whole tensor
  Jittor                  reduced           last axis        last axis"""

# What to write in place of arguments that there are elsewhere.
HINTS = {
    "gradient_clip": "give the clip to the optimizer (grad_clip=...), and need_clip=False to the parameters "
    "that it shall leave alone",
    "dim": "WeightNormParamAttr has a dim",
    "stop_gradient": "write trainable, its opposite",
}


@partial(check_calls, hints=HINTS)
@dataclass(frozen=True, init=False)
class ParamAttr:
    """The policy of one parameter.

    Parameters
    ----------
    name : str, optional
        Wins over the `name` argument of `create_parameter`. Parameters of one name are one parameter.
    initializer : Initializer, optional
        Draws the first value.
    learning_rate : float
        Multiplies the learning rate; finite and >= 0. At 0 the parameter stays, but its velocity goes on.
    regularizer : L1Decay or L2Decay, optional
        Stands in place of the optimizer's and the group's weight decay.
    trainable : bool
        False freezes the parameter, bit for bit.
    do_model_average : bool
        Whether averages take the parameter in.
    need_clip : bool
        False keeps the parameter out of gradient clipping, and out of its norm.

    Notes
    -----
    The fields are those of Paddle's `ParamAttr`. Records compare by value and do not change; the attributes
    of a `Parameter` can be set at any time.

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.ParamAttr(learning_rate=2.0, need_clip=False)
    ParamAttr(name=None, initializer=None, learning_rate=2.0, regularizer=None, trainable=True,
              do_model_average=True, need_clip=False)
    """

    name: str | None
    initializer: Initializer | None
    learning_rate: float
    regularizer: Regularizer | None
    trainable: bool
    do_model_average: bool
    need_clip: bool

    def __init__(
        self,
        name: str | None = None,
        initializer: Initializer | None = None,
        learning_rate: float = 1.0,
        regularizer: Regularizer | None = None,
        trainable: bool = True,
        do_model_average: bool = True,
        need_clip: bool = True,
    ):
        kind = type(self).__name__
        if initializer is not None and not isinstance(initializer, Initializer):
            raise TypeError(
                f"{kind} initializer must be an Initializer, got {initializer!r}; for given values write "
                "nbopt.initializer.Assign(values)"
            )
        if regularizer is not None and not isinstance(regularizer, Regularizer):
            raise TypeError(
                f"{kind} regularizer must be L1Decay or L2Decay, got {regularizer!r}; "
                "write nbopt.regularizer.L2Decay(coeff)"
            )
        for field, value in (
            ("name", None if name is None else as_name(name, f"{kind} name")),
            ("initializer", initializer),
            ("learning_rate", as_number(learning_rate, f"{kind} learning_rate", low=0.0)),
            ("regularizer", regularizer),
            ("trainable", as_flag(trainable, f"{kind} trainable")),
            ("do_model_average", as_flag(do_model_average, f"{kind} do_model_average")),
            ("need_clip", as_flag(need_clip, f"{kind} need_clip")),
        ):
            object.__setattr__(self, field, value)

    def renamed(self, name: str | None) -> ParamAttr:
        """Return this record under another name.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.ParamAttr(need_clip=False).renamed("bias").name
        'bias'
        """
        record = object.__new__(type(self))
        for key, value in vars(self).items():  # checked already
            object.__setattr__(record, key, value)
        object.__setattr__(record, "name", None if name is None else as_name(name))
        return record

    def __deepcopy__(self, memo: Any) -> ParamAttr:
        return self  # it does not change


@partial(check_calls, hints=HINTS)
@dataclass(frozen=True, init=False)
class WeightNormParamAttr(ParamAttr):
    """The policy of a weight that is recomposed from a direction v and a magnitude g, ``w = g v / |v|``.

    v is drawn by the initializer and g starts as its norm, so the first w is what the initializer drew.
    Both carry the attributes.

    Parameters
    ----------
    dim : int, optional
        The axis that is kept, ``0 <= dim < rank``: one magnitude per index along it. None is one norm over
        all elements.
    name, initializer, learning_rate, regularizer, trainable, need_clip
        As in `ParamAttr`.
    do_model_average : bool
        As in `ParamAttr`, but False by default, as in Paddle.

    Notes
    -----
    Salimans and Kingma (2016). The fields are those of Paddle's `WeightNormParamAttr`; a negative `dim` is
    refused, because Paddle, torch and Jittor mean different things by it.

    Examples
    --------
    One norm over the weight of a layer with 1,000 units, every attribute given:

    >>> import nbopt as nb
    >>> attr = nb.WeightNormParamAttr(
    ...     dim=None,
    ...     name="weight_norm_param",
    ...     initializer=nb.initializer.Constant(1.0),
    ...     learning_rate=1.0,
    ...     regularizer=nb.regularizer.L2Decay(0.1),
    ...     trainable=True,
    ...     do_model_average=False,
    ...     need_clip=True,
    ... )
    >>> params = nb.ParameterBuffer()
    >>> w = params.create_parameter([1024, 1000], attr=attr)
    >>> w.weight_v, w.weight_g
    (Parameter('weight_norm_param_v', shape=(1024, 1000), float32),
     Parameter('weight_norm_param_g', shape=(1, 1), float32))
    >>> w.weight_g.value
    array([[1011.9289]], dtype=float32)
    """

    dim: int | None

    def __init__(
        self,
        dim: int | None = None,
        name: str | None = None,
        initializer: Initializer | None = None,
        learning_rate: float = 1.0,
        regularizer: Regularizer | None = None,
        trainable: bool = True,
        do_model_average: bool = False,
        need_clip: bool = True,
    ):
        super().__init__(
            name,
            initializer,
            learning_rate,
            regularizer,
            trainable,
            do_model_average,
            need_clip,
        )
        if dim is not None:
            dim = as_integer(dim, "WeightNormParamAttr dim", error=ParameterError)
            if dim < 0:
                raise ParameterError(f"WeightNormParamAttr got dim={dim}. {DIM_MEANINGS}")
        object.__setattr__(self, "dim", dim)


PLAIN = ParamAttr()  # what stands for no wishes at all


def differences(one: ParamAttr, other: ParamAttr) -> tuple[str, str]:
    """Return both records with nothing but the fields in which they differ."""
    missing = object()

    def show(attr: ParamAttr, against: ParamAttr) -> str:
        values = {field.name: getattr(attr, field.name) for field in fields(attr)}
        parts = [f"{k}={v!r}" for k, v in values.items() if getattr(against, k, missing) != v]
        return f"{type(attr).__name__}({', '.join(parts)})"

    return show(one, other), show(other, one)


def as_attr(value: Any, label: str) -> ParamAttr | None:
    """Return what `attr=` stands for; None for False, which asks for no parameter at all."""
    if value is None or value is True:
        return PLAIN
    if value is False:
        return None
    if isinstance(value, ParamAttr):
        return value
    if isinstance(value, str):
        return ParamAttr(name=value)
    if isinstance(value, Initializer):
        return ParamAttr(initializer=value)
    if isinstance(value, Regularizer):
        return ParamAttr(regularizer=value)
    raise TypeError(
        f"{label} must be None, True, False, a name, an initializer, a regularizer, ParamAttr or "
        f"WeightNormParamAttr, got {type(value).__name__} {value!r}"
    )
