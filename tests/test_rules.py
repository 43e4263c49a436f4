"""The rules of the gallery against NumPy, under every policy of parameters, groups and optimizers.

The reference is the oracle with the same rule written for arrays.
"""

import functools
import importlib.util

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import NonFiniteGradientError
from tests import oracle
from tests.kernels import ROOT
from tests.optimizer import Twin, gradients, picture, small
from tests.oracle import Clip, Decay

for package in ("sklearn", "matplotlib"):
    pytest.importorskip(package)

spec = importlib.util.spec_from_file_location("gallery_rules", ROOT / "docs" / "gallery" / "rules.py")
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


# --- the same rules for arrays --------------------------------------------------------------------


def kept(param, name, grad):
    return param.state.get(name, np.zeros_like(grad))


def heavy_ball(param, grad, lr, momentum=0.9):
    param.state["velocity"] = momentum * kept(param, "velocity", grad) + grad
    return param.value - lr * param.state["velocity"]


def adagrad(param, grad, lr, epsilon=1e-10):
    param.state["total"] = kept(param, "total", grad) + grad**2
    return param.value - lr * grad / (np.sqrt(param.state["total"]) + epsilon)


def rmsprop(param, grad, lr, rho=0.99, epsilon=1e-8):
    param.state["square"] = rho * kept(param, "square", grad) + (1 - rho) * grad**2
    return param.value - lr * grad / (np.sqrt(param.state["square"]) + epsilon)


def lion(param, grad, lr, beta1=0.9, beta2=0.99, weight_decay=None):
    moment = kept(param, "moment", grad)
    param.state["moment"] = beta2 * moment + (1 - beta2) * grad
    sign = np.sign(beta1 * moment + (1 - beta1) * grad)
    return param.value - lr * (sign + (weight_decay or 0.0) * param.value)


ARRAYS = {"heavy_ball": heavy_ball, "adagrad": adagrad, "rmsprop": rmsprop, "lion": lion}
every_rule = pytest.mark.parametrize("name", ARRAYS)


@pytest.fixture(autouse=True)
def _known_to_the_oracle(monkeypatch):
    for name, function in ARRAYS.items():
        monkeypatch.setitem(oracle.RULES, name, function)


def twin(name, **options):
    make = functools.partial(nb.Optimizer, getattr(gallery, name))
    values = {"w": np.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": [0.5, -2.0, 0.0], "k": [1.0, -1.0]}
    return Twin(name, values, make=make, **{"learning_rate": 0.05, **options})


def decay_of(name, decay):
    """A decay as the rule takes it: of one that decays by itself, the number."""
    return decay.l2 if name == "lion" else decay


# --- policies -------------------------------------------------------------------------------------

HYPER = {
    "heavy_ball": {"momentum": 0.5},
    "adagrad": {"epsilon": 0.1},
    "rmsprop": {"rho": 0.5},
    "lion": {"beta1": 0.3},
}
POLICIES = {
    "plain": {},
    "clip-value": {"grad_clip": Clip("value", 0.5, -0.2)},
    "clip-norm": {"grad_clip": Clip("norm", 0.7)},
    "clip-global": {"grad_clip": Clip("global", 0.9)},
    "decay": {"weight_decay": Decay(l2=0.3)},
    "regularizers": {"attrs": {"w": {"regularizer": Decay(l1=0.1)}, "b": {"regularizer": Decay(l2=0.2)}}},
    "multipliers": {"attrs": {"w": {"learning_rate": 0.5}, "k": {"learning_rate": 0.0}}},
    "frozen": {"attrs": {"b": {"trainable": False}}, "grad_clip": Clip("global", 0.9)},
    "need-clip": {"attrs": {"w": {"need_clip": False}}, "grad_clip": Clip("global", 0.9)},
    "weight-norm": {"dims": {"w": 0}, "grad_clip": Clip("global", 0.9), "weight_decay": Decay(l2=0.1)},
    "rescale": {"rescale_grad": 0.5, "grad_clip": Clip("norm", 0.3)},
}


ROWS = [
    # Each rule with weight norm is a kernel that takes long to compile; one stands for all.
    pytest.param(name, policy, marks=[pytest.mark.slow] if policy == "weight-norm" and name != "lion" else [])
    for name in HYPER
    for policy in POLICIES
]


@pytest.mark.parametrize(("name", "policy"), ROWS)
def test_policy(name, policy):
    """Eight steps, with gradients that are absent now and then."""
    options = dict(POLICIES[policy])
    if "weight_decay" in options:
        options["weight_decay"] = decay_of(name, options["weight_decay"])
    model = twin(name, **options)
    for t in range(8):
        grads = gradients(model.params, seed=t)
        if t in (0, 2, 3):
            del grads["b"]
        model.step(grads)


@every_rule
def test_groups_and_edits(name):
    """A hyper-parameter, a rate and a decay of a group, some set between steps."""
    ((key, value),) = HYPER[name].items()
    groups = [
        {"params": ["w"], key: value, "weight_decay": decay_of(name, Decay(l2=0.2))},
        {"params": ["b", "k"], "learning_rate": 0.5, "grad_clip": Clip("global", 0.3)},
    ]
    model = twin(name, groups=groups)
    for t in range(6):
        if t == 3:
            model.edit(1, key, value)
            model.edit(0, "learning_rate", 2.0)
            model.edit(0, "weight_decay", decay_of(name, Decay(l2=0.1)))
        model.step(gradients(model.params, seed=t))


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
@every_rule
def test_a_non_finite_gradient(name, nonfinite):
    """Nothing changes but the count of skipped steps, or arithmetic goes on in the element alone."""
    params = small()
    opt = nb.Optimizer(getattr(gallery, name), 0.1, params, nonfinite=nonfinite)
    opt.step(gradients(params))
    bad = gradients(params, seed=2)
    bad["b"][1] = np.nan
    before, others = params.numpy(), picture(params, opt)["states"][0]
    if nonfinite == "raise":
        with pytest.raises(NonFiniteGradientError, match="'b'"):
            opt.step(bad)
    else:
        opt.step(bad)
    if nonfinite == "propagate":
        expected = [[False] * 3, [False, name != "lion", False]]
        assert [np.isnan(params[key].value).reshape(-1)[:3].tolist() for key in "wb"] == expected
        assert opt.step_count == 2
        return
    for key, value in before.items():
        assert_array_equal(params[key].value, value)
    after = picture(params, opt)["states"][0]
    changed = {key for key in others if others[key] != after[key]}
    assert changed <= {"steps_skipped", "steps_skipped_in_a_row"}
    assert opt.steps_skipped == 1
