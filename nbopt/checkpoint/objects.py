"""What can be in a checkpoint: how each kind of object is read out, compared with a file, and filled in."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt._state_dict import misfits
from nbopt.averaging.backup import refuse_averages
from nbopt.buffer import ParameterBuffer
from nbopt.checkpoint.header import Section, as_dtype
from nbopt.checkpoint.stored import Stored
from nbopt.checkpoint.values import plain
from nbopt.errors import CheckpointError
from nbopt.kernels import tables as t
from nbopt.optimizer import Optimizer, schedule, state
from nbopt.parameter import Parameter
from nbopt.standstill import Standstill, tables_of

__all__ = ["Item", "Restorable", "Stateful", "as_items", "as_weights"]


class Item:
    """One object that is saved.

    Attributes
    ----------
    keyword : str or None
        What it is handed in under.
    kind : str
        Objects without a keyword are matched by kind and order.
    arrays, values : dict
        What it remembers, by name: arrays, which may be views of live memory, and plain values.
    absent : list of str
        Parameters whose gradient is absent.
    still : Standstill or None
        Of the optimizers that must not step meanwhile.
    """

    def __init__(
        self, keyword: str | None, kind: str, remembered: Mapping[str, Any], still: Standstill | None = None
    ):
        self.still = still
        self.keyword = keyword
        self.kind = kind
        self.arrays: dict[str, NDArray[Any]] = {}
        self.values: dict[str, Any] = {}
        self.absent: list[str] = []
        for name, value in remembered.items():
            plain(name, name)  # refuses what is no text
            if isinstance(value, np.ndarray):
                self.arrays[name] = value
            else:
                self.values[name] = plain(value, name)

    @property
    def label(self) -> str:
        """How a message calls it."""
        return self.kind if self.keyword is None else f"{self.kind} {self.keyword!r}"

    def section(self) -> Section:
        """Return its section of a file, with digests still to come."""
        return Section(
            self.keyword, self.kind, dict.fromkeys(self.arrays, "0" * 64), self.values, self.absent
        )

    def check_unchanged(self) -> None:
        """Raise if another thread has stepped it since."""
        if self.still is not None:
            self.still.check("it was saved; nothing was written. Save between steps")


class Restorable(Item, ABC):
    """One object that is saved or restored.

    Attributes
    ----------
    finite : collection of str
        The arrays that may hold finite numbers alone.
    """

    finite: Collection[str] = ()

    @abstractmethod
    def problems(self, stored: Stored) -> list[str]:
        """Say what of a section does not fit."""

    @abstractmethod
    def fill(self, stored: Stored) -> None:
        """Take a section that fits."""


def _differences(item: Item, stored: Stored, free: Collection[str] = ()) -> list[str]:
    """Name what is missing, unexpected, or an array of another kind; what is `free` may be of any."""
    found = {**stored.arrays, **stored.section.values}
    needed = {**item.arrays, **item.values}
    problems = misfits(found, needed)
    for name in needed:
        if name not in found or name in free:
            continue
        array, tensor = item.arrays.get(name), stored.arrays.get(name)
        if array is None and tensor is not None:
            problems.append(f"{name}: got an array, need a value")
        elif array is not None and tensor is None:
            problems.append(f"{name}: got the value {found[name]!r}, need an array")
        elif array is not None and tensor is not None:
            got, need = (tensor.dtype, tensor.shape), (as_dtype(array.dtype, name), array.shape)
            if got != need:
                problems.append(f"{name}: got {got[0]} of shape {got[1]}, need {need[0]} of shape {need[1]}")
    return problems


class _Parameters(Restorable):
    """The values of a buffer; with weight norm v and g, from which w follows."""

    def __init__(self, keyword: str | None, buffer: ParameterBuffer):
        buffer.gather_grads()
        still = Standstill("these parameters", tables_of(buffer))
        parts = [part for p in buffer.values() for part in p._moved]
        super().__init__(keyword, "ParameterBuffer", {part.name: _memory(part) for part in parts}, still)
        self.absent = [name for name, p in buffer.items() if not p.has_grad]
        self._buffer = buffer

    def problems(self, stored: Stored) -> list[str]:
        refuse_averages(self._buffer, "which would undo what nbopt.restore fills in")
        problems = _differences(self, stored)
        unknown = set(stored.section.absent) - set(self._buffer)
        if unknown and not problems:
            problems.append(f"absent gradients of unknown parameters: {', '.join(sorted(unknown))}")
        strange = stored.arrays.keys() - self.arrays.keys()
        for name, parameter in self._buffer.items():
            normed = parameter.weight_v is not None
            if (name if normed else f"{name}_v") in strange:
                problems.append(f"{name} was saved {'without' if normed else 'with'} weight norm")
        return problems

    def fill(self, stored: Stored) -> None:
        memory = self._buffer._memory
        for name in self.arrays:
            array = _memory(self._buffer[name])  # not as it was: another object may have laid it out since
            stored.read(name, array)
            if not memory.is_host and self._buffer.is_sealed:  # then it is a copy
                memory.write(self._buffer._seal().writable(self._buffer[name]), array)
        self._buffer.recompose()
        if self._buffer.is_sealed:
            memory.clear(self._buffer.flat_grad)
        absent = set(stored.section.absent)
        for name, parameter in self._buffer.items():
            parameter._set_columns(t.ATTRIBUTE_PRESENT, 0.0 if name in absent else 1.0)


def _memory(part: Parameter) -> NDArray[Any]:
    """The array that holds a value, laid out or not; of one on a GPU, a copy."""
    if part._buffer.is_sealed:
        return part._memory.read(part._buffer._seal().writable(part))
    assert part._initial is not None
    return part._initial


class _OptimizerState(Restorable):
    """What an optimizer remembers, and the schedule that it follows."""

    def __init__(self, keyword: str | None, opt: Optimizer):
        opt.check()
        self._opt = opt
        still = Standstill(f"this {type(opt).__name__}", [opt._tables])
        super().__init__(keyword, "Optimizer", state.live(opt), still)
        self._scheduled = schedule.get(opt).keys()  # the schedule says itself what it takes
        if opt._tables.counters[t.GUARD] != t.GUARD_PROPAGATE:
            self.finite = self.arrays.keys() - self._scheduled

    def problems(self, stored: Stored) -> list[str]:
        legal = self.values.keys() | self._scheduled
        self._found = {name: value for name, value in stored.section.values.items() if name in legal}
        found, _ = state.examine(self._opt, self._found, strict=False)
        saved = {**stored.arrays, **stored.section.values}
        return _differences(self, stored, self._scheduled) + schedule.misfit(self._opt, saved) + found

    def fill(self, stored: Stored) -> None:
        views = state.views(self._opt)
        for name, array in self.arrays.items():
            if name in self._scheduled:
                continue
            stored.read(name, array)
            if name in views:
                self._opt._tables.memory.write(views[name], array)
        arrays = {name: stored.new(name) for name in self._scheduled & stored.arrays.keys()}
        _, take = state.examine(self._opt, {**self._found, **arrays}, strict=False)
        take()


class Stateful(Restorable):
    """Any other object, by its ``state_dict`` and ``set_state_dict``, which says itself what it takes."""

    def __init__(self, keyword: str | None, thing: Any):
        remembered, kind = thing.state_dict(), type(thing).__name__
        if not isinstance(remembered, Mapping) or not all(isinstance(key, str) for key in remembered):
            raise TypeError(f"state_dict() of {kind} must return a dictionary with text for keys")
        super().__init__(keyword, kind, remembered)
        self._thing = thing
        self._before: dict[str, Any] | None = None

    def problems(self, stored: Stored) -> list[str]:
        """Nothing yet; `fill` will tell."""
        return []

    def fill(self, stored: Stored) -> None:
        """Hand all of it to the object."""
        new = {**stored.section.values, **{name: stored.new(name) for name in stored.arrays}}
        self._before = copy.deepcopy(dict(self._thing.state_dict()))
        self._thing.set_state_dict(new)

    def undo(self) -> None:
        """Go back to before `fill`."""
        if self._before is not None:
            self._thing.set_state_dict(self._before)


def as_weights(buffer: ParameterBuffer, parameters: Iterable[Parameter]) -> Item:
    """Return the composed weights of some parameters of a buffer, to be saved alone."""
    buffer.gather_grads()
    still = Standstill("these parameters", tables_of(buffer))
    return Item(None, "weights", {p.name: p._current() for p in parameters}, still)


def as_items(objects: Iterable[Any], named: Mapping[str, Any], what: str) -> list[Restorable]:
    """Return what is to be saved or restored, or say why it cannot be.

    Raises
    ------
    TypeError
        If there is nothing, one object comes twice, or one is none that can be in a checkpoint.
    """
    objects = list(objects)
    if any(isinstance(thing, (str, bytes, os.PathLike)) for thing in objects):
        raise TypeError(
            f"{what} got a path among the objects; it comes first: write {what}(path, params, opt)"
        )
    pairs = [(None, thing) for thing in objects] + list(named.items())
    if not pairs:
        raise TypeError(f"{what} needs an object: write {what}(path, params, opt)")
    if len({id(thing) for _, thing in pairs}) < len(pairs):
        raise TypeError(f"{what} got the same object twice")
    return [_as_item(keyword, thing, what) for keyword, thing in pairs]


def _as_item(keyword: str | None, thing: Any, what: str) -> Restorable:
    if keyword is not None:
        plain(keyword, f"keyword {keyword!r}")
        if not keyword:
            raise CheckpointError(f"{what} got an empty keyword")
    if isinstance(thing, ParameterBuffer):
        return _Parameters(keyword, thing)
    if isinstance(thing, Optimizer):
        return _OptimizerState(keyword, thing)
    protocol = [getattr(thing, name, None) for name in ("state_dict", "set_state_dict")]
    if isinstance(thing, type) or not all(map(callable, protocol)):
        raise TypeError(
            f"{what} takes a ParameterBuffer, an optimizer, or an object with state_dict() and "
            f"set_state_dict(state), got {type(thing).__name__}"
        )
    return Stateful(keyword, thing)
