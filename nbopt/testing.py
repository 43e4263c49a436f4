"""Checks for the tests of programs that use nbopt."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from nbopt._validation import as_integer
from nbopt.averaging.base import Average
from nbopt.buffer import ParameterBuffer
from nbopt.checkpoint import restore, save
from nbopt.checkpoint.objects import as_items
from nbopt.optimizer import Optimizer

__all__ = ["assert_resume_exact"]

Step = Callable[[int], object]


def assert_resume_exact(make_run: Callable[[], tuple[Step, Any]], at_step: int, *, further: int = 5) -> None:
    """Assert that a run that is saved, restored and continued has the bits of one that never stopped.

    Parameters
    ----------
    make_run : callable
        Makes everything anew and returns ``(step, objects)``. ``step(i)`` takes the whole step number i,
        counted from 0: gradients, `Optimizer.step`, schedules. ``objects`` are what the program saves: a
        tuple for ``save(path, *objects)``, a dictionary for ``save(path, **objects)``.
    at_step : int
        How many steps come before the save.
    further : int
        How many steps are compared after it.

    Raises
    ------
    AssertionError
        If the runs differ; it names the step, and the first entry and element that do.
    TypeError
        If two runs share an object.

    Notes
    -----
    Three runs are made: one that goes on, one that is saved, and one that is restored. The first two must
    agree, or a run cannot be repeated at all. What `step` draws on beside the objects, such as random
    numbers, must follow from its argument.

    Examples
    --------
    >>> import nbopt as nb
    >>> def make_run():
    ...     params = nb.ParameterBuffer(seed=0)
    ...     w = params.create_parameter([3, 2], name="w", attr=nb.WeightNormParamAttr(dim=1))
    ...     opt = nb.optimizer.Momentum(0.1, 0.9, params)
    ...
    ...     def step(i):
    ...         opt.step({"w": w.value - i})
    ...
    ...     return step, (params, opt)
    >>> nb.testing.assert_resume_exact(make_run, at_step=3)

    Without the optimizer, the velocity is lost:

    >>> def forgetful():
    ...     step, (params, opt) = make_run()
    ...     return step, (params,)
    >>> nb.testing.assert_resume_exact(forgetful, at_step=3)
    Traceback (most recent call last):
        ...
    AssertionError: after step 3, the first since the restore, 'w_g' differs first at (0, 0): -1.10... without
    a stop, ...
    """
    at_step = as_integer(at_step, "at_step", low=0)
    further = as_integer(further, "further", low=1)
    step, objects = _made(make_run)
    step_saved, objects_saved = _made(make_run)
    _check_apart(objects, objects_saved)
    for i in range(at_step):
        step(i)
        step_saved(i)
    _compare(objects, objects_saved, f"two runs differ {_after(at_step)}, before anything was saved:")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.safetensors")
        _hand(save, path, objects_saved)
        step_restored, objects_restored = _made(make_run)
        _check_apart(objects, objects_restored)
        _hand(restore, path, objects_restored)
    _compare(objects, objects_restored, "right after the restore,")
    for i in range(at_step, at_step + further):
        step(i)
        step_restored(i)
        since = "the first" if i == at_step else f"number {i - at_step + 1}"
        _compare(objects, objects_restored, f"after step {i}, {since} since the restore,")


def _after(steps: int) -> str:
    return f"after {steps} steps" if steps else "at once"


def _made(make_run: Callable[[], tuple[Step, Any]]) -> tuple[Step, Any]:
    made: Any = make_run()
    if not isinstance(made, tuple) or len(made) != 2 or not callable(made[0]):
        raise TypeError(f"make_run must return (step, objects), with step a function, got {made!r}")
    step, objects = made
    if not isinstance(objects, tuple | list | dict):
        objects = (objects,)
    return step, objects


def _check_apart(objects: Any, others: Any) -> None:
    """Refuse runs that share an object, which would be compared with itself."""
    parts = [_parts(objects), _parts(others)]
    shared = [thing for key, thing in parts[0].items() if key in parts[1]]
    if shared:
        raise TypeError(
            f"make_run must make everything anew, but two runs share one {type(shared[0]).__name__}; make it "
            "inside make_run"
        )


def _parts(objects: Any) -> dict[int, Any]:
    """The objects of a run and the buffers that they move or average, by identity."""
    things = list(objects.values() if isinstance(objects, dict) else objects)
    things += [thing._buffer for thing in things if isinstance(thing, Optimizer | Average)]
    return {id(thing): thing for thing in things}


def _hand(function: Callable[..., None], path: str, objects: Any) -> None:
    if isinstance(objects, dict):
        function(path, **objects)
    else:
        function(path, *objects)


def _state(objects: Any) -> dict[str, Any]:
    """Everything that the objects remember, and the weights that an optimizer moves."""
    positional, named = ((), objects) if isinstance(objects, dict) else (objects, {})
    found: dict[str, Any] = {}
    buffers: dict[int, ParameterBuffer] = {}
    for item in as_items(positional, named, "assert_resume_exact"):
        key = item.section().key
        found |= {key(name): value for name, value in {**item.arrays, **item.values}.items()}
        found[f"the absent gradients of {item.label}"] = item.absent
    for thing in (*positional, *named.values()):
        buffer = thing._buffer if isinstance(thing, Optimizer) else thing
        if isinstance(buffer, ParameterBuffer):
            buffers[id(buffer)] = buffer
    for number, buffer in enumerate(buffers.values()):
        found |= {f"{name} of buffer {number}": value for name, value in buffer.numpy().items()}
    return found


def _compare(objects: Any, others: Any, when: str) -> None:
    """Raise for the first entry that differs."""
    one, two = _state(objects), _state(others)
    for key in {**one, **two}:
        if key not in one or key not in two:
            raise AssertionError(f"{when} one run has {key!r} and the other has not")
        told = _difference(one[key], two[key])
        if told:
            raise AssertionError(f"{when} {key!r} differs{told}")


def _difference(one: Any, two: Any) -> str:
    """Say where two entries differ first, in bits; nothing where they do not."""
    if not isinstance(one, np.ndarray) or not isinstance(two, np.ndarray):
        same = type(one) is type(two) and repr(one) == repr(two)  # NaN is NaN, and -0.0 is not 0.0
        return "" if same else f": {one!r} without a stop, {two!r} with it"
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return f": {one.dtype} of shape {one.shape} without a stop, {two.dtype} of shape {two.shape} with it"
    bits = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, two)]
    wrong = np.flatnonzero(bits[0] != bits[1])
    if not wrong.size:
        return ""
    at = np.unravel_index(int(wrong[0]) // one.itemsize, one.shape)
    index = tuple(int(i) for i in at)
    return f" first at {index}: {one[index]} without a stop, {two[index]} with it"
