"""Checkpoints: one file that holds parameters, optimizers and whatever else has a state.

The files are in the safetensors layout, which other programs read too; nothing in them is ever run.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from nbopt._calls import check_calls
from nbopt._validation import listed
from nbopt.averaging.base import Average
from nbopt.buffer import ParameterBuffer
from nbopt.checkpoint.files import Path
from nbopt.checkpoint.objects import as_items, as_weights
from nbopt.checkpoint.restoring import fill, read
from nbopt.checkpoint.writing import write
from nbopt.errors import ParameterError

__all__ = ["export", "load", "restore", "save"]


def save(path: Path, /, *objects: Any, **named: Any) -> None:
    """Save parameters, optimizers and other objects in one file.

    The file is written beside the one that it replaces, synced to the disk and renamed. Whatever happens
    meanwhile, there is the old file or the new one, whole. Temporaries that saves of killed processes left in
    the folder are removed.

    Parameters
    ----------
    path : path-like
        Links are followed. A file that exists is replaced and its permissions kept.
    *objects : ParameterBuffer, Optimizer or object with state_dict and set_state_dict
        Their arrays and values have plain keys in the file: ``fc.weight``, ``fc.weight.velocity``.
    **named : object
        The same, with ``keyword/`` before each key: needed for the second optimizer.

    Raises
    ------
    OSError
        If the file cannot be written, because the disk is full for one.
    CheckpointError
        If two entries would have the same key, or `path` is no regular file.
    ConcurrencyError
        If another thread is stepping the parameters or an optimizer.

    See Also
    --------
    restore : Fill the objects of another run from the file.
    load : Read the arrays and values.
    export : Save weights alone.

    Notes
    -----
    Of a weight-normed parameter v and g are saved. Gradients are not, only which are absent; policies,
    groups and hyper-parameters are not: they come from the program. Between ``apply()`` and ``restore()`` of
    an average, a buffer holds averages: save before or after, and use `export` for these.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
    >>> opt = nb.optimizer.Momentum(0.1, parameters=params)
    >>> opt.step({"w": [1.0, 1.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     nb.save(path, params, opt)
    ...     saved = nb.load(path)
    >>> saved["w.velocity"], saved["w.step"]
    (array([1., 1.]), 1)
    """
    write(path, as_items(objects, named, "nbopt.save"))


def restore(path: Path, /, *objects: Any, **named: Any) -> None:
    """Fill objects from a file that `save` wrote: all of them or, on an error, none.

    Arrays are filled in place, so every view stays valid. What `save` does not store stays as it is, but for
    gradients, which become zero.

    Parameters
    ----------
    path : path-like
    *objects : ParameterBuffer, Optimizer or object with state_dict and set_state_dict
        The first of a kind takes what the first of that kind was saved, and so on. Kinds are ParameterBuffer,
        Optimizer, and for other objects the name of the class.
    **named : object
        Take what was saved under the same keyword.

    Raises
    ------
    OSError
        If the file cannot be read.
    CheckpointError
        If the file is damaged or does not fit; it names every entry that is damaged, missing, unexpected, or
        of another shape or dtype.
    RuntimeError
        Between ``apply()`` and ``restore()`` of an average, which would undo it.

    See Also
    --------
    save : Write the file.

    Notes
    -----
    All that is restored is verified before anything changes. A file above 64 MiB is then read a second time,
    array by array, so that memory stays small; if the disk fails just then, the error says that the objects
    are incomplete. Ctrl-C waits until all are filled.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> def make():
    ...     params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
    ...     return params, nb.optimizer.Momentum(0.1, parameters=params)
    >>> params, opt = make()
    >>> opt.step({"w": [1.0, 1.0]})
    >>> again, opt_again = make()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     nb.save(path, params, opt)
    ...     nb.restore(path, again, opt_again)
    >>> again["w"].value, opt_again.step_count
    (array([0.9, 1.9]), 1)
    """
    fill(path, as_items(objects, named, "nbopt.restore"))


@check_calls
def load(path: Path) -> dict[str, Any]:
    """Read every array and value of a file that `save` or `export` wrote, verified.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict
        By key. Arrays are new; values are Python numbers, texts, None, and lists and dictionaries of them.

    Raises
    ------
    OSError
        If the file cannot be read.
    CheckpointError
        If it is damaged; it names every array that is.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.safetensors")
    ...     nb.save(path, params, old=nb.ParameterBuffer.from_arrays({"w": [0.0]}))
    ...     nb.load(path)
    {'w': array([1., 2.]), 'old/w': array([0.])}
    """
    return read(path)


@check_calls
def export(path: Path, params: ParameterBuffer, names: str = "*", average: Any = None) -> None:
    """Save weights alone, composed, for use in other programs.

    The file is written as by `save`. `load` reads it, and so does any reader of safetensors.

    Parameters
    ----------
    path : path-like
    params : ParameterBuffer
    names : str
        An `fnmatch` pattern.
    average : object, optional
        What has averaged the weights: its ``apply()`` is a context in which `params` hold the averages.

    Raises
    ------
    OSError, CheckpointError, ConcurrencyError
        As in `save`.
    ParameterError
        If the pattern matches no parameter, or `average` is one of another buffer.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays(
    ...     {"fc.weight": [[3.0, 4.0]], "fc.bias": [0.0]},
    ...     attrs={"*.weight": nb.WeightNormParamAttr(dim=0)},
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.safetensors")
    ...     nb.export(path, params, "*.weight")
    ...     nb.load(path)
    {'fc.weight': array([[3., 4.]])}
    """
    given: Any = params
    if not isinstance(given, ParameterBuffer):
        first = "; the path comes first" if isinstance(given, (str, os.PathLike)) else ""
        raise TypeError(f"nbopt.export takes a ParameterBuffer, got {type(given).__name__}{first}")
    chosen = params.select(names)
    if not chosen:
        raise ParameterError(f"pattern {names!r} matches no parameter; there are: {listed(params)}")
    if average is not None and not callable(getattr(average, "apply", None)):
        raise TypeError(f"average must have apply(), got {type(average).__name__}")
    if isinstance(average, Average) and average._buffer is not params:
        raise ParameterError(
            f"this {type(average).__name__} averages parameters of another buffer; hand in that one, "
            "or an average of this one"
        )
    with nullcontext() if average is None else average.apply():
        write(path, [as_weights(params, chosen)])
