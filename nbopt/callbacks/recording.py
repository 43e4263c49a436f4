"""Callbacks that keep, write or show what happens."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import as_flag
from nbopt.callbacks.reading import Row, fields, row
from nbopt.errors import HyperparameterError
from nbopt.packages import require

__all__ = ["CSVLogger", "History", "ProgressBar"]


@check_calls
class History:
    """Lists of what happened, for plots: one entry per call.

    Attributes
    ----------
    step : list of int
        Steps that the optimizer has taken. Without an optimizer in the result: its ``nit``, or the number of
        calls.
    loss : list of float
        The loss where the step led.
    lr : list of float
        The base rate of the step.
    grad_norm : list of float
        `Optimizer.grad_norm` of the step: the norm of the gradient where it began. NaN where it is not known,
        as `lr` is.

    Examples
    --------
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [4.0]})
    >>> opt = nb.optimizer.SGD(0.5, params)
    >>> def fun(params):
    ...     w = params["w"]
    ...     w.grad = w.value
    ...     return 0.5 * w.value @ w.value
    >>> history = nb.callbacks.History()
    >>> _ = nb.minimize(fun, params, opt, maxiter=2, callback=history)
    >>> history.step, history.loss, history.lr, history.grad_norm
    ([1, 2], [2.0, 0.5], [0.5, 0.5], [4.0, 2.0])

    In a loop of your own, the loss will do:

    >>> history = nb.callbacks.History()
    >>> for loss in (3.0, 1.0):
    ...     history(loss)
    >>> history.loss
    [3.0, 1.0]
    """

    def __init__(self) -> None:
        self.step: list[int] = []
        self.loss: list[float] = []
        self.lr: list[float] = []
        self.grad_norm: list[float] = []

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        return f"History({len(self)} entries)"

    def __call__(self, intermediate_result: Any) -> None:
        """Take an entry.

        Parameters
        ----------
        intermediate_result : OptimizeResult, mapping or float
            A number is the loss.

        Examples
        --------
        >>> import nbopt as nb
        >>> history = nb.callbacks.History()
        >>> history({"fun": 0.5, "nit": 7})
        >>> history.step
        [7]
        """
        entry = row(fields(intermediate_result), len(self) + 1)
        for name, value in entry._asdict().items():
            getattr(self, name).append(value)


@check_calls
class CSVLogger:
    """Write a row per iteration to a file that spreadsheets, `csv` and pandas read.

    The columns are ``step``, ``loss``, ``lr`` and ``grad_norm``, as in `History`; what is not known is empty.
    Numbers are written so that they are read back exactly. No file stays open between calls.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    append : bool
        Go on with a file that is there, after its last whole row; a row that a kill cut short is dropped.
        False begins anew.

    Raises
    ------
    HyperparameterError
        If the file to go on with has other columns, or is a device or a pipe.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = nb.callbacks.CSVLogger(os.path.join(folder, "log.csv"))
    ...     log({"fun": 0.5, "nit": 1, "lr": 0.1})
    ...     with open(log.path) as file:
    ...         print(file.read())
    step,loss,lr,grad_norm
    1,0.5,0.1,
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = True):
        append = as_flag(append, "CSVLogger append")
        self.path = Path(path)
        self._calls = 0
        header = _line(Row._fields)
        if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
            raise HyperparameterError(f"CSVLogger path {os.fspath(self.path)!r} is no regular file")
        with open(self.path, "a+b" if append else "w+b") as file:
            file.seek(0)
            found = file.read()
            end = found.rfind(b"\n") + 1  # of the last whole row
            first = found[:end].splitlines(keepends=True)[:1]
            if not (first[0].rstrip() == header.rstrip() if first else header.startswith(found)):
                raise HyperparameterError(
                    f"CSVLogger path {os.fspath(self.path)!r} has other columns than "
                    f"{header.decode().strip()!r}; take another file, or append=False to begin anew"
                )
            file.truncate(end)
            if not first:
                file.write(header)

    def __call__(self, intermediate_result: Any) -> None:
        """Write a row.

        Parameters
        ----------
        intermediate_result : OptimizeResult, mapping or float
            A number is the loss.

        Examples
        --------
        >>> import os, tempfile
        >>> import nbopt as nb
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = nb.callbacks.CSVLogger(os.path.join(folder, "log.csv"))
        ...     for loss in (0.5, 0.25):
        ...         log(loss)
        ...     len(log.path.read_text().splitlines())
        3
        """
        self._calls += 1
        entry = row(fields(intermediate_result), self._calls)
        known = [
            "" if name in ("lr", "grad_norm") and math.isnan(v) else v for name, v in entry._asdict().items()
        ]
        with open(self.path, "ab", buffering=0) as file:
            end, line = file.seek(0, os.SEEK_END), _line(known)
            try:
                while line:
                    line = line[file.write(line) :]
            except BaseException:  # as of a full disk: the next row must not go on with a part of this one
                file.truncate(end)
                raise


def _line(values: Sequence[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


class ProgressBar:
    """A progress bar with the loss, by tqdm, in a terminal or a notebook.

    Parameters
    ----------
    total : int, optional
        Iterations to come.
    desc : str, optional
        A word before the bar.
    **options
        Further arguments of `tqdm.auto.tqdm`, as ``file`` or ``disable``.

    Raises
    ------
    ImportError
        If tqdm, which the extra `progress` brings, is not installed.

    Notes
    -----
    `nbopt.minimize` closes it at the end. Elsewhere call `close`, or use a ``with`` statement.

    Examples
    --------
    >>> import io
    >>> import nbopt as nb
    >>> shown = io.StringIO()
    >>> with nb.callbacks.ProgressBar(total=3, desc="fit", file=shown) as bar:
    ...     for loss in (3.0, 2.0, 1.5):
    ...         bar(loss)
    >>> "fit: 100%" in shown.getvalue(), "loss=1.5" in shown.getvalue()
    (True, True)
    """

    def __init__(self, total: int | None = None, desc: str | None = None, **options: Any):
        self._tqdm = require("tqdm.auto", "tqdm", "a progress bar", "progress").tqdm
        self._options = {"total": total, "desc": desc, "unit": "it", **options}
        self._bar: Any = self._tqdm(**self._options)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __call__(self, intermediate_result: Any) -> None:
        """Advance by one.

        Parameters
        ----------
        intermediate_result : OptimizeResult, mapping or float
            A number is the loss.

        Examples
        --------
        >>> import io
        >>> import nbopt as nb
        >>> with nb.callbacks.ProgressBar(file=io.StringIO()) as bar:
        ...     bar(0.5)
        """
        result = fields(intermediate_result)
        if self._bar is None:
            self._bar = self._tqdm(**self._options)
        self._bar.set_postfix(loss=f"{float(result['fun']):.4g}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """End the line of the bar; another call begins a new one.

        Examples
        --------
        >>> import io
        >>> import nbopt as nb
        >>> bar = nb.callbacks.ProgressBar(file=io.StringIO())
        >>> bar(0.5)
        >>> bar.close()
        """
        if self._bar is not None:
            self._bar.close()
            self._bar = None
