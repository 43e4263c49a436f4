"""Weight normalization at a fitting and at a high learning rate, on the handwritten digits of scikit-learn.

Trains a small network four times, prints how it went and draws the loss into weight_norm_digits.png.
With --quick it trains for one epoch only.
"""

import sys

import numpy as np
from matplotlib.figure import Figure
from scipy.special import log_softmax
from sklearn.datasets import load_digits

import nbopt as nb

BATCH, TRAIN = 32, 1408  # images per step; images to learn from, of 1797
RATES = (0.1, 0.3)
ATTRS = {"plain": None, "weight norm": nb.WeightNormParamAttr(dim=1)}  # one length per hidden unit


def load():
    """Return standardised images and one-hot labels, in a fixed random order."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images - images.mean()) / images.std()
    return images[order].astype(np.float32), np.eye(10, dtype=np.float32)[labels[order]]


def train(images, labels, rate, attr, epochs):
    """Return the loss at every step, and the accuracy on the images held out."""
    params = nb.ParameterBuffer(dtype="float32", seed=0)
    w1 = params.create_parameter([64, 128], name="fc1.weight", attr=attr)
    b1 = params.create_parameter([128], name="fc1.bias", is_bias=True)
    w2 = params.create_parameter([128, 10], name="fc2.weight")
    b2 = params.create_parameter([10], name="fc2.bias", is_bias=True)
    opt = nb.optimizer.Momentum(rate, 0.9, parameters=params)

    rng = np.random.default_rng(0)
    losses = []
    for _ in range(epochs):
        for batch in rng.permutation(TRAIN).reshape(-1, BATCH):
            x, y = images[batch], labels[batch]
            hidden = np.maximum(x @ w1.value + b1.value, 0.0)
            log_p = log_softmax(hidden @ w2.value + b2.value, axis=1)
            losses.append(-np.sum(y * log_p) / BATCH)

            delta = (np.exp(log_p) - y) / BATCH  # the gradient, from the logits back
            w2.grad, b2.grad = hidden.T @ delta, delta.sum(axis=0)
            delta = (delta @ w2.value.T) * (hidden > 0.0)
            w1.grad, b1.grad = x.T @ delta, delta.sum(axis=0)  # dL/dw; the step takes it to v and g
            opt.step()

    hidden = np.maximum(images[TRAIN:] @ w1.value + b1.value, 0.0)
    guess = (hidden @ w2.value + b2.value).argmax(axis=1)
    accuracy = np.mean(guess == labels[TRAIN:].argmax(axis=1))
    return np.array(losses), accuracy


def main(epochs):
    images, labels = load()
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, len(RATES), sharey=True)
    print("rate  weights      last loss  accuracy")
    for rate, axes in zip(RATES, panels, strict=True):
        for name, attr in ATTRS.items():
            losses, accuracy = train(images, labels, rate, attr, epochs)
            means = losses.reshape(-1, 11).mean(axis=1)  # of a quarter of an epoch each
            axes.plot(11 * np.arange(1, len(means) + 1), means, label=name)
            print(f"{rate:<4}  {name:11}  {losses[-44:].mean():9.4f}  {accuracy:8.3f}")
        axes.set(title=f"learning rate {rate}", xlabel="step", yscale="log")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("training loss (nats)")
    panels[0].legend()
    figure.savefig("weight_norm_digits.png", dpi=110)


if __name__ == "__main__":
    main(epochs=1 if "--quick" in sys.argv else 20)
