"""Pictures: how a run went, what a schedule will do, and what the parameters look like.

Each function takes the Axes to draw into, or makes a figure of its own, and returns the Axes. Nothing is
shown or saved. Text and ground have the colours of the style in use; what is drawn is legible on light and on
dark.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt._calls import check_calls
from nbopt._validation import as_integer, as_number
from nbopt.buffer import ParameterBuffer
from nbopt.errors import HyperparameterError, ParameterError
from nbopt.norms import norm
from nbopt.optimizer.lr import LRScheduler, ReduceOnPlateau
from nbopt.packages import require

__all__ = ["history", "norms", "schedule", "sparsity"]

BLUE, ORANGE, GREEN = "#3b82c4", "#d9730d", "#2a9d62"  # at least 3 : 1 against white and against black
MOST_ROWS = 200


@check_calls
def history(record: Any, *, ax: Any = None, label: str | None = None) -> Any:
    """Draw the loss over the iterations.

    Parameters
    ----------
    record : sequence of float, scipy.optimize.OptimizeResult or nbopt.callbacks.History
        Losses, what `minimize` returns, or what recorded it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    label : str, optional
        For a legend.

    Returns
    -------
    matplotlib.axes.Axes
        The loss is on a logarithmic axis if it is positive and falls or rises by a factor of ten. Losses that
        are not finite leave gaps.

    Raises
    ------
    TypeError, ParameterError
        If there are no losses in `record`.

    Examples
    --------
    >>> import nbopt as nb
    >>> from matplotlib.figure import Figure
    >>> ax = nb.plot.history([3.0, 1.0, 0.1], ax=Figure().subplots(), label="momentum")
    >>> ax.get_xlabel(), ax.get_yscale()
    ('iteration', 'log')
    """
    losses = _losses(record)
    ax = _axes(ax)
    # What `minimize` returns begins with the loss of the start.
    first = 0 if getattr(record, "nit", None) == len(losses) - 1 else 1
    iterations = np.arange(first, first + len(losses))
    ax.plot(iterations, losses, color=_next(ax), label=label, marker=_marker(losses))
    finite = losses[np.isfinite(losses)]
    ax.set(xlabel="iteration", ylabel="loss")
    if finite.size and 0.0 < 10.0 * finite.min() <= finite.max():
        ax.set_yscale("log")
    return _finished(ax, label)


@check_calls
def schedule(scheduler: LRScheduler, steps: int, *, ax: Any = None, label: str | None = None) -> Any:
    """Draw the learning rates that a schedule will give, from where it stands; it does not move.

    Parameters
    ----------
    scheduler : LRScheduler
        Any but `ReduceOnPlateau`, which depends on how the run goes.
    steps : int
        How many.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    label : str, optional
        For a legend.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import nbopt as nb
    >>> from matplotlib.figure import Figure
    >>> decay = nb.optimizer.lr.CosineAnnealingDecay(0.1, T_max=50)
    >>> ax = nb.plot.schedule(decay, 100, ax=Figure().subplots())
    >>> len(ax.lines[0].get_ydata()), decay.last_epoch
    (100, 0)
    """
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"scheduler must be one of nbopt.optimizer.lr, got {type(scheduler).__name__}")
    if isinstance(scheduler, ReduceOnPlateau):
        raise HyperparameterError("scheduler: the rates of ReduceOnPlateau depend on losses yet to come")
    steps = as_integer(steps, "steps", low=1)
    ahead = copy.deepcopy(scheduler)
    ahead.verbose = False
    rates = np.empty((steps, 2))
    for row in rates:
        row[:] = ahead.last_epoch, ahead()
        ahead.step()
    ax = _axes(ax)
    ax.plot(*rates.T, color=_next(ax), label=label, marker=_marker(rates))
    ax.set(xlabel="step of the schedule", ylabel="learning rate")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    return _finished(ax, label)


@check_calls
def norms(
    params: ParameterBuffer,
    before: Mapping[str, ArrayLike] | None = None,
    *,
    names: str = "*",
    ax: Any = None,
) -> Any:
    """Draw the norm of every parameter and of its gradient, and by how much it moved.

    Parameters
    ----------
    params : ParameterBuffer
    before : mapping of str to array_like, optional
        Earlier values, as ``params.numpy()`` gives. With them the update ratio is drawn too: the norm of
        what changed, over the norm that was.
    names : str
        Which parameters, an `fnmatch` pattern.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        One row per parameter, the first on top; the axis is logarithmic, and zeros are left out.

    Examples
    --------
    >>> import nbopt as nb
    >>> from matplotlib.figure import Figure
    >>> params = nb.ParameterBuffer.from_arrays({"w": [3.0, 4.0], "b": [1.0]})
    >>> opt = nb.optimizer.SGD(0.1, params)
    >>> before = params.numpy()
    >>> opt.step({"w": [1.0, 0.0], "b": [2.0]})
    >>> ax = nb.plot.norms(params, before, ax=Figure().subplots())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['w', 'b']
    """
    chosen = _chosen(params, names)
    params.gather_grads()
    columns = [
        ("norm of the value", BLUE, "o", [float(norm(p.value)) for p in chosen.values()]),
        ("norm of the gradient", ORANGE, "D", [float(norm(p.grad)) for p in chosen.values()]),
    ]
    if before is not None:
        ratios = [_ratio(name, p.numpy(), before) for name, p in chosen.items()]
        columns.append(("update ratio", GREEN, "s", ratios))
    ax = _rows(ax, chosen)
    for label, color, marker, values in columns:
        drawn = [value if value > 0.0 else math.nan for value in values]
        ax.plot(drawn, range(len(drawn)), color=color, marker=marker, linestyle="none", label=label)
    ax.set_xscale("log")
    ax.set_xlabel("Euclidean norm" if before is None else "Euclidean norm; ratio")
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(columns), frameon=False, handletextpad=0.2
    )
    return _finished(ax, None)


@check_calls
def sparsity(params: ParameterBuffer, threshold: float = 0.0, *, names: str = "*", ax: Any = None) -> Any:
    """Draw what share of each parameter is zero.

    Parameters
    ----------
    params : ParameterBuffer
    threshold : float
        Elements of an absolute value up to here count as zero.
    names : str
        Which parameters, an `fnmatch` pattern.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        One bar per parameter, in creation order from the top.

    Examples
    --------
    >>> import nbopt as nb
    >>> from matplotlib.figure import Figure
    >>> params = nb.ParameterBuffer.from_arrays({"w": [0.0, 1e-9, 0.0, 2.0], "b": [1.0]})
    >>> ax = nb.plot.sparsity(params, ax=Figure().subplots())
    >>> [float(bar.get_width()) for bar in ax.patches]
    [50.0, 0.0]
    """
    threshold = as_number(threshold, "threshold", low=0.0)
    chosen = _chosen(params, names)
    shares = [
        100.0 * float(np.mean(np.abs(p.numpy()) <= threshold)) if p.size else 0.0 for p in chosen.values()
    ]
    ax = _rows(ax, chosen)
    ax.barh(range(len(shares)), shares, height=0.7, color=BLUE)
    told = "of exact zeros" if threshold == 0.0 else f"with an absolute value up to {threshold:g}"
    ax.set(xlabel=f"share of elements {told} (%)", xlim=(0.0, 100.0))
    return _finished(ax, None)


def _losses(record: Any) -> NDArray[np.float64]:
    found = record
    for name in ("history", "loss"):  # of an OptimizeResult, of a History
        found = getattr(record, name, found)
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Sequence | np.ndarray):
        raise TypeError(
            "record must be a list of losses, an OptimizeResult of nbopt.minimize or a History, got "
            f"{type(record).__name__}"
        )
    losses = np.asarray(found, dtype=np.float64)
    if losses.ndim != 1 or not losses.size:
        raise ParameterError(f"record must hold one loss or more in a row, got shape {losses.shape}")
    return losses


def _chosen(params: Any, names: str) -> dict[str, Any]:
    if not isinstance(params, ParameterBuffer):
        raise TypeError(f"params must be a ParameterBuffer, got {type(params).__name__}")
    chosen = {p.name: p for p in params.select(names)}
    if not chosen or len(chosen) > MOST_ROWS:
        told = f"{len(chosen)} parameters" if chosen else "no parameter"
        raise ParameterError(f"names={names!r} chooses {told}; a picture has 1 to {MOST_ROWS} rows")
    return chosen


def _ratio(name: str, value: NDArray[Any], before: Mapping[str, ArrayLike]) -> float:
    if name not in before:
        raise ParameterError(f"before lacks {name!r}; take all of it from params.numpy()")
    old = np.asarray(before[name])
    if old.shape != value.shape:
        raise ParameterError(f"before[{name!r}] has shape {old.shape}, and the parameter {value.shape}")
    size = float(norm(old))
    return float(norm(value - old)) / size if size else math.nan


def _axes(ax: Any, rows: int = 0) -> Any:
    """Return the Axes, or those of a new figure, tall enough for some rows."""
    if ax is not None:
        if not hasattr(ax, "plot"):
            raise TypeError(f"ax must be matplotlib Axes, got {type(ax).__name__}")
        return ax
    pyplot = require("matplotlib.pyplot", "matplotlib", "a picture", "plot")
    height = max(3.6, 1.2 + 0.24 * rows)
    return pyplot.subplots(figsize=(6.4, height), layout="constrained")[1]


def _rows(ax: Any, chosen: Mapping[str, Any]) -> Any:
    ax = _axes(ax, len(chosen))
    ax.set_yticks(range(len(chosen)), labels=list(chosen))
    ax.set_ylim(len(chosen) - 0.5, -0.5)
    return ax


def _next(ax: Any) -> str:
    """The colour of the next line: those of the house, then those of the style."""
    own = (BLUE, ORANGE, GREEN)
    return own[len(ax.lines)] if len(ax.lines) < len(own) else f"C{len(ax.lines)}"


def _marker(points: Any) -> str:
    """A few points are shown, many are joined alone."""
    return "o" if len(points) < 8 else ""


def _finished(ax: Any, label: str | None) -> Any:
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if label is not None:
        ax.legend()
    return ax
