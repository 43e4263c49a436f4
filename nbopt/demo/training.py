"""The training: one run, or two side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

import nbopt as nb
from nbopt._validation import as_integer
from nbopt.demo.digits import Digits, FloatArray, require
from nbopt.demo.network import Network
from nbopt.demo.progress import Path, Progress
from nbopt.errors import HyperparameterError

__all__ = ["Comparison", "DemoResult", "History", "compare", "run"]

LEARNING_RATE = 0.1
MOMENTUM = 0.9
L2 = 1e-3
CLIP_NORM = 1.0
NOISE = np.float32(0.5)  # added to the standardised pixels in training, so as to generalise better


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
        The same over all but the biases, which are not clipped: this is what the clip limits. Of a weight
        with weight norm, the gradients of v and g count.
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


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns: a run without and a run with weight norm, and a table of both as its `str`."""

    plain: DemoResult
    weight_norm: DemoResult

    def __str__(self) -> str:
        rows = [
            ("", "plain", "weight norm"),
            *(
                (label, *(f"{getattr(run.history, name)[-1]:.4f}" for run in (self.plain, self.weight_norm)))
                for label, name in (
                    ("training loss", "train_loss"),
                    ("test loss", "test_loss"),
                    ("test accuracy", "test_accuracy"),
                )
            ),
            ("fingerprint", self.plain.fingerprint, self.weight_norm.fingerprint),
        ]
        return "\n".join(f"{label:14}{plain:34}{normalized}" for label, plain, normalized in rows)


def run(
    epochs: int = 40,
    batch_size: int = 32,
    seed: int = 0,
    *,
    weight_norm: bool = False,
    quiet: bool = False,
    save: Path | None = None,
    resume: Path | None = None,
) -> DemoResult:
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
    weight_norm : bool
        Compose the weights of the hidden layers of direction and length.
    quiet : bool
        Neither print the summary nor show the progress bar.
    save : path-like, optional
        Save the run to this file at the start and after every epoch.
    resume : path-like, optional
        Go on with a run of the same arguments that was saved; it ends with the same bits as one that never
        stopped.

    Returns
    -------
    DemoResult

    Raises
    ------
    HyperparameterError
        For an argument out of range.
    CheckpointError
        If the file to resume from is damaged, or of a run with other arguments.
    MissingPackageError
        Where a package of the extra `demo` is not installed.

    Examples
    --------
    >>> from nbopt.demo import run
    >>> result = run(epochs=1, weight_norm=True, quiet=True)
    >>> result.accuracy > 0.5, result.params["fc1.weight_g"].shape
    (True, (1, 128))
    """
    epochs = as_integer(epochs, "epochs", low=1)
    batch_size = as_integer(batch_size, "batch size", low=1)
    seed = as_integer(seed, "seed", low=0)
    threadpoolctl = require("threadpoolctl", "threadpoolctl")
    tqdm = require("tqdm", "tqdm")
    digits = Digits.load()
    count = len(digits.train_labels)
    if batch_size > count:
        raise HyperparameterError(
            f"batch size must be <= {count}, the number of training images, got {batch_size}"
        )

    params = nb.ParameterBuffer(dtype="float32", seed=seed)
    network = Network(params, weight_norm=weight_norm)
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

    setting = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "weight_norm": weight_norm}
    progress = Progress(setting)
    if resume is not None:
        nb.restore(resume, params, opt, progress=progress)
    if save is not None:
        nb.save(save, params, opt, progress=progress)
    rng, done = progress.rng, len(progress.per_epoch)
    task = "training with weight norm" if weight_norm else "training"
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        tqdm.tqdm(total=epochs, desc="compiling", unit="epoch", disable=quiet) as bar,
    ):
        opt.compile()
        bar.set_description(task, refresh=False)
        bar.reset()
        bar.update(done)
        for epoch in range(done, epochs):
            opt.set_lr(LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)))
            order = rng.permutation(count)
            for start in range(0, count, batch_size):
                batch = order[start : start + batch_size]
                images = digits.train_images[batch]
                images += NOISE * rng.standard_normal(images.shape, dtype=np.float32)
                network.backward(network.forward(images), digits.train_labels[batch])
                opt.step()
                norm = math.nan if opt.grad_norm is None else opt.grad_norm
                unclipped = math.hypot(*(float(np.linalg.norm(b.grad)) for b in network.biases))
                progress.per_step.append((norm, math.sqrt(max(norm**2 - unclipped**2, 0.0))))
            train = network.evaluate(digits.train_images, digits.train_labels)
            test = network.evaluate(digits.test_images, digits.test_labels)
            progress.per_epoch.append(train + test)
            if save is not None:
                nb.save(save, params, opt, progress=progress)
            bar.set_postfix(loss=f"{train[0]:.4f}", accuracy=f"{test[1]:.4f}", refresh=False)
            bar.update()
    history = History(*np.array(progress.per_epoch).T, *np.array(progress.per_step).T)
    return DemoResult(progress.per_epoch[-1][-1], params.fingerprint(), history, params, opt)


def compare(epochs: int = 40, batch_size: int = 32, seed: int = 0, *, quiet: bool = False) -> Comparison:
    """Train without and with weight norm: the same images in the same order, noise and first weights.

    Parameters
    ----------
    epochs, batch_size, seed, quiet
        As in `run`, of both.

    Returns
    -------
    Comparison

    Raises
    ------
    HyperparameterError, MissingPackageError
        As in `run`.

    Examples
    --------
    >>> from nbopt.demo import compare
    >>> both = compare(epochs=1, quiet=True)
    >>> print(both)  # doctest: +ELLIPSIS
                  plain                             weight norm
    training loss 0...                              0...
    test loss     0...                              0...
    test accuracy 0...                              0...
    fingerprint   ...
    """
    plain, normalized = (
        run(epochs, batch_size, seed, weight_norm=weight_norm, quiet=quiet) for weight_norm in (False, True)
    )
    return Comparison(plain, normalized)
