"""Fills the kernel cache on disk, so that the first step of a later process compiles nothing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import nbopt as nb
from nbopt.kernels import rules

if TYPE_CHECKING:
    from nbopt.kernels.cache import Cached

__all__ = ["Kernel", "warm_up"]

# What makes and reads a parameter with weight norm: each call needs one kernel more than those before.
_ARRAYS: dict[str, Callable[[Any], object]] = {
    "array_squares": nb.norm,
    "slice_sums": lambda x: nb.norm(x, 0),
    "compose": lambda x: nb.weight_norm(x, x, 0),
    "backward": lambda x: nb.weight_norm_backward(x, x, x, 0),
}


class Kernel(NamedTuple):
    """What became of one kernel.

    Attributes
    ----------
    label : str
    loaded : bool
        From disk; False if it was compiled, and then kept there.
    seconds : float
    folder : str
        Where it is kept.
    """

    label: str
    loaded: bool
    seconds: float
    folder: str

    def __str__(self) -> str:
        return f"{self.label:<46} {'loaded' if self.loaded else 'compiled':<9}{self.seconds:6.2f} s"


def warm_up(names: Sequence[str], dtypes: Sequence[str], weight_norm: Sequence[bool]) -> Iterator[Kernel]:
    """Load or compile the kernels of a step, one after the other.

    Parameters
    ----------
    names : sequence of str
        Of `nbopt.kernels.rules`.
    dtypes : sequence of str
        Of "float32" and "float64".
    weight_norm : sequence of bool
        For models without weight norm, with it, or both.

    Yields
    ------
    Kernel

    Raises
    ------
    OSError
        If a kernel cannot be kept on disk.

    Examples
    --------
    >>> from nbopt.warmup import warm_up
    >>> [kernel.label for kernel in warm_up(["sgd"], ["float32"], [False])]
    ['sgd float32', 'sgd float32, threads']
    """
    from nbopt.kernels.cpu import arrays, compile_array, compile_step
    from nbopt.kernels.cpu.run import compile_twin

    for dtype in map(np.dtype, dtypes):
        if True in weight_norm:
            for name, call in _ARRAYS.items():
                x, made = np.ones((1, 1), dtype), (getattr(arrays, name), dtype)
                yield _filled(f"{name} {dtype}", compile_array, made, partial(call, x))
        for name in names:
            for normed in weight_norm:
                for threads in (False, True):
                    kernel = (getattr(rules, name), dtype, normed, threads)
                    label = f"{name} {dtype}{', weight norm' * normed}{', threads' * threads}"
                    yield _filled(label, compile_step, kernel, partial(compile_twin, *kernel))


def _filled(
    label: str, make: Callable[..., Cached], arguments: tuple[Any, ...], work: Callable[[], object]
) -> Kernel:
    """Do the work that needs a kernel, unless that could not be kept."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the error says it
        kernel = make(*arguments)
        if kernel.folder is not None:
            work()
    if kernel.folder is None:
        raise OSError(
            "compiled code cannot be kept on disk: set NUMBA_CACHE_DIR to a directory that can be written"
        )
    return Kernel(label, kernel.is_loaded, time.perf_counter() - start, kernel.folder)
