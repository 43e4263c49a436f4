"""The demonstration: a small network, written out in NumPy, learns to read handwritten digits.

`python -m nbopt demo` runs it; `run` is the same from Python. The network's gradients are written
by hand into the views of one `ParameterBuffer`; nbopt does what it is for: names with a policy each
and one reproducible step. scikit-learn (which carries the 1,797 images), tqdm and matplotlib come
with the extra `demo`, threadpoolctl with scikit-learn; they are imported only when needed.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nbopt as nb
from nbopt._validation import as_integer
from nbopt.errors import HyperparameterError, NboptError

__all__ = ["DemoResult", "History", "MissingPackageError", "Network", "draw", "picture_path", "run"]

WIDTHS = (64, 128, 64, 10)
LEARNING_RATE = 0.1
MOMENTUM = 0.9
L2 = 1e-3
CLIP_NORM = 1.0
NOISE = np.float32(0.5)  # added to the standardised pixels in training, so as to generalise better

FloatArray = NDArray[np.floating[Any]]


class MissingPackageError(NboptError, ImportError):
    """A package of the extra `demo` is not installed."""


def _require(module: str, package: str) -> Any:
    """Import `module`, or say which package brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as cause:
        if cause.name is None or cause.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingPackageError(
            f'the demo needs {package}, which is not installed: pip install "nbopt[demo]"'
        ) from cause


@dataclass(frozen=True)
class Digits:
    """The images and their labels: four fifths to learn from, one fifth held out.

    Attributes
    ----------
    train_images, test_images : numpy.ndarray
        float32, one row of 64 standardised pixels per image; the labels are the digits.
    """

    train_images: FloatArray
    train_labels: NDArray[np.int64]
    test_images: FloatArray
    test_labels: NDArray[np.int64]

    @classmethod
    def load(cls) -> Digits:
        """Read the images out of scikit-learn and split them, always in the same way."""
        datasets = _require("sklearn.datasets", "scikit-learn")
        selection = _require("sklearn.model_selection", "scikit-learn")
        images, labels = datasets.load_digits(return_X_y=True)
        train, test, train_labels, test_labels = selection.train_test_split(
            images, labels.astype(np.int64), test_size=0.2, stratify=labels, random_state=0
        )
        mean, std = train.mean(), train.std()
        scaled = [((part - mean) / std).astype(np.float32) for part in (train, test)]
        return cls(scaled[0], train_labels, scaled[1], test_labels)


class Network:
    """A multilayer perceptron with ReLU and softmax cross-entropy, its gradients written by hand.

    Parameters
    ----------
    params : ParameterBuffer
        Receives `fc1.weight`, `fc1.bias`, `fc2.weight`, ... Biases are not decayed, not clipped and
        learn at twice the rate.
    widths : tuple of int
        Inputs, hidden units, classes.
    """

    def __init__(self, params: nb.ParameterBuffer, widths: tuple[int, ...] = WIDTHS) -> None:
        weight = nb.ParamAttr(initializer=nb.initializer.KaimingNormal())
        bias = nb.ParamAttr(
            initializer=nb.initializer.Constant(0.0),
            learning_rate=2.0,
            regularizer=nb.regularizer.L2Decay(0.0),
            need_clip=False,
        )
        self.weights: list[Any] = []
        self.biases: list[Any] = []
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths), start=1):
            name = f"fc{layer}"
            w = params.create_parameter([fan_in, fan_out], name=f"{name}.weight", attr=weight)
            b = params.create_parameter([fan_out], name=f"{name}.bias", attr=bias, is_bias=True)
            self.weights.append(w)
            self.biases.append(b)

    def forward(self, images: FloatArray) -> list[FloatArray]:
        """Return the input of every layer, and the logits last."""
        values = [images]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            out = values[-1] @ weight.value
            out += bias.value
            if len(values) < len(self.weights):
                np.maximum(out, 0.0, out=out)
            values.append(out)
        return values

    def backward(self, values: list[FloatArray], labels: NDArray[np.int64]) -> float:
        """Write dloss/dparameter into every `grad` view; return the mean cross-entropy."""
        loss, delta = _cross_entropy(values[-1], labels)
        for layer in reversed(range(len(self.weights))):
            np.matmul(values[layer].T, delta, out=self.weights[layer].grad)
            np.sum(delta, axis=0, out=self.biases[layer].grad)
            if layer:
                delta = delta @ self.weights[layer].value.T
                delta *= values[layer] > 0.0
        return loss

    def evaluate(self, images: FloatArray, labels: NDArray[np.int64]) -> tuple[float, float]:
        """Return the mean cross-entropy and the share of images read correctly."""
        logits = self.forward(images)[-1]
        right = logits.argmax(axis=1) == labels
        return _cross_entropy(logits, labels)[0], float(right.mean())


def _cross_entropy(logits: FloatArray, labels: NDArray[np.int64]) -> tuple[float, FloatArray]:
    """Return the mean cross-entropy and its gradient with respect to the logits."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    delta = np.exp(shifted)
    total = delta.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - shifted[rows, labels], dtype=np.float64))
    delta /= total
    delta[rows, labels] -= 1.0
    delta /= len(labels)
    return loss, delta


@dataclass(frozen=True)
class History:
    """What happened, as float64 arrays.

    Attributes
    ----------
    train_loss, train_accuracy, test_loss, test_accuracy : numpy.ndarray
        Mean cross-entropy (nats) and share of images read correctly at the end of every epoch.
    grad_norm : numpy.ndarray
        Norm of all gradients at every step, before clipping: `opt.grad_norm`.
    weight_grad_norm : numpy.ndarray
        The same over the weights alone. Biases are not clipped, so this is what the clip limits.
    """

    train_loss: FloatArray
    train_accuracy: FloatArray
    test_loss: FloatArray
    test_accuracy: FloatArray
    grad_norm: FloatArray
    weight_grad_norm: FloatArray

    @property
    def clipped_share(self) -> float:
        """The share of steps in which the clip had something to do."""
        return float(np.mean(self.weight_grad_norm > CLIP_NORM))


@dataclass(frozen=True)
class DemoResult:
    """What `run` returns: final held-out accuracy, hash of the trained parameters, and the rest."""

    accuracy: float
    fingerprint: str
    history: History
    params: nb.ParameterBuffer
    opt: nb.optimizer.Momentum


def run(epochs: int = 40, batch_size: int = 32, seed: int = 0, *, quiet: bool = False) -> DemoResult:
    """Train the network and return how it went.

    The same arguments give the same bits, run after run and for any number of Numba threads: the
    step is reproducible by itself, and NumPy's BLAS is held to one thread meanwhile.

    Parameters
    ----------
    epochs : int
        Passes over the training images; the learning rate falls to zero over them, along a cosine.
    batch_size : int
        Images per step.
    seed : int
        Of the initial parameters, the order of the images and the noise on them; the held-out
        fifth is always the same.
    quiet : bool
        Neither print the summary nor show the progress bar.

    Returns
    -------
    DemoResult

    Raises
    ------
    HyperparameterError
        For an argument out of range.
    MissingPackageError
        Where a package of the extra `demo` is not installed.
    """
    epochs = as_integer(epochs, "epochs", low=1)
    batch_size = as_integer(batch_size, "batch size", low=1)
    seed = as_integer(seed, "seed", low=0)
    threadpoolctl = _require("threadpoolctl", "threadpoolctl")
    tqdm = _require("tqdm", "tqdm")
    digits = Digits.load()
    count = len(digits.train_labels)
    if batch_size > count:
        raise HyperparameterError(
            f"batch size must be <= {count}, the number of training images, got {batch_size}"
        )

    params = nb.ParameterBuffer(dtype="float32", seed=seed)
    network = Network(params)
    opt = nb.optimizer.Momentum(
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
        parameters=params,
        use_nesterov=True,
        weight_decay=nb.regularizer.L2Decay(L2),
        grad_clip=nb.ClipGradByGlobalNorm(CLIP_NORM),
    )
    if not quiet:
        print(params.summary(), flush=True)

    rng = np.random.Generator(np.random.PCG64(seed))
    per_epoch: list[tuple[float, float, float, float]] = []
    per_step: list[tuple[float, float]] = []
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        tqdm.tqdm(total=epochs, desc="compiling", unit="epoch", disable=quiet) as bar,
    ):
        opt.compile()
        bar.set_description("training", refresh=False)
        bar.reset()
        for epoch in range(epochs):
            opt.set_lr(LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)))
            order = rng.permutation(count)
            for start in range(0, count, batch_size):
                batch = order[start : start + batch_size]
                images = digits.train_images[batch]
                images += NOISE * rng.standard_normal(images.shape, dtype=np.float32)
                network.backward(network.forward(images), digits.train_labels[batch])
                clipped = math.hypot(*(float(np.linalg.norm(w.grad)) for w in network.weights))
                opt.step()
                per_step.append((math.nan if opt.grad_norm is None else opt.grad_norm, clipped))
            train = network.evaluate(digits.train_images, digits.train_labels)
            test = network.evaluate(digits.test_images, digits.test_labels)
            per_epoch.append(train + test)
            bar.set_postfix(loss=f"{train[0]:.4f}", accuracy=f"{test[1]:.4f}", refresh=False)
            bar.update()
    history = History(*np.array(per_epoch).T, *np.array(per_step).T)
    return DemoResult(test[1], params.fingerprint(), history, params, opt)


def picture_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` if a picture can go there; raise before the work is done rather than after it.

    Raises
    ------
    HyperparameterError
        Where its name does not end in `.png`.
    OSError
        Where its folder is missing or cannot be written, or where it is a folder itself.
    """
    _require("matplotlib.figure", "matplotlib")
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
    """Draw loss, accuracy and gradient norm of a run into a PNG, without touching the backend."""
    figure_module = _require("matplotlib.figure", "matplotlib")
    ticker = _require("matplotlib.ticker", "matplotlib")
    agg = _require("matplotlib.backends.backend_agg", "matplotlib")
    blue, orange, grey = "#1f5fa8", "#d9650f", "#444444"
    history = result.history
    epochs, steps = (np.arange(1, 1 + len(x)) for x in (history.train_loss, history.grad_norm))
    figure = figure_module.Figure(figsize=(13.5, 4.5), dpi=130, layout="constrained")
    agg.FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    loss, accuracy, norm = figure.subplots(1, 3)

    train = {"color": blue, "marker": "o" if len(epochs) < 8 else "", "label": "training"}
    test = {**train, "color": orange, "label": "held out"}
    loss.plot(epochs, history.train_loss, **train)
    loss.plot(epochs, history.test_loss, **test)
    loss.set(title="Loss", xlabel="epoch", ylabel="mean cross-entropy (nats)", yscale="log")
    accuracy.plot(epochs, 100 * history.train_accuracy, **train)
    accuracy.plot(epochs, 100 * history.test_accuracy, **test)
    accuracy.axhline(100 * result.accuracy, color=orange, linewidth=0.8, linestyle=":")
    title = f"Accuracy: {100 * result.accuracy:.2f} % of the held-out fifth"
    accuracy.set(title=title, xlabel="epoch", ylabel="images read correctly (%)")

    above = history.weight_grad_norm > CLIP_NORM
    clipped = f"clipped ({100 * history.clipped_share:.0f} % of the steps)"
    dots = {"linestyle": "none", "marker": ".", "markersize": 3.5}
    for part, color, label in ((above, orange, clipped), (~above, blue, "left as it is")):
        norm.plot(steps[part], history.weight_grad_norm[part], color=color, label=label, **dots)
    norm.axhline(CLIP_NORM, color=grey, linestyle="--", label=f"clip norm {CLIP_NORM:g}")
    norm.set(
        title="Gradient norm before clipping",
        xlabel=f"step ({len(steps) // len(epochs)} per epoch)",
        ylabel="global norm over the weights (nats per unit)",
        yscale="log",
    )
    for axes in (loss, norm):
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    places = {loss: "upper right", accuracy: "lower right", norm: "lower left"}
    for axes, place in places.items():
        axes.xaxis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc=place, markerscale=1.5)
    figure.savefig(path, format="png")
