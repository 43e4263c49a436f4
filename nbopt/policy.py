"""The policy of one parameter: its row of the attribute table, read and set by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbopt._validation import as_flag, as_number
from nbopt.kernels import tables as t
from nbopt.memory import Table
from nbopt.regularizer import L1Decay, L2Decay, Regularizer
from nbopt.strict import Strict

if TYPE_CHECKING:
    from nbopt.attr import ParamAttr

__all__ = ["Policy", "attribute_row"]


class Policy(Strict, ABC):
    """What a `Parameter` wishes for itself; every step reads it anew.

    Of a weight-normed parameter, setting an attribute sets it on g and on v; reading gives that of v.
    """

    _instead = MappingProxyType(
        {
            "data": "value",
            "gradient": "grad",
            "grads": "grad",
            "lr": "learning_rate",
            "requires_grad": "trainable",
            "weight_decay": "regularizer = nbopt.regularizer.L2Decay(...)",
        }
    )
    _row: Table  # becomes a row of the attribute table

    @property
    @abstractmethod
    def name(self) -> str:
        """Name, unique in the buffer."""

    @property
    @abstractmethod
    def _moved(self) -> tuple[Policy, ...]:
        """The parameters that an optimizer moves for this one: itself, or its g and v."""

    def _column(self, column: int) -> float:
        return float(self._moved[-1]._row[column])

    def _set_columns(self, column: int, value: float) -> None:
        for parameter in self._moved:
            parameter._row[column] = value

    @property
    def learning_rate(self) -> float:
        """Multiplies the learning rate; finite and >= 0. With weight norm, reading gives that of v.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> w.learning_rate = 2.0
        >>> nb.optimizer.SGD(0.25, parameters=w).step({"w": [1.0]})
        >>> w.value
        array([0.5])
        """
        return self._column(t.ATTRIBUTE_RATE)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._set_columns(t.ATTRIBUTE_RATE, as_number(value, f"learning_rate of {self.name!r}", low=0.0))

    @property
    def regularizer(self) -> Regularizer | None:
        """Stands in place of the group's and the optimizer's weight decay; None leaves those.

        With weight norm, reading gives that of v.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> w.regularizer = nb.regularizer.L2Decay(0.5)
        >>> nb.optimizer.SGD(1.0, parameters=w, weight_decay=0.25).step()
        >>> w.value
        array([0.5])
        """
        kind = self._column(t.ATTRIBUTE_REGULARIZER)
        if kind == t.REGULARIZER_L1:
            return L1Decay(self._column(t.ATTRIBUTE_L1))
        return L2Decay(self._column(t.ATTRIBUTE_L2)) if kind == t.REGULARIZER_L2 else None

    @regularizer.setter
    def regularizer(self, value: Regularizer | None) -> None:
        if value is not None and not isinstance(value, Regularizer):
            raise TypeError(f"regularizer of {self.name!r} must be None, L1Decay or L2Decay, got {value!r}")
        l1, l2 = value._columns if value else (0.0, 0.0)
        self._set_columns(t.ATTRIBUTE_L1, l1)
        self._set_columns(t.ATTRIBUTE_L2, l2)
        self._set_columns(t.ATTRIBUTE_REGULARIZER, _regularizer_kind(value))

    @property
    def need_clip(self) -> bool:
        """Whether gradient clipping takes the parameter in. With weight norm, reading gives that of v.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [0.0], "b": [0.0]})
        >>> params["b"].need_clip = False
        >>> opt = nb.optimizer.SGD(1.0, parameters=params, grad_clip=nb.ClipGradByValue(0.5))
        >>> opt.step({"w": [3.0], "b": [3.0]})
        >>> params["w"].value, params["b"].value
        (array([-0.5]), array([-3.]))
        """
        return bool(self._column(t.ATTRIBUTE_NEED_CLIP))

    @need_clip.setter
    def need_clip(self, value: bool) -> None:
        self._set_columns(t.ATTRIBUTE_NEED_CLIP, float(as_flag(value, f"need_clip of {self.name!r}")))

    @property
    def do_model_average(self) -> bool:
        """Whether averages take the parameter in. With weight norm, reading gives that of v.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> w.do_model_average = False
        >>> w.do_model_average
        False
        """
        return bool(self._column(t.ATTRIBUTE_AVERAGE))

    @do_model_average.setter
    def do_model_average(self, value: bool) -> None:
        self._set_columns(t.ATTRIBUTE_AVERAGE, float(as_flag(value, f"do_model_average of {self.name!r}")))

    @property
    def trainable(self) -> bool:
        """Whether steps move the parameter; False freezes it, bit for bit.

        With weight norm, setting it sets both g and v, and reading says whether either of them moves.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> w.trainable = False
        >>> nb.optimizer.SGD(0.5, parameters=w, weight_decay=0.5).step({"w": [1.0]})
        >>> w.value
        array([1.])
        """
        return any(bool(p._row[t.ATTRIBUTE_TRAINABLE]) for p in self._moved)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_columns(t.ATTRIBUTE_TRAINABLE, float(as_flag(value, f"trainable of {self.name!r}")))

    @property
    def stop_gradient(self) -> bool:
        """The opposite of `trainable`, under Paddle's name.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> w.stop_gradient = True
        >>> w.trainable
        False
        """
        return not self.trainable

    @stop_gradient.setter
    def stop_gradient(self, value: bool) -> None:
        self.trainable = not as_flag(value, f"stop_gradient of {self.name!r}")


def attribute_row(attr: ParamAttr) -> NDArray[Any]:
    """Return the row of the attribute table that a record stands for; the gradient is present."""
    row = np.zeros(t.ATTRIBUTE_COLUMNS)
    row[t.ATTRIBUTE_RATE] = attr.learning_rate
    row[t.ATTRIBUTE_L1], row[t.ATTRIBUTE_L2] = attr.regularizer._columns if attr.regularizer else (0.0, 0.0)
    row[t.ATTRIBUTE_REGULARIZER] = _regularizer_kind(attr.regularizer)
    row[t.ATTRIBUTE_NEED_CLIP] = attr.need_clip
    row[t.ATTRIBUTE_TRAINABLE] = attr.trainable
    row[t.ATTRIBUTE_PRESENT] = 1.0
    row[t.ATTRIBUTE_MOVED] = -1.0
    row[t.ATTRIBUTE_AVERAGE] = attr.do_model_average
    return row


def _regularizer_kind(regularizer: Regularizer | None) -> int:
    if regularizer is None:
        return t.REGULARIZER_NONE
    return t.REGULARIZER_L1 if isinstance(regularizer, L1Decay) else t.REGULARIZER_L2
