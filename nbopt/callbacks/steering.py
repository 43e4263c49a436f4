"""Callbacks that stop a run, or save it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import nbopt as nb
from nbopt._calls import check_calls
from nbopt._validation import as_flag, as_integer, as_number
from nbopt.callbacks.reading import fields, row
from nbopt.errors import HyperparameterError

__all__ = ["CheckpointEvery", "EarlyStopping"]


@check_calls
class EarlyStopping:
    """Stop when the loss has not got better for some iterations.

    Parameters
    ----------
    patience : int
        How many calls in a row may bring nothing better; the last of them raises StopIteration.
    min_delta : float
        By how much a loss has to be lower than the best one to be better; finite and >= 0.
    restore_best : bool
        On stopping, put the parameters back to where the loss was lowest. That takes a result with
        ``params``, as those of `nbopt.minimize`, whose own result then is that point.

    Attributes
    ----------
    best : float
        The lowest loss, from which the next one is to differ by `min_delta`; infinite before the first.
    best_x : numpy.ndarray or None
        Where it was: ``params.to_vector(space="trainable")``, or a copy of the result's ``x``.
    waited : int
        Calls since then.

    Notes
    -----
    A loss that is NaN is not better. The best point lasts from one run to the next; take a new object for a
    new problem.

    Examples
    --------
    >>> import nbopt as nb
    >>> stop = nb.callbacks.EarlyStopping(patience=2)
    >>> try:
    ...     for loss in (3.0, 2.0, 2.5, 2.1, 1.0):
    ...         stop(loss)
    ... except StopIteration as reason:
    ...     print(reason)
    the loss was no lower than 2 for 2 calls
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0, restore_best: bool = True):
        self.patience = as_integer(patience, "EarlyStopping patience", low=1)
        self.min_delta = as_number(min_delta, "EarlyStopping min_delta", low=0.0)
        self.restore_best = as_flag(restore_best, "EarlyStopping restore_best")
        self.best = math.inf
        self.best_x: Any = None
        self.waited = 0

    def __call__(self, intermediate_result: Any) -> None:
        """Look at a loss.

        Parameters
        ----------
        intermediate_result : OptimizeResult, mapping or float
            A number is the loss.

        Raises
        ------
        StopIteration
            When it is time to stop.

        Examples
        --------
        >>> import nbopt as nb
        >>> stop = nb.callbacks.EarlyStopping()
        >>> stop(3.0)
        >>> stop.best, stop.waited
        (3.0, 0)
        """
        result = fields(intermediate_result)
        loss, params = float(result["fun"]), result.get("params")
        if loss < self.best - self.min_delta:
            self.best, self.waited = loss, 0
            if self.restore_best:
                x = result.get("x") if params is None else params.to_vector(space="trainable")
                self.best_x = None if x is None else x.copy()
            return
        self.waited += 1
        if self.waited < self.patience:
            return
        if params is not None and self.best_x is not None:
            params.from_vector(self.best_x, space="trainable")
            intermediate_result["fun"] = self.best  # the loss of what the parameters now hold
        waited, self.waited = self.waited, 0
        raise StopIteration(f"the loss was no lower than {self.best:g} for {waited} calls")


@check_calls
class CheckpointEvery:
    """Save the run every so many iterations, by `nbopt.save`: each file whole or not at all.

    Parameters
    ----------
    path : path-like
        One file, replaced each time. With ``{step}`` in it, a file for each, as
        ``"run-{step:06d}.safetensors"``; the step is that of `History`.
    every : int
        Calls from one file to the next.
    keep : int, optional
        How many files to keep, the newest; all by default. Files of earlier runs are left alone.
    objects : sequence or mapping, optional
        What to save: as the positional arguments of `nbopt.save`, or as its keywords. By default the
        parameters and the optimizer, which the results of `nbopt.minimize` bring; the optimizer's schedule is
        saved with it.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [4.0]})
    >>> opt = nb.optimizer.SGD(0.5, params)
    >>> def fun(params):
    ...     w = params["w"]
    ...     w.grad = w.value
    ...     return 0.5 * w.value @ w.value
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run-{step}.safetensors")
    ...     saving = nb.callbacks.CheckpointEvery(path, every=2, keep=2)
    ...     _ = nb.minimize(fun, params, opt, maxiter=8, callback=saving)
    ...     print(sorted(os.listdir(folder)))
    ...     nb.restore(path.format(step=6), params, opt)
    ['run-6.safetensors', 'run-8.safetensors']
    >>> opt.step_count, params["w"].value
    (6, array([0.0625]))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 100,
        keep: int | None = None,
        objects: Sequence[Any] | Mapping[str, Any] | None = None,
    ):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"CheckpointEvery path must be a string or a path, got {path!r}; write "
                "CheckpointEvery('run.safetensors', every=100)"
            )
        self.path = os.fspath(path)
        self.every = as_integer(every, "CheckpointEvery every", low=1)
        self.keep = None if keep is None else as_integer(keep, "CheckpointEvery keep", low=1)
        if self._file(1) == self._file(2) and keep is not None:
            raise HyperparameterError(
                "CheckpointEvery keep is for a file of each step: write {step} in the path, as in "
                "'run-{step:06d}.safetensors'"
            )
        if isinstance(objects, (str, bytes)) or not isinstance(objects, (Sequence, Mapping, type(None))):
            raise TypeError(
                "CheckpointEvery objects must be a list, or a dictionary by keyword, got "
                f"{type(objects).__name__}"
            )
        self._objects = objects
        self._files: list[str] = []
        self._calls = 0

    def _file(self, step: int) -> str:
        try:
            return self.path.format(step=step)
        except (LookupError, ValueError) as cause:
            raise HyperparameterError(
                f"CheckpointEvery path {self.path!r} may have {{step}} in it, and no other braces"
            ) from cause

    def __call__(self, intermediate_result: Any) -> None:
        """Count an iteration, and save where it is time to.

        Parameters
        ----------
        intermediate_result : OptimizeResult, mapping or float
            A number is the loss; then the objects to save must have been named.

        Examples
        --------
        >>> import os, tempfile
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [4.0]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saving = nb.callbacks.CheckpointEvery(os.path.join(folder, "w"), every=1, objects=[params])
        ...     saving(0.5)
        ...     os.listdir(folder)
        ['w']
        """
        result = fields(intermediate_result)
        self._calls += 1
        if self._calls % self.every:
            return
        objects = self._objects
        if objects is None:
            if "params" not in result:
                raise TypeError(
                    "CheckpointEvery has nothing to save: write CheckpointEvery(..., objects=[params, opt])"
                )
            objects = [result[name] for name in ("params", "opt") if name in result]
        file = self._file(row(result, self._calls).step)
        if isinstance(objects, Mapping):
            nb.save(file, **objects)
        else:
            nb.save(file, *objects)
        self._files = [*(name for name in self._files if name != file), file]
        while self.keep is not None and len(self._files) > self.keep:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._files.pop(0))
