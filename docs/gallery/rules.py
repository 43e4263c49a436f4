"""Four optimizers of one function each, on the handwritten digits of scikit-learn.

Trains a small network with each of them, prints how it went and draws the loss into rules.png.
With --quick it trains for one epoch only.
"""

import math
import sys

import numpy as np
from matplotlib.figure import Figure
from scipy.special import log_softmax
from sklearn.datasets import load_digits

import nbopt as nb

BATCH, TRAIN = 32, 1408  # images per step; images to learn from, of 1797


@nb.rule
def heavy_ball(param, velocity, grad, lr, momentum=0.9):
    """Polyak (1964)."""
    velocity = momentum * velocity + grad
    return param - lr * velocity, velocity


@nb.rule
def adagrad(param, total, grad, lr, epsilon=1e-10):
    """Duchi, Hazan and Singer (2011), the diagonal form."""
    total = total + grad * grad
    return param - lr * grad / (math.sqrt(total) + epsilon), total


@nb.rule
def rmsprop(param, square, grad, lr, rho=0.99, epsilon=1e-8):
    """Tieleman and Hinton (2012)."""
    square = rho * square + (1 - rho) * grad * grad
    return param - lr * grad / (math.sqrt(square) + epsilon), square


@nb.rule
def lion(param, moment, grad, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
    """Chen et al. (2023); the decay is decoupled, the number of the optimizer or the group."""
    mix = beta1 * moment + (1 - beta1) * grad
    sign = 1.0 if mix > 0 else (-1.0 if mix < 0 else 0.0)
    return param - lr * (sign + weight_decay * param), beta2 * moment + (1 - beta2) * grad


RULES = {  # the rule, its rate, and its options
    "heavy ball": (heavy_ball, 0.1, {}),
    "Adagrad": (adagrad, 0.02, {}),
    "RMSProp": (rmsprop, 0.001, {}),
    "Lion": (lion, 0.0003, {"weight_decay": 0.1}),
}


def load():
    """Return standardised images and one-hot labels, in a fixed random order."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images - images.mean()) / images.std()
    return images[order].astype(np.float32), np.eye(10, dtype=np.float32)[labels[order]]


def train(images, labels, rule, rate, options, epochs):
    """Return the loss at every step, and the accuracy on the images held out."""
    params = nb.ParameterBuffer(dtype="float32", seed=0)
    w1 = params.create_parameter([64, 128], name="fc1.weight")
    b1 = params.create_parameter([128], name="fc1.bias", is_bias=True)
    w2 = params.create_parameter([128, 10], name="fc2.weight")
    b2 = params.create_parameter([10], name="fc2.bias", is_bias=True)
    clip = nb.ClipGradByGlobalNorm(1.0)
    opt = nb.Optimizer(rule, rate, parameters=params, grad_clip=clip, **options)

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
            w1.grad, b1.grad = x.T @ delta, delta.sum(axis=0)
            opt.step()

    hidden = np.maximum(images[TRAIN:] @ w1.value + b1.value, 0.0)
    guess = (hidden @ w2.value + b2.value).argmax(axis=1)
    return np.array(losses), np.mean(guess == labels[TRAIN:].argmax(axis=1))


def main(epochs):
    images, labels = load()
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axes = figure.subplots()
    print("rule        rate    last loss  accuracy")
    for name, (rule, rate, options) in RULES.items():
        losses, accuracy = train(images, labels, rule, rate, options, epochs)
        means = losses.reshape(-1, 11).mean(axis=1)  # of a quarter of an epoch each
        axes.plot(11 * np.arange(1, len(means) + 1), means, label=name)
        print(f"{name:10}  {rate:<6}  {losses[-44:].mean():9.4f}  {accuracy:8.3f}")
    axes.set(xlabel="step", ylabel="training loss (nats)", yscale="log")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig("rules.png", dpi=110)


if __name__ == "__main__":
    main(epochs=1 if "--quick" in sys.argv else 10)
