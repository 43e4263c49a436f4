"""The update rules of `nbopt.optimizer`, written as a user writes one; see `nbopt.kernels.rule`."""

from __future__ import annotations

import math

from nbopt.kernels.rule import rule

__all__ = ["adam", "adam_amsgrad", "adamw", "adamw_amsgrad", "momentum", "sgd"]


@rule
def sgd(param, grad, lr):
    """Gradient descent (Robbins and Monro 1951)."""
    return param - lr * grad


@rule
def momentum(param, velocity, grad, lr, momentum, use_nesterov):
    """Heavy ball (Polyak 1964) without dampening; Nesterov's look-ahead as Sutskever et al. (2013)."""
    velocity = momentum * velocity + grad
    direction = velocity if use_nesterov == 0 else grad + momentum * velocity
    return param - lr * direction, velocity


# --- Adam (Kingma and Ba 2015, algorithm 1)


def correct(step, lr, beta1, beta2, epsilon):
    """Bias correction, in the rate and in epsilon instead of every element (the end of their section 2)."""
    root = math.sqrt(1 - beta2**step)
    return lr * root / (1 - beta1**step), beta1, beta2, epsilon * root


def correct_decoupled(step, lr, beta1, beta2, epsilon, weight_decay):
    """The same; the decay takes the rate before its correction."""
    corrected, beta1, beta2, epsilon = correct(step, lr, beta1, beta2, epsilon)
    return corrected, beta1, beta2, epsilon, lr * weight_decay


@rule(prepare=correct)
def adam(param, moment1, moment2, grad, lr, beta1, beta2, epsilon):
    """Adam."""
    moment1 = beta1 * moment1 + (1 - beta1) * grad
    moment2 = beta2 * moment2 + (1 - beta2) * grad * grad
    return param - lr * moment1 / (math.sqrt(moment2) + epsilon), moment1, moment2


@rule(prepare=correct)
def adam_amsgrad(param, moment1, moment2, moment2_max, grad, lr, beta1, beta2, epsilon):
    """Adam over the largest second moment so far (Reddi et al. 2018, algorithm 2), taken uncorrected."""
    moment1 = beta1 * moment1 + (1 - beta1) * grad
    moment2 = beta2 * moment2 + (1 - beta2) * grad * grad
    moment2_max = max(moment2_max, moment2)
    return param - lr * moment1 / (math.sqrt(moment2_max) + epsilon), moment1, moment2, moment2_max


@rule(prepare=correct_decoupled)
def adamw(param, moment1, moment2, grad, lr, beta1, beta2, epsilon, weight_decay):
    """Adam after a decay of its own (Loshchilov and Hutter 2019, algorithm 2)."""
    return adam(param - weight_decay * param, moment1, moment2, grad, lr, beta1, beta2, epsilon)


@rule(prepare=correct_decoupled)
def adamw_amsgrad(param, moment1, moment2, moment2_max, grad, lr, beta1, beta2, epsilon, weight_decay):
    """AdamW over the largest second moment so far."""
    decayed = param - weight_decay * param
    return adam_amsgrad(decayed, moment1, moment2, moment2_max, grad, lr, beta1, beta2, epsilon)
