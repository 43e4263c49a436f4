"""The model: a multilayer perceptron in NumPy with its gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nbopt as nb
from nbopt.demo.digits import FloatArray

__all__ = ["Network"]

WIDTHS = (64, 128, 64, 10)


class Network:
    """A multilayer perceptron with ReLU and softmax cross-entropy, its gradients written by hand.

    Parameters
    ----------
    params : ParameterBuffer
        Receives `fc1.weight`, `fc1.bias`, `fc2.weight`, ... Biases are not decayed, not clipped and
        learn at twice the rate.
    widths : tuple of int
        Inputs, hidden units, classes.
    weight_norm : bool
        Compose each column of the hidden layers' weights of a direction v and a length g. The decay acts on g
        alone: that is the decay of the weight itself, as g is its length.
    """

    def __init__(
        self, params: nb.ParameterBuffer, widths: tuple[int, ...] = WIDTHS, *, weight_norm: bool = False
    ) -> None:
        draw = nb.initializer.KaimingNormal()
        plain = nb.ParamAttr(initializer=draw)
        hidden = nb.WeightNormParamAttr(dim=1, initializer=draw) if weight_norm else plain
        none = nb.regularizer.L2Decay(0.0)
        bias = nb.ParamAttr(
            initializer=nb.initializer.Constant(0.0), learning_rate=2.0, regularizer=none, need_clip=False
        )
        self.weights: list[Any] = []
        self.biases: list[Any] = []
        layers = len(widths) - 1
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths), start=1):
            attr = hidden if layer < layers else plain
            w = params.create_parameter([fan_in, fan_out], name=f"fc{layer}.weight", attr=attr)
            b = params.create_parameter([fan_out], name=f"fc{layer}.bias", attr=bias, is_bias=True)
            self.weights.append(w)
            self.biases.append(b)
            if attr is not plain:
                self.weights[-1].weight_v.regularizer = none

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
