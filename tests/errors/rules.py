"""Wrong arguments of rules, schedules and averages."""

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.errors import NAN

lr = nb.optimizer.lr


def decayed(param, grad, lr, rate=0.5):
    return param - lr * (grad + rate * param)


def endless(param, grad, lr, *more):
    return param


def lost(param, velocity, grad, lr):
    return param - lr * grad


def printing(param, grad, lr):
    print(param)  # noqa: T201
    return param


def short(p, g):
    return p


def scaled(param, grad, lr, mu):
    return param - lr * mu * grad


def misnamed(param, grad, lr, momentum, name):
    return param


RULES = {
    "rule-number": (
        lambda m: nb.Optimizer(0.1, m.params),
        TypeError,
        "Optimizer takes a rule, a plain function or what nbopt.rule made of one, got 0.1",
    ),
    "rule-missing": (
        lambda m: nb.Optimizer(parameters=m.params),
        TypeError,
        "Optimizer: missing a required argument: 'rule'",
    ),
    "rule-form": (
        lambda m: nb.rule(short),
        TypeError,
        "short(p, g) is no update rule: write def rule(param, <accumulators>, grad, lr, <hyper-parameters>)",
    ),
    "rule-builtin": (
        lambda m: nb.rule(abs),
        TypeError,
        "an update rule is a plain function, got <built-in function abs>",
    ),
    "rule-variadic": (
        lambda m: nb.rule(endless),
        TypeError,
        "endless takes *more and is no update rule: write def rule(",
    ),
    "rule-lost": (
        lambda m: nb.Optimizer(nb.rule(lost), 0.1, m.params),
        TypeError,
        "lost must return param, velocity; it returns",
    ),
    "rule-prints": (
        lambda m: nb.Optimizer(nb.rule(printing), 0.1, m.params),
        TypeError,
        "printing ... print",
    ),
    "rule-takes-name": (
        lambda m: nb.Optimizer(misnamed, 0.1, m.params),
        TypeError,
        "Optimizer has an argument 'name' of its own; rename that of the rule misnamed",
    ),
    "rule-prepare": (
        lambda m: nb.rule(decayed, prepare=3),
        TypeError,
        "prepare of a rule is a plain function, got 3",
    ),
    "rule-prepare-form": (
        lambda m: nb.rule(decayed, prepare=short),
        TypeError,
        "short(p, g) prepares no rule: write def",
    ),
    "rule-hyper-unknown": (
        lambda m: nb.Optimizer(decayed, 0.1, m.params, rte=1.0),
        TypeError,
        "Optimizer got an unknown argument 'rte'; did you mean 'rate'?",
    ),
    "rule-hyper-text": (
        lambda m: nb.Optimizer(decayed, 0.1, m.params, rate="1"),
        TypeError,
        "Optimizer rate must be a number, got str '1'",
    ),
    "rule-hyper-missing": (
        lambda m: nb.Optimizer(scaled, 0.1, m.params),
        TypeError,
        "Optimizer needs mu=..., for which the rule scaled has no default",
    ),
}

SCHEDULES = {
    "schedule-base": (lambda m: lr.LRScheduler(0.1), NotImplementedError, "LRScheduler must define get_lr()"),
    "schedule-buffer": (
        lambda m: lr.StepDecay(m.params, 3),
        TypeError,
        "StepDecay learning_rate must be a number, got ParameterBuffer",
    ),
    "schedule-rate": (
        lambda m: lr.ExponentialDecay(-1, 0.5),
        HyperparameterError,
        "ExponentialDecay learning_rate must be a finite number >= 0, got -1.0",
    ),
    "schedule-missing": (
        lambda m: lr.StepDecay(0.1),
        TypeError,
        "StepDecay: missing a required argument: 'step_size'; write StepDecay(learning_rate, step_size,",
    ),
    "schedule-misspelt": (
        lambda m: lr.StepDecay(0.1, step=3),
        TypeError,
        "StepDecay got an unknown argument 'step'; did you mean 'step_size'?",
    ),
    "schedule-lr": (
        lambda m: lr.CosineAnnealingDecay(lr=0.1, T_max=3),
        TypeError,
        "'lr'; did you mean 'learning_rate'?",
    ),
    "schedule-step-zero": (
        lambda m: lr.StepDecay(0.1, 0),
        HyperparameterError,
        "StepDecay step_size must be >= 1, got 0",
    ),
    "schedule-t-max": (
        lambda m: lr.CosineAnnealingDecay(0.1, 0),
        HyperparameterError,
        "CosineAnnealingDecay T_max must be >= 1, got 0",
    ),
    "schedule-gamma": (
        lambda m: lr.ExponentialDecay(0.1, NAN),
        HyperparameterError,
        "ExponentialDecay gamma must be a finite number > 0 and < 1, got nan",
    ),
    "schedule-milestones": (
        lambda m: lr.MultiStepDecay(0.1, [5, 2]),
        HyperparameterError,
        "MultiStepDecay milestones must increase from each to the next, got [5, 2]",
    ),
    "schedule-values": (
        lambda m: lr.PiecewiseDecay([3], [0.1]),
        HyperparameterError,
        "PiecewiseDecay needs ... got 1 boundaries and 1 values",
    ),
    "schedule-lambda": (
        lambda m: lr.LambdaDecay(0.1, 0.5),
        TypeError,
        "LambdaDecay lr_lambda must be a function of a step number, got float 0.5",
    ),
    "schedule-lambda-negative": (
        lambda m: lr.LambdaDecay(0.1, lambda e: -1.0),
        HyperparameterError,
        "the rate of LambdaDecay at step 0 must be a finite number >= 0, got -0.1",
    ),
    "schedule-mode": (
        lambda m: lr.ReduceOnPlateau(0.1, mode="mni"),
        HyperparameterError,
        "ReduceOnPlateau mode 'mni' is unknown; did you mean 'min'?",
    ),
    "schedule-warmup-order": (
        lambda m: lr.LinearWarmup(0.1, 5, 0.5, 0.1),
        HyperparameterError,
        "LinearWarmup end_lr must be > start_lr, got 0.1 and start_lr=0.5",
    ),
    "schedule-warmup-plateau": (
        lambda m: lr.LinearWarmup(lr.ReduceOnPlateau(0.1), 5, 0.0, 0.1),
        TypeError,
        "LinearWarmup learning_rate cannot be a ReduceOnPlateau",
    ),
    "schedule-epoch": (
        lambda m: lr.StepDecay(0.1, 3, last_epoch=-2),
        HyperparameterError,
        "StepDecay last_epoch must be >= -1, got -2",
    ),
    "schedule-verbose": (
        lambda m: lr.StepDecay(0.1, 3, verbose=1),
        TypeError,
        "StepDecay verbose must be True or False, got int 1",
    ),
}

AVERAGES = {
    "average-buffer-first": (
        lambda m: nb.ModelAverage(m.params),
        TypeError,
        "ModelAverage needs parameters: write ModelAverage(..., parameters=params)",
    ),
    "average-rate": (
        lambda m: nb.ModelAverage(-1, m.params),
        HyperparameterError,
        "ModelAverage average_window_rate must be a finite number >= 0, got -1.0",
    ),
    "average-rate-misspelt": (
        lambda m: nb.ModelAverage(rate=0.1, parameters=m.params),
        TypeError,
        "'rate'; did you mean 'average_window_rate'?",
    ),
    "average-window-float": (
        lambda m: nb.ModelAverage(0.1, m.params, 2.5),
        TypeError,
        "ModelAverage min_average_window must be an integer, got float 2.5",
    ),
    "average-windows": (
        lambda m: nb.ModelAverage(0.1, m.params, 9, 3),
        HyperparameterError,
        "min_average_window must be <= max_average_window, got 9 > 3",
    ),
    "average-two-buffers": (
        lambda m: nb.ModelAverage(0.1, [m.w, m.other["b"]]),
        ParameterError,
        "ModelAverage got parameters of several buffers ('w', 'b', ...)",
    ),
    "ema-one": (
        lambda m: nb.ExponentialMovingAverage(1.0, m.params),
        HyperparameterError,
        "ExponentialMovingAverage decay ... >= 0 and < 1, got 1.0",
    ),
    "ema-thres": (
        lambda m: nb.ExponentialMovingAverage(0.9, m.params, "3"),
        TypeError,
        "ExponentialMovingAverage thres_steps must be a number, got str '3'",
    ),
    "ema-name": (
        lambda m: nb.ExponentialMovingAverage(0.9, m.params, name=""),
        ParameterError,
        "ExponentialMovingAverage name must not be empty",
    ),
}

TABLE = {**RULES, **SCHEDULES, **AVERAGES}
