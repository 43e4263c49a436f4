"""A posterior by variational inference, its gradients by autograd.

Fits a normal distribution to the posterior of a logistic regression on scikit-learn's breast cancer data,
prints how well it predicts and draws the evidence bound and the surest effects into variational.png. With
--quick it takes fewer steps.
"""

import sys

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

import nbopt as nb

TRAIN, DRAWS = 400, 8  # patients to learn from, of 569; of the posterior per step
SHOWN = 10


def load():
    """Return names, standardised features and labels (1: malignant), in a fixed random order."""
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.target))
    features = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    return data.feature_names, features[order], 1.0 - data.target[order]


def loss(mean, log_std, noise, x, y):
    """Return the negative evidence bound per patient: weights with a standard normal prior."""
    std = anp.exp(log_std)
    logits = anp.dot(x, (mean[:, None] + std[:, None] * noise))
    likelihood = anp.mean(anp.sum(y[:, None] * logits - anp.logaddexp(0.0, logits), axis=0))
    divergence = 0.5 * anp.sum(std**2 + mean**2 - 1.0 - 2.0 * log_std)
    return (divergence - likelihood) / len(y)


def fit(x, y, steps):
    """Return mean and log of the standard deviation of every weight, and the loss at each step."""
    slopes = value_and_grad(loss, argnum=(0, 1))
    params = nb.ParameterBuffer.from_arrays(
        {"mean": np.zeros(x.shape[1]), "log_std": np.full(x.shape[1], -1.0)},
        attrs={"log_std": nb.ParamAttr(learning_rate=0.5, need_clip=False)},
    )
    rate = nb.optimizer.lr.CosineAnnealingDecay(0.05, T_max=steps)
    opt = nb.optimizer.Adam(rate, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(steps):
        noise = rng.standard_normal((x.shape[1], DRAWS))
        value, (mean, log_std) = slopes(params["mean"].value, params["log_std"].value, noise, x, y)
        opt.step({"mean": mean, "log_std": log_std})
        rate.step()
        losses.append(value)
    return params["mean"].numpy(), params["log_std"].numpy(), np.array(losses)


def main(steps):
    names, features, labels = load()
    mean, log_std, losses = fit(features[:TRAIN], labels[:TRAIN], steps)
    right = (features[TRAIN:] @ mean > 0) == labels[TRAIN:]
    print(f"patients judged rightly, of those held out: {right.mean():.3f}")
    print(f"evidence bound per patient at the end: {-losses[-20:].mean():.3f} nats")

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, axes = figure.subplots(1, 2)
    nb.plot.history(losses, ax=left).set(ylabel="negative evidence bound (nats per patient)")
    surest = np.argsort(np.abs(mean) / np.exp(log_std))[::-1][:SHOWN]
    rows = np.arange(SHOWN)
    axes.errorbar(mean[surest], rows, xerr=2 * np.exp(log_std[surest]), fmt="o", color="#3b82c4")
    axes.axvline(0.0, color="#7a7a7a", linewidth=0.8)
    axes.set_yticks(rows, labels=names[surest])
    axes.invert_yaxis()
    axes.set(xlabel="weight, two standard deviations to each side")
    axes.grid(alpha=0.3)
    figure.savefig("variational.png", dpi=110)


if __name__ == "__main__":
    main(steps=100 if "--quick" in sys.argv else 1500)
