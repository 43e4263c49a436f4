"""What averages share: the tables of one average, and the exchange of values that cannot lose any."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from nbopt._validation import as_flag, as_name
from nbopt.averaging import state
from nbopt.averaging.backup import Applied, Backup
from nbopt.averaging.turn import turn
from nbopt.buffer import ParameterBuffer
from nbopt.chosen import as_parameters
from nbopt.errors import ParameterError
from nbopt.kernels import averages
from nbopt.kernels import tables as t
from nbopt.memory import aligned_zeros
from nbopt.parameter import Parameter

__all__ = ["Average", "as_members"]

_live: weakref.WeakSet[Average] = weakref.WeakSet()
_listing = threading.Lock()  # around the set, which other threads may change


def _free_in_child() -> None:
    """After a fork, the threads that held the locks are gone."""
    global _listing
    _listing = threading.Lock()
    for average in list(_live):
        average._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


class Average(ABC):
    """An average of some parameters of a buffer, kept in arrays along its trainable part.

    Class attributes
    ----------------
    _rows : names of the arrays that it keeps for each parameter, as in its state dictionary
    _takes : the method that takes values in
    """

    _rows: ClassVar[tuple[str, ...]]
    _takes: ClassVar[str]

    def _setup(self, buffer: ParameterBuffer, parameters: Iterable[Parameter], name: str | None) -> None:
        """Allocate every table once, from checked arguments."""
        storage = buffer._seal()
        layout = storage.layout
        self.name = name
        self._buffer = buffer
        self._parameters = tuple(parameters)
        self._storage = storage
        size = layout.size - layout.trainable_start
        self._sums = aligned_zeros(len(self._rows) * size, buffer.dtype).reshape(len(self._rows), size)
        self._trainable = storage.data[layout.trainable_start :]
        self._values = self._trainable if storage.memory.is_host else aligned_zeros(size, buffer.dtype)
        self._counts = np.zeros((len(layout.names), averages.COUNT_COLUMNS), np.int64)
        members = [storage.segment_of[part.name] for p in self._parameters for part in p._moved]
        self._counts[members, averages.COUNT_MEMBER] = 1
        self._weights = np.zeros(len(layout.names))
        self._backup: Backup | None = None  # of what the averages stand in place of
        self._passes: dict[str, Callable[..., None]] = {}
        self._lock = threading.Lock()
        with _listing:
            _live.add(self)

    def _sweep(self, name: str, *numbers: float) -> None:
        """Run one pass of the kernels."""
        if name not in self._passes:
            from nbopt.kernels.cpu.run import bind_average

            tables = self._storage.layout.segments, self._attributes(), self._counts, self._weights
            self._passes[name] = bind_average(name, self._buffer.dtype, (self._values, self._sums, *tables))
        memory = self._storage.memory
        if not memory.is_host:  # the passes are code of the CPU: a copy comes there, and goes back if written
            self._attributes()
            np.copyto(self._values, memory.read(self._trainable))
        self._passes[name](*numbers)
        if not memory.is_host and name == "write_averages":
            memory.write(self._trainable, self._values)

    def _attributes(self) -> NDArray[Any]:
        return self._storage.memory.host_of(self._storage.attributes)

    def _take(self, name: str, *numbers: float) -> None:
        """Take the values of the parameters in, unless they are averages."""
        with turn(self, "this average took their values in, which are a mixture: load its last state"):
            self._refuse_applied("an average of averages would follow; call restore() first")
            self._sweep(name, *numbers)

    def _refuse_applied(self, reason: str) -> None:
        if self._backup is not None:
            raise RuntimeError(f"the parameters hold the averages of this {type(self).__name__}; {reason}")

    def __getattr__(self, name: str) -> NoReturn:
        other = {"step": "update", "update": "step"}.get(name)
        hint = f"; write {other}() after each step of the optimizer" if other else ""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    # --- exchange

    def apply(self, need_restore: bool = True) -> Applied:
        """Put the averages in place of the parameters, at once.

        Parameters that were never taken in, and those whose `do_model_average` is False, stay as they are.
        Weights with weight norm are recomposed from the averages of g and v.

        Parameters
        ----------
        need_restore : bool
            Whether the end of a ``with`` statement calls `restore`, also after an exception.

        Returns
        -------
        context manager
            Without ``with``, the averages stay until `restore`.

        Raises
        ------
        RuntimeError
            If averages are in place of one of these parameters already, those of this object or of another.
        ConcurrencyError
            If another thread is stepping the parameters.

        Warns
        -----
        RuntimeWarning
            If no parameter was ever taken in, so that there is nothing to put in place.

        Notes
        -----
        What is written to the averaged parameters meanwhile is given up by `restore`, the update of an
        optimizer too. Until then the average takes no values in, and neither gives nor loads a state.

        The buffer keeps the own values. Where this object goes without `restore`, that of any other average
        of the buffer puts them back.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> average = nb.ModelAverage(0.5, parameters=[w])
        >>> average.step()
        >>> w.value = [4.0]
        >>> average.step()
        >>> with average.apply():
        ...     print(w.value)
        [2.5]
        >>> w.value
        array([4.])
        """
        as_flag(need_restore, "need_restore")
        backup = None
        try:
            with turn(self, "averages were put in place; call restore()"):
                backup = self._put_in_place()
        except KeyboardInterrupt:  # which waited for the end of the turn
            if backup is not None:
                self.restore()
            raise
        return Applied(self, backup, bool(need_restore))

    def _put_in_place(self) -> Backup:
        """Do what `apply` does, in its turn."""
        self._refuse_applied("call restore() before the next apply()")
        rows, counts = self._storage.attributes, self._counts
        chosen = (
            (counts[:, averages.COUNT_MEMBER] != 0)
            & (rows[:, t.ATTRIBUTE_AVERAGE] != 0.0)
            & (self._weights != 0.0)
        )
        if not self._weights[counts[:, averages.COUNT_MEMBER] != 0].any():
            kind = type(self).__name__
            warnings.warn(
                f"this {kind} has taken no values in: apply() leaves the parameters as they are; call "
                f"{kind}.{self._takes}() after each step of the optimizer; do_model_average=False keeps "
                "a parameter out",
                RuntimeWarning,
                stacklevel=3,
            )
        names = self._storage.layout.names
        parts = [self._buffer[names[s]] for s in np.flatnonzero(chosen)]
        wholes = list(dict.fromkeys(p._parent for p in parts if p._parent is not None))
        self._refuse_held([p._parent or p for p in parts])
        backup = Backup(self, {p.name: self._read(p).copy() for p in (*parts, *wholes)})
        self._backup = backup
        self._storage.backups.append(backup)
        try:
            counts[:, averages.COUNT_PLAN] = np.where(chosen, averages.PLAN_WRITE, averages.PLAN_LEAVE)
            self._sweep("write_averages")
            for whole in wholes:
                whole._recompose()
        except BaseException:
            self._put_back(backup)
            raise
        return backup

    def _read(self, parameter: Parameter) -> NDArray[Any]:
        return self._storage.memory.read(self._storage.writable(parameter))

    def _refuse_held(self, wholes: Iterable[Parameter]) -> None:
        """Two averages in place of one parameter could be restored in the wrong order."""
        names = [p.name for whole in wholes for p in (whole, *whole._moved)]
        for backup in self._storage.backups:
            found = [name for name in names if name in backup.values]
            if found:
                raise RuntimeError(
                    f"parameter {found[0]!r} holds the average of {backup.kind}; {backup.mend} first"
                )

    def restore(self) -> None:
        """Put the values back that `apply` replaced, to the bit.

        Where this average replaced nothing, those that averages replaced which are gone.

        Raises
        ------
        RuntimeError
            If nothing is replaced.
        ConcurrencyError
            If another thread is stepping the parameters.

        Examples
        --------
        >>> import nbopt as nb
        >>> w = nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"]
        >>> average = nb.ModelAverage(0.5, parameters=[w])
        >>> average.step()
        >>> w.value = [4.0]
        >>> with average.apply(need_restore=False):
        ...     pass
        >>> w.value
        array([1.])
        >>> average.restore()
        >>> w.value
        array([4.])
        """
        with turn(self, "their own values were put back; call restore() again"):
            own = self._backup
            found = [b for b in self._storage.backups if b.average() is None] if own is None else [own]
            if not found:
                raise RuntimeError(
                    f"{type(self).__name__}: the parameters hold their own values; apply() comes first"
                )
            for backup in found:
                self._put_back(backup)

    def _put_back(self, backup: Backup) -> None:
        for name, values in backup.values.items():
            self._storage.memory.write(self._storage.writable(self._buffer[name]), values)
        for name in backup.values:
            parts = self._buffer[name]._parts or ()
            if not all(part.name in backup.values for part in parts):  # the other one may have moved since
                self._buffer[name]._recompose()
        self._storage.backups.remove(backup)
        self._backup = None

    @property
    def is_applied(self) -> bool:
        """Whether the averages are in place of the parameters.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> average = nb.ModelAverage(0.5, parameters=params)
        >>> average.step()
        >>> with average.apply():
        ...     print(average.is_applied)
        True
        >>> average.is_applied
        False
        """
        return self._backup is not None

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters that it was given.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [0.0]})
        >>> nb.ModelAverage(0.5, parameters=params.select("b")).parameters
        [Parameter('b', shape=(1,), float64)]
        """
        return list(self._parameters)

    # --- what it remembers

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what the average remembers.

        Returns
        -------
        dict
            Arrays and counts, ``<parameter>.<what>``; with weight norm those of g and v.

        Raises
        ------
        RuntimeError
            Between `apply` and `restore`: a checkpoint would hold the averages and lose the parameters.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> average = nb.ModelAverage(0.5, parameters=params)
        >>> average.step()
        >>> average.state_dict()["w.sum_1"]
        array([1.])
        """
        with turn(self):
            self._refuse_applied("a checkpoint would lose their own values; call restore() first")
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
            If entries are missing, unexpected, of a wrong shape, dtype or value, or contradict each other; it
            names all of them. NaN and Inf are wrong unless an optimizer of the parameters has
            ``nonfinite="propagate"``.
        RuntimeError
            Between `apply` and `restore`.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> average, again = (nb.ModelAverage(0.5, parameters=params) for _ in range(2))
        >>> average.step()
        >>> again.set_state_dict(average.state_dict())
        >>> again.state_dict()["w.num_updates"]
        1
        """
        as_flag(strict, "strict")
        with turn(self):
            self._refuse_applied("call restore() first")
            state.put(self, state_dict, strict)

    load_state_dict = set_state_dict

    @abstractmethod
    def _numbers(self, segment: int) -> dict[str, int | float]:
        """The numbers of one segment that its state holds."""

    @abstractmethod
    def _checked_number(self, name: str, value: Any, label: str) -> int | float:
        """Return such a number as `_set_numbers` takes it, or say why it is none."""

    @abstractmethod
    def _contradictions(self, found: Mapping[str, Any]) -> list[str]:
        """Say what of the arrays and numbers of one segment, by name, does not go together."""

    @abstractmethod
    def _set_numbers(self, segment: int, numbers: Mapping[str, Any]) -> None:
        """Set some of them, from checked values."""

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """The arguments that make it, without parameters and name; each is kept as an attribute `_<name>`."""

    def __getstate__(self) -> dict[str, Any]:
        return {
            "config": self._config(),
            "buffer": self._buffer,
            "parameters": [p.name for p in self._parameters],
            "name": self.name,
            "arrays": (self._sums, self._counts, self._weights),
            "backup": self._backup and self._backup.values,
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        for key, value in saved["config"].items():
            setattr(self, f"_{key}", value)
        buffer = saved["buffer"]
        self._setup(buffer, [buffer[name] for name in saved["parameters"]], saved["name"])
        for own, values in zip((self._sums, self._counts, self._weights), saved["arrays"], strict=True):
            np.copyto(own, values)
        if saved["backup"] is not None:
            self._backup = Backup(self, {name: values.copy() for name, values in saved["backup"].items()})
            self._storage.backups.append(self._backup)

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        config = "".join(f", {key}={value!r}" for key, value in self._config().items())
        return f"{type(self).__name__}{label}({len(self._parameters)} parameters{config})"


def as_members(parameters: Any, name: Any, kind: str) -> tuple[ParameterBuffer, list[Parameter]]:
    """Check what an average is given: the parameters, of one buffer, and its name."""
    if parameters is None:
        raise TypeError(
            f"{kind} needs parameters: write {kind}(..., parameters=params) with the ParameterBuffer, or a "
            "list of its parameters"
        )
    found = as_parameters(parameters)
    if not found:
        raise ParameterError(f"{kind} got no parameters")
    for p in found:
        if p._buffer is not found[0]._buffer:
            raise ParameterError(
                f"{kind} got parameters of several buffers ({found[0].name!r}, {p.name!r}, ...); make one "
                "average for each"
            )
    if name is not None:
        as_name(name, f"{kind} name")
    return found[0]._buffer, found
