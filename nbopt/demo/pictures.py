"""The pictures, drawn without touching the user's backend."""

from __future__ import annotations

import os
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.demo.digits import require
from nbopt.demo.training import CLIP_NORM, Comparison, DemoResult
from nbopt.errors import HyperparameterError

__all__ = ["draw", "draw_comparison", "picture_path"]

BLUE, ORANGE, GREY = "#1f5fa8", "#d9650f", "#444444"


def picture_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` if a picture can go there; raise before the work is done rather than after it.

    Raises
    ------
    HyperparameterError
        Where its name does not end in `.png`.
    OSError
        Where its folder is missing or cannot be written, or where it is a folder itself.
    """
    require("matplotlib.figure", "matplotlib")
    path = Path(path)
    refusal = f"cannot write the picture {path}:"
    if path.suffix.lower() != ".png":
        raise HyperparameterError(f"{refusal} its name must end in .png")
    if path.is_dir():
        raise IsADirectoryError(f"{refusal} it is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{refusal} there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(f"{refusal} permission denied")
    return path


def draw(result: DemoResult, path: str | os.PathLike[str]) -> None:
    """Draw loss, accuracy and gradient norm of a run into a PNG."""
    history = result.history
    epochs, steps = (np.arange(1, 1 + len(x)) for x in (history.train_loss, history.grad_norm))
    figure, (loss, accuracy, norm) = _panels(3)

    train = {"color": BLUE, "marker": _marker(epochs), "label": "training"}
    test = {**train, "color": ORANGE, "label": "held out"}
    loss.plot(epochs, history.train_loss, **train)
    loss.plot(epochs, history.test_loss, **test)
    loss.set(title="Loss", xlabel="epoch", ylabel="mean cross-entropy (nats)", yscale="log")
    accuracy.plot(epochs, 100 * history.train_accuracy, **train)
    accuracy.plot(epochs, 100 * history.test_accuracy, **test)
    end = {"linewidth": 0.8, "linestyle": ":", "label": "held out, at the end"}
    accuracy.axhline(100 * result.accuracy, color=ORANGE, **end)
    title = f"Accuracy: {100 * result.accuracy:.2f} % of the held-out fifth"
    accuracy.set(title=title, xlabel="epoch", ylabel="images read correctly (%)")

    above = history.weight_grad_norm > CLIP_NORM
    clipped = f"clipped ({100 * history.clipped_share:.0f} % of the steps)"
    dots = {"linestyle": "none", "marker": ".", "markersize": 3.5}
    for part, color, label in ((above, ORANGE, clipped), (~above, BLUE, "left as it is")):
        norm.plot(steps[part], history.weight_grad_norm[part], color=color, label=label, **dots)
    norm.axhline(CLIP_NORM, color=GREY, linestyle="--", label=f"clip norm {CLIP_NORM:g}")
    norm.set(
        title="Gradient norm before clipping",
        xlabel=f"step ({len(steps) // len(epochs)} per epoch)",
        ylabel="global norm over the weights (nats per unit)",
        yscale="log",
    )
    for axes, place in ((loss, "upper right"), (accuracy, "lower right"), (norm, "lower left")):
        _tidy(axes)
        axes.legend(loc=place, markerscale=1.5)
    figure.savefig(path, format="png")


def draw_comparison(both: Comparison, path: str | os.PathLike[str]) -> None:
    """Draw loss and accuracy of two runs over their steps into a PNG."""
    figure, (loss, accuracy) = _panels(2)
    for name, result, color in (("plain", both.plain, BLUE), ("weight norm", both.weight_norm, ORANGE)):
        history = result.history
        steps = np.linspace(0, len(history.grad_norm), len(history.train_loss) + 1)[1:]  # ends of epochs
        test = {"color": color, "marker": _marker(steps), "markersize": 4, "label": f"{name}, held out"}
        train = {**test, "linestyle": "--", "linewidth": 1.0, "label": f"{name}, training"}
        loss.plot(steps, history.test_loss, **test)
        loss.plot(steps, history.train_loss, **train)
        accuracy.plot(steps, 100 * history.test_accuracy, **test)
        accuracy.plot(steps, 100 * history.train_accuracy, **train)
    loss.set(title="Loss", xlabel="step", ylabel="mean cross-entropy (nats)", yscale="log")
    accuracy.set(title="Accuracy", xlabel="step", ylabel="images read correctly (%)")
    for axes in (loss, accuracy):
        axes.set_xlim(0, 1.03 * steps[-1])
        _tidy(axes)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, format="png")


def _panels(count: int) -> tuple[Any, Any]:
    """Return a figure of its own canvas, and its panels in one row."""
    figure_module = require("matplotlib.figure", "matplotlib")
    agg = require("matplotlib.backends.backend_agg", "matplotlib")
    figure = figure_module.Figure(figsize=(4.5 * count, 4.5), dpi=130, layout="constrained")
    agg.FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    return figure, figure.subplots(1, count)


def _marker(points: Sized) -> str:
    """A few points are shown, many are joined alone."""
    return "o" if len(points) < 8 else ""


def _tidy(axes: Any) -> None:
    """Round ticks, a light grid, and no box."""
    ticker = require("matplotlib.ticker", "matplotlib")
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
