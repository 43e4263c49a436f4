"""The base class of schedules: a step number, the rate that it gives, and the optimizers that follow."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from nbopt._state_dict import as_mapping, misfits, refuse
from nbopt._validation import as_flag
from nbopt.errors import NboptError
from nbopt.optimizer.lr.checks import as_epoch, as_rate

if TYPE_CHECKING:
    from nbopt.optimizer.base import Optimizer

__all__ = ["LRScheduler"]

FLOAT32_MAX = float(np.finfo(np.float32).max)  # every optimizer can take a rate up to here


class LRScheduler:
    """Base class of schedules; a subclass of your own defines `get_lr`.

    The constructor takes the first step, to ``last_epoch + 1``. Every step writes its rate into the
    optimizers that were given the schedule, so their steps cost nothing more.

    Parameters
    ----------
    learning_rate : float
        The rate from which a schedule starts, kept as `base_lr`; finite and >= 0.
    last_epoch : int
        The step number before the first; -1 starts at the beginning.
    verbose : bool
        Print the rate of every step.

    Notes
    -----
    Arguments, names and values of Paddle's `LRScheduler`. What is stepped, a batch or an epoch, is up to the
    program. All schedules here, but for `ReduceOnPlateau` and functions of the user, are closed forms of the
    step number in float64: any step can be jumped to, in any order.

    Examples
    --------
    >>> import nbopt as nb
    >>> class Halving(nb.optimizer.lr.LRScheduler):
    ...     def get_lr(self):
    ...         return self.base_lr * 0.5**self.last_epoch
    >>> schedule = Halving(0.8)
    >>> opt = nb.optimizer.SGD(schedule, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
    >>> for _ in range(3):
    ...     print(opt.get_lr())
    ...     schedule.step()
    0.8
    0.4
    0.2
    """

    base_lr: float
    last_epoch: int
    verbose: bool
    keys: list[str]

    _state: tuple[str, ...] = ("last_epoch", "last_lr")
    _last_lr: float

    def __init__(self, learning_rate: float = 0.1, last_epoch: int = -1, verbose: bool = False):
        self._start(learning_rate, last_epoch, verbose)
        self.step()

    def _start(self, learning_rate: Any, last_epoch: Any, verbose: Any) -> None:
        self.base_lr = self._last_lr = as_rate(learning_rate, self._named("learning_rate"))
        self.last_epoch = as_epoch(last_epoch, self._named("last_epoch"), low=-1)
        self.verbose = as_flag(verbose, self._named("verbose"))

    def _named(self, argument: str) -> str:
        return f"{type(self).__name__} {argument}"

    def __call__(self) -> float:
        """Return `last_lr`.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.optimizer.lr.ExponentialDecay(0.5, gamma=0.9)()
        0.5
        """
        return self.last_lr

    @property
    def last_lr(self) -> float:
        """The rate now; setting it reaches the optimizers at once, until the next step.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.optimizer.lr.ExponentialDecay(0.5, gamma=0.9).last_lr
        0.5
        """
        return self._last_lr

    @last_lr.setter
    def last_lr(self, value: float) -> None:
        self._last_lr = self._checked_rate(value)
        for opt in self._driven():
            opt._tables.rates[0] = self._last_lr

    def _checked_rate(self, value: Any) -> float:
        """Return a rate that every driven optimizer can take."""
        name = f"the rate of {type(self).__name__} at step {self.last_epoch}"
        rate = as_rate(value, name)
        if rate > FLOAT32_MAX:
            for opt in self._driven():
                opt._checked_rate(rate, name)
        return rate

    @property
    def _optimizers(self) -> WeakValueDictionary[int, Optimizer]:
        """The optimizers that follow; a copy has none, until copied optimizers join it."""
        followers: WeakValueDictionary[int, Optimizer]
        followers = self.__dict__.setdefault("_followers", WeakValueDictionary())
        return followers

    def _driven(self) -> list[Optimizer]:
        """The optimizers that follow now; other threads may build more meanwhile."""
        followers = (reference() for reference in self._optimizers.valuerefs())
        return [opt for opt in followers if opt is not None]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_followers"}

    # --- steps

    def get_lr(self) -> float:
        """Return the rate of step `last_epoch`; what a subclass defines.

        Examples
        --------
        >>> import nbopt as nb
        >>> schedule = nb.optimizer.lr.ExponentialDecay(0.5, gamma=0.9)
        >>> schedule.step()
        >>> schedule.get_lr()
        0.45
        """
        return self._rate(self.last_epoch)

    def _rate(self, epoch: int) -> float:
        """Return the closed form at a step number."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    def _rate_at(self, epoch: int) -> float:
        """Return what `get_lr` says of another step."""
        before, self.last_epoch = self.last_epoch, epoch
        try:
            return self.get_lr()
        finally:
            self.last_epoch = before

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step, and give its rate to the optimizers; on an error, nothing changes.

        Parameters
        ----------
        epoch : int, optional
            Jump to this step number instead, >= 0.

        Raises
        ------
        HyperparameterError
            If the rate is negative or not finite.

        Examples
        --------
        >>> import nbopt as nb
        >>> schedule = nb.optimizer.lr.StepDecay(0.5, step_size=2)
        >>> schedule.step()
        >>> schedule.last_epoch, schedule.last_lr
        (1, 0.5)
        >>> schedule.step(2)
        >>> schedule.last_epoch, schedule.last_lr
        (2, 0.05)
        """
        before = self.last_epoch
        epoch = as_epoch(before + 1 if epoch is None else epoch, self._named("epoch"))
        try:
            self._move(epoch)
        except BaseException:
            self.last_epoch = before
            raise
        self._tell()

    def _move(self, epoch: int) -> None:
        self.last_epoch = epoch
        self.last_lr = self.get_lr()

    def _tell(self) -> None:
        if self.verbose:
            kind = type(self).__name__
            print(f"Epoch {self.last_epoch}: {kind} set learning rate to {self.last_lr}.")  # noqa: T201

    # --- what it remembers

    def state_keys(self) -> None:
        """Set `keys`, the attributes that `state_dict` holds; a subclass with more of them defines it.

        Examples
        --------
        >>> import nbopt as nb
        >>> schedule = nb.optimizer.lr.StepDecay(0.5, step_size=2)
        >>> schedule.state_keys()
        >>> schedule.keys
        ['last_epoch', 'last_lr']
        """
        self.keys = list(self._state)

    def _present_keys(self) -> list[str]:
        self.state_keys()
        return [key for key in self.keys if hasattr(self, key)]

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what the schedule remembers; its arguments are those of the program.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.optimizer.lr.StepDecay(0.5, step_size=2).state_dict()
        {'last_epoch': 0, 'last_lr': 0.5}
        """
        return {key: self._saved(key) for key in self._present_keys()}

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
            If entries are missing, unexpected or wrong; it names all of them.

        Examples
        --------
        >>> import nbopt as nb
        >>> schedule, again = (nb.optimizer.lr.StepDecay(0.5, step_size=2) for _ in range(2))
        >>> schedule.step(3)
        >>> again.set_state_dict(schedule.state_dict())
        >>> again.last_epoch, again.last_lr
        (3, 0.05)
        """
        values, problems = self._read(state_dict, as_flag(strict, "strict"))
        refuse(self, problems)
        self._take(values)

    set_dict = set_state_dict

    def _read(self, saved: Any, strict: bool) -> tuple[dict[str, Any], list[str]]:
        """Return the checked entries, and what is wrong with the others."""
        saved, legal = as_mapping(saved), self._present_keys()
        problems = misfits(saved, legal) if strict else []
        values = {}
        for key in legal:
            if key in saved:
                try:
                    values[key] = self._checked(key, saved[key], strict)
                except (NboptError, TypeError) as error:
                    problems.append(str(error))
        return values, problems

    def _take(self, values: Mapping[str, Any]) -> None:
        """Fill in checked entries."""
        for key, value in values.items():
            setattr(self, key, value)

    def _saved(self, key: str) -> Any:
        return copy.deepcopy(getattr(self, key))

    def _checked(self, key: str, value: Any, strict: bool) -> Any:
        """Return an entry as it is filled in; those of a subclass of the user are copied as they are."""
        if key == "last_epoch":
            return as_epoch(value, key)
        if key == "last_lr":
            as_rate(value, key)
            return self._checked_rate(value)
        if getattr(value, "shape", None) == () and not isinstance(getattr(self, key), np.ndarray):
            return value.item()  # as numpy.load gives it
        return copy.deepcopy(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(last_epoch={self.last_epoch}, last_lr={self.last_lr:g})"
