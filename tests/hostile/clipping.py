"""The clip by value."""

import math

import numpy as np

import nbopt as nb
from nbopt.errors import HyperparameterError, NonFiniteGradientError
from tests.hostile import F32, F64, buffer, refused, same, stepped


def by_value(grads, dtype, high, low=None):
    """Clipped gradients, alike from a clip on arrays, in a step and, where it can say it, in place."""
    grads = np.asarray(grads, dtype)
    clip = nb.ClipGradByValue(high, low)
    clipped = clip({"w": grads})["w"]
    moved = stepped(np.zeros_like(grads), grads, dtype, grad_clip=clip, nonfinite="propagate")[1]
    same(moved + 0.0, 0.0 - clipped)  # + 0.0: the sign of a zero
    if low is None:
        params = buffer(dtype, w=np.zeros_like(grads))
        params.set_grads({"w": grads})
        nb.clip_grad_value_(params, high)
        same(params["w"].grad, clipped)
    return clipped


def low_above_high():
    refused(lambda: nb.ClipGradByValue(-2.0, 2.0), HyperparameterError, "min <= max")


def low_nan():
    refused(lambda: nb.ClipGradByValue(1.0, math.nan), HyperparameterError, "min")


def negative():
    refused(lambda: nb.ClipGradByValue(-1.0), HyperparameterError, "max")
    refused(lambda: nb.clip_grad_value_([], -1.0), HyperparameterError, "clip_value")
    refused(lambda: nb.ClipGradByValue(math.nan, -1.0), HyperparameterError, "max")


def a_nan():
    refused(lambda: nb.ClipGradByValue(math.nan), HyperparameterError, "max")
    refused(lambda: nb.clip_grad_value_([], math.nan), HyperparameterError, "clip_value")


def bad_elements():
    grads = [-3.0, 0.5, math.nan, math.inf]
    clip = nb.ClipGradByValue(1.0)
    error = refused(
        lambda: stepped([0.0] * 4, grads, grad_clip=clip), NonFiniteGradientError, "'w' is nan at (2,)"
    )
    assert (error.name, error.index) == ("w", (2,))
    refused(lambda: stepped([0.0], [math.inf], grad_clip=clip), NonFiniteGradientError, "'w' is inf")
    opt, values = stepped([0.0] * 4, grads, grad_clip=clip, nonfinite="skip")
    assert opt.steps_skipped == 1
    same(values, F32([0, 0, 0, 0]))
    for dtype in (F32, F64):
        same(by_value(grads, dtype, 1.0), dtype([-1.0, 0.5, math.nan, 1.0]))


def zero():
    for dtype in (F32, F64):
        same(by_value([-3.0, 2.0, 0.0], dtype, 0.0), dtype([0.0, 0.0, 0.0]))


def beyond_the_dtype():
    grads = [1.0, -65504.0]
    same(nb.ClipGradByValue(1e5)({"w": np.float16(grads)})["w"], F64(grads))
    same(by_value([3e38, -3e38], F32, 1e39), F32([3e38, -3e38]))
