"""What schedules take and refuse: arguments, steps, rates, and functions of the user."""

import inspect

import numpy as np
import pytest

from nbopt.errors import HyperparameterError
from tests.optimizer import expand
from tests.optimizer.schedules import lr

NAN, INF = float("nan"), float("inf")
T, H = TypeError, HyperparameterError


def one(epoch):
    return 1.0


# Legal arguments of every schedule, by keyword.
GOOD = {
    "NoamDecay": {"d_model": 64, "warmup_steps": 4, "learning_rate": 1.0},
    "PiecewiseDecay": {"boundaries": [2, 4], "values": [0.3, 0.2, 0.1]},
    "NaturalExpDecay": {"learning_rate": 0.5, "gamma": 0.1},
    "InverseTimeDecay": {"learning_rate": 0.5, "gamma": 0.1},
    "PolynomialDecay": {"learning_rate": 0.5, "decay_steps": 5},
    "LinearWarmup": {"learning_rate": 0.5, "warmup_steps": 5, "start_lr": 0.0, "end_lr": 0.5},
    "ExponentialDecay": {"learning_rate": 0.5, "gamma": 0.9},
    "MultiStepDecay": {"learning_rate": 0.5, "milestones": [2, 5]},
    "StepDecay": {"learning_rate": 0.5, "step_size": 3},
    "LambdaDecay": {"learning_rate": 0.5, "lr_lambda": one},
    "ReduceOnPlateau": {"learning_rate": 0.5},
    "CosineAnnealingDecay": {"learning_rate": 0.5, "T_max": 5},
    "MultiplicativeDecay": {"learning_rate": 0.5, "lr_lambda": one},
    "OneCycleLR": {"max_learning_rate": 0.5, "total_steps": 10},
    "CyclicLR": {"base_learning_rate": 0.1, "max_learning_rate": 0.5, "step_size_up": 3},
    "LinearLR": {"learning_rate": 0.5, "total_steps": 5},
    "CosineAnnealingWarmRestarts": {"learning_rate": 0.5, "T_0": 3},
}
NO_NUMBERS = {"string": "0.1", "none": None, "true": True, "list": [0.1], "complex": 1j, "array": np.ones(2)}

# Rates: finite and >= 0. Steps: integers >= 1. Counts: integers >= 0.
RATES = {
    "learning_rate": GOOD.keys() - {"PiecewiseDecay", "OneCycleLR", "CyclicLR"},
    "max_learning_rate": {"OneCycleLR", "CyclicLR"},
    "base_learning_rate": {"CyclicLR"},
    "end_learning_rate": {"OneCycleLR"},
    "end_lr": {"PolynomialDecay", "LinearWarmup"},
    "start_lr": {"LinearWarmup"},
    "min_lr": {"ReduceOnPlateau"},
    "eta_min": {"CosineAnnealingDecay", "CosineAnnealingWarmRestarts"},
    "threshold": {"ReduceOnPlateau"},
    "epsilon": {"ReduceOnPlateau"},
}
STEPS = {
    "d_model": {"NoamDecay"},
    "warmup_steps": {"NoamDecay", "LinearWarmup"},
    "decay_steps": {"PolynomialDecay"},
    "step_size": {"StepDecay"},
    "T_max": {"CosineAnnealingDecay"},
    "T_0": {"CosineAnnealingWarmRestarts"},
    "T_mult": {"CosineAnnealingWarmRestarts"},
    "total_steps": {"OneCycleLR", "LinearLR"},
    "step_size_up": {"CyclicLR"},
    "step_size_down": {"CyclicLR"},
}
COUNTS = {"patience": {"ReduceOnPlateau"}, "cooldown": {"ReduceOnPlateau"}}
FUNCTIONS = {"lr_lambda": {"LambdaDecay", "MultiplicativeDecay"}, "scale_fn": {"CyclicLR"}}
WORDS = {
    "mode": {"ReduceOnPlateau", "CyclicLR"},
    "threshold_mode": {"ReduceOnPlateau"},
    "anneal_strategy": {"OneCycleLR"},
    "scale_mode": {"CyclicLR"},
}
FLAGS = {"cycle": {"PolynomialDecay"}, "three_phase": {"OneCycleLR"}, "verbose": GOOD.keys()}
LISTS = {"boundaries": {"PiecewiseDecay"}, "milestones": {"MultiStepDecay"}, "values": {"PiecewiseDecay"}}
STARTS = {"last_epoch": GOOD.keys() - {"ReduceOnPlateau"}}

# Numbers with bounds of their own.
OWN = {
    "NaturalExpDecay gamma": {"0": (0, "> 0 0"), "negative": (-0.1, "> 0 -0.1")},
    "InverseTimeDecay gamma": {"negative": (-0.1, ">= 0 -0.1")},
    "ExponentialDecay gamma": {"0": (0, "> 0 < 1"), "1": (1, "< 1 1.0"), "S23-negative": (-2, "> 0 -2.0")},
    "MultiStepDecay gamma": {"1": (1.0, "< 1 1.0"), "S23-negative": (-2, ">= 0 -2.0")},
    "StepDecay gamma": {"1": (1, "< 1 1.0"), "S23-negative": (-0.1, ">= 0 -0.1")},
    "PolynomialDecay power": {"0": (0, "> 0 0.0"), "negative": (-1, "> 0 -1.0")},
    "OneCycleLR phase_pct": {"negative": (-0.1, ">= 0 <= 1 -0.1"), "2": (2, "<= 1 2.0")},
    "OneCycleLR divide_factor": {"0": (0, "> 0 0.0"), "negative": (-25, "> 0 -25.0")},
    "CyclicLR exp_gamma": {"0": (0, "> 0 0.0"), "negative": (-0.5, "> 0 -0.5")},
    "LinearLR start_factor": {"0": (0, "> 0 <= 1 0.0"), "S23-2": (2, "<= 1 2.0")},
    "LinearLR end_factor": {"negative": (-0.1, ">= 0 -0.1"), "2": (2.0, "<= 1 2.0")},
    "ReduceOnPlateau factor": {"1": (1.0, "< 1 1.0"), "negative": (-0.1, ">= 0 -0.1")},
}


def pairs(table):
    return [(kind, argument) for argument, kinds in table.items() for kind in sorted(kinds)]


def cases():
    """(schedule, arguments that replace the good ones, error, words of the message)."""
    bad_numbers = {"nan": (NAN, H, "finite nan"), "inf": (INF, H, "finite inf"), "-inf": (-INF, H, "-inf")}
    bad_numbers |= {key: (value, T, "number") for key, value in NO_NUMBERS.items()}
    bad_integers = {"float": (1.0, T, "integer 1.0"), "nan": (NAN, T, "integer nan")}
    bad_integers |= {key: (value, T, "integer") for key, value in NO_NUMBERS.items()}
    huge = {"huge": (2**63, H, "< 2**63"), "no-float": (10**400, H, "< 2**63")}
    rows = [
        (RATES, bad_numbers | {"negative": (-0.1, H, ">= 0 -0.1")}),
        (STEPS, bad_integers | {"0": (0, H, ">= 1 0"), "S16-negative": (-3, H, ">= 1 -3")} | huge),
        (COUNTS, bad_integers | {"negative": (-1, H, ">= 0 -1")} | huge),
        (STARTS, bad_integers | {"-2": (-2, H, ">= -1 -2")} | huge),
        (FUNCTIONS, {"none": (None, T, "function"), "number": (0.5, T, "function 0.5")}),
        (WORDS, {"unknown": ("trinagular", H, "'trinagular' egal"), "number": (3, T, "one of 3")}),
        (FLAGS, {"1": (1, T, "True False int 1"), "none": (None, T, "True False")}),
        (
            LISTS,
            {
                "number": (3, T, "list 3"),
                "none": (None, T, "list None"),
                "string": ("123", T, "list"),
                "set": ({1, 2}, T, "list"),
                "of-strings": (["1", "2"], T, "[0] '1'"),
                "of-nan": ([1, NAN], (T, H), "[1] nan"),
                "negative": ([-1, 2], H, "[0] >= 0 -1"),
            },
        ),
    ]
    for table, bad in rows:
        for kind, argument in pairs(table):
            for label, (value, error, words) in bad.items():
                if (argument, label) in (("step_size_down", "none"), ("scale_fn", "none")):
                    continue  # the default
                yield f"{kind}-{argument}-{label}", kind, {argument: value}, error, f"{argument} {words}"
    for where, bad in OWN.items():
        kind, argument = where.split()
        for label, (value, words) in bad.items():
            yield f"{kind}-{argument}-{label}", kind, {argument: value}, H, f"{argument} {words}"
        for label, (value, error, words) in bad_numbers.items():
            yield f"{kind}-{argument}-{label}", kind, {argument: value}, error, f"{argument} {words}"


# Where several arguments have to agree.
TOGETHER = {
    "S23-unsorted": ("MultiStepDecay", {"milestones": [5, 2]}, H, "milestones increase [5, 2]"),
    "twice": ("MultiStepDecay", {"milestones": (2, 2)}, H, "milestones increase"),
    "unsorted-boundaries": ("PiecewiseDecay", {"boundaries": [5, 2]}, H, "boundaries increase"),
    "no-boundaries": ("PiecewiseDecay", {"boundaries": [], "values": [1.0]}, H, "boundaries 0 1"),
    "too-few-values": ("PiecewiseDecay", {"values": [0.1, 0.2]}, H, "one more values 2 boundaries 2 values"),
    "surplus-values": ("PiecewiseDecay", {"values": [0.1] * 4}, H, "one more 4 values"),
    "warm-up-down": ("LinearWarmup", {"start_lr": 0.5, "end_lr": 0.1}, H, "end_lr > start_lr 0.1 0.5"),
    "warm-up-level": ("LinearWarmup", {"start_lr": 0.5}, H, "end_lr > start_lr 0.5"),
    "warm-up-class": ("LinearWarmup", {"learning_rate": lr.StepDecay}, T, "learning_rate number schedule"),
    "warm-up-plateau": (
        "LinearWarmup",
        {"learning_rate": lr.ReduceOnPlateau(0.1)},
        T,
        "learning_rate ReduceOnPlateau metric set_lr_scheduler",
    ),
    "three-phases": ("OneCycleLR", {"phase_pct": 0.5, "three_phase": True}, H, "phase_pct 0.5 three_phase"),
    "start-overflows": ("OneCycleLR", {"divide_factor": 1e-320}, H, "divide_factor inf"),
    "unhashable-word": ("CyclicLR", {"mode": ["triangular"]}, T, "mode ['triangular']"),
}


@pytest.mark.parametrize(
    ("kind", "change", "error", "words"),
    [pytest.param(*case, id=label) for label, *case in cases()] + expand("together-", TOGETHER),
)
def test_argument_refused(kind, change, error, words):
    with pytest.raises(error) as caught:
        getattr(lr, kind)(**GOOD[kind] | change)
    missing = [word for word in f"{kind} {words}".split() if word not in str(caught.value)]
    assert not missing, str(caught.value)


def test_every_argument_is_in_a_table():
    tables = RATES, STEPS, COUNTS, STARTS, FUNCTIONS, WORDS, FLAGS, LISTS
    named = {pair for table in tables for pair in pairs(table)} | {tuple(key.split()) for key in OWN}
    found = {(kind, name) for kind in GOOD for name in inspect.signature(getattr(lr, kind)).parameters}
    assert named == found
    assert GOOD.keys() | {"LRScheduler"} == set(lr.__all__)


@pytest.mark.parametrize("kind", GOOD)
def test_good_arguments(kind):
    """Numbers of NumPy too, by position too, and they give the same."""
    numbers = {k: np.int64(v) if type(v) is int else v for k, v in GOOD[kind].items()}
    numbers = {k: np.float64(v) if type(v) is float else v for k, v in numbers.items()}
    schedule, again = getattr(lr, kind)(**GOOD[kind]), getattr(lr, kind)(*numbers.values())
    metric = [1.0] if kind == "ReduceOnPlateau" else []
    for _ in range(12):
        assert (schedule(), type(again())) == (again(), float)
        schedule.step(*metric)
        again.step(*metric)


def test_ends_of_ranges():
    lr.NoamDecay(1, 1, 0)
    lr.MultiStepDecay(0, (), 0)
    lr.InverseTimeDecay(0.5, 0)
    lr.PolynomialDecay(0.0, 1, 0, 1e-300).step(10**18)
    lr.LinearLR(0.5, 1, 1, 0).step(1)
    lr.ReduceOnPlateau(0, "max", 0, 0, 0, "abs", 0, 0, 0)
    lr.CyclicLR(0, 0, 1, 1, "exp_range", 5.0).step(3)
    lr.CyclicLR(0.1, 0.2, 1, mode=None, scale_fn=one)  # a mode that is not used


def test_lists_are_copied():
    milestones = [2, 5]
    schedule = lr.MultiStepDecay(0.5, milestones)
    milestones.clear()
    schedule.step(5)
    assert schedule() == 0.5 * 0.1**2


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "error", "words"),
    [
        (-1, H, "epoch >= 0 -1"),
        (2**63, H, "epoch < 2**63"),
        (1.0, T, "epoch integer 1.0"),
        (NAN, T, "epoch integer nan"),
        ("1", T, "epoch integer '1'"),
        (True, T, "epoch integer True"),
        ([1], T, "epoch integer [1]"),
    ],
)
@pytest.mark.parametrize("kind", ["StepDecay", "CosineAnnealingWarmRestarts", "ReduceOnPlateau"])
def test_step_refused(kind, epoch, error, words):
    schedule = getattr(lr, kind)(**GOOD[kind])
    metric = [1.0] if kind == "ReduceOnPlateau" else []
    schedule.step(*metric, 4)
    before = schedule.state_dict()
    with pytest.raises(error) as caught:
        schedule.step(*metric, epoch)
    assert [word for word in f"{kind} {words}".split() if word not in str(caught.value)] == []
    assert schedule.state_dict() == before


@pytest.mark.parametrize("number", [-5, 2**63 - 1, 1.5, None])
def test_a_step_number_set_by_hand_is_checked(number):
    for schedule, metric in ((lr.NoamDecay(4, 2), []), (lr.ReduceOnPlateau(0.5), [1.0])):
        schedule.last_epoch = number
        with pytest.raises((T, H)):
            schedule.step(*metric)
        assert schedule.last_epoch == number


@pytest.mark.parametrize("metric", [None, "1", True, 1j, [1.0, 2.0], np.ones(2), np.array([]), {}, object()])
def test_metric_refused(metric):
    schedule = lr.ReduceOnPlateau(0.5, patience=0)
    schedule.step(1.0)
    before = schedule.state_dict()
    with pytest.raises(TypeError, match=r"ReduceOnPlateau metrics must be a number"):
        schedule.step(metric)
    assert schedule.state_dict() == before


def test_a_plateau_needs_a_metric():
    with pytest.raises(TypeError, match="metrics"):
        lr.ReduceOnPlateau(0.5).step()


# --- rates that no optimizer can take -------------------------------------------------------------

BAD_RATES = {
    "S15-nan": (NAN, H, "finite nan"),
    "inf": (INF, H, "finite inf"),
    "S23-negative": (-1, H, ">= 0 -1.0"),
    "none": (None, T, "number None"),
    "string": ("0.1", T, "number '0.1'"),
    "true": (True, T, "number True"),
    "array": (np.ones(2), T, "number"),
    "complex": (1j, T, "number"),
}


def makes(value):
    """Schedules that give `value` at step 3."""

    class Own(lr.LRScheduler):
        def get_lr(self):
            return factor(self.last_epoch)

    def factor(epoch):
        return value if epoch == 3 else 1.0

    inner = Own(1.0)
    return {
        "own": Own(1.0),
        "lambda": lr.LambdaDecay(1.0, factor),
        "multiplicative": lr.MultiplicativeDecay(1.0, factor),
        "cyclic": lr.CyclicLR(0.0, 1.0, 3, scale_fn=factor, scale_mode="iterations"),
        "inner": lr.LinearWarmup(Own(1.0), 1, 0.0, 1.0),
        "last": lr.LinearWarmup(inner, 1, 0.0, 1.0),
    }


@pytest.mark.parametrize(("value", "error", "words"), expand("", BAD_RATES))
@pytest.mark.parametrize("kind", makes(1.0))
def test_a_bad_rate_stops_at_its_step(kind, value, error, words):
    schedule = makes(value)[kind]
    bad = 4 if isinstance(schedule, lr.LinearWarmup) else 3
    schedule.step(bad - 1)
    before = schedule.state_dict()
    for epoch in (None, bad):
        with pytest.raises(error) as caught:
            schedule.step(epoch)
        assert [word for word in words.split() if word not in str(caught.value)] == []
        assert "3" in str(caught.value) or "4" in str(caught.value)  # which step
        assert schedule.state_dict() == before
    schedule.step(bad + 1 if kind != "multiplicative" else 1)
    assert schedule() >= 0.0


def test_an_error_of_the_user_comes_through():
    def fails(epoch):
        if epoch == 2:
            raise KeyError("mine")
        return 1.0

    for schedule in (lr.LambdaDecay(0.5, fails), lr.LinearWarmup(lr.LambdaDecay(0.5, fails), 1, 0.0, 0.5)):
        inner = getattr(schedule, "learning_rate", schedule)
        while inner.last_epoch < 1:
            schedule.step()
        before = schedule.state_dict()
        with pytest.raises(KeyError, match="mine"):
            schedule.step()
        assert schedule.state_dict() == before


def test_a_growing_scale_stops_where_it_overflows():
    schedule = lr.CyclicLR(0.1, 0.5, 1, mode="exp_range", exp_gamma=10.0)
    schedule.step(301)
    with pytest.raises(H, match="step 10001 must be a finite number"):
        schedule.step(10001)
    assert schedule.last_epoch == 301


def test_a_rate_set_by_hand_is_checked():
    schedule = lr.StepDecay(0.5, 1)
    for value, error in ((NAN, H), (-1.0, H), ("1", T), (None, T)):
        with pytest.raises(error):
            schedule.last_lr = value
    assert schedule.last_lr == 0.5


def test_the_base_class_has_no_rate():
    with pytest.raises(NotImplementedError, match="LRScheduler must define get_lr"):
        lr.LRScheduler(0.5)
