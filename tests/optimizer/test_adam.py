"""Adam and AdamW: beside the oracle, what decays and what does not, and what they refuse."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError
from tests.optimizer import Twin, expand, gradients, picture, refuses, small
from tests.oracle import Clip, Decay

NAN, INF = float("nan"), float("inf")
VALUES = {"w": np.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": [0.5, -2.0, 0.0], "k": [1.0, -1.0]}

# --- beside the oracle ----------------------------------------------------------------------------

POLICIES = {
    "plain": {},
    "betas": {"beta1": 0.0, "beta2": 0.5, "epsilon": 0.01},
    "amsgrad": {"amsgrad": True, "beta2": 0.5},
    "clip": {"grad_clip": Clip("global", 0.7)},
    "groups": {
        "groups": [
            {"params": ["w"], "beta1": 0.5, "learning_rate": 0.5},
            {"params": ["b"], "epsilon": 0.1, "beta2": 0.9},
            {"params": ["k"], "rescale_grad": 3.0},
        ]
    },
    "attributes": {
        "attrs": {"w": {"learning_rate": 0.5, "regularizer": Decay(l1=0.1)}, "b": {"trainable": False}}
    },
    "weight-norm": {"dims": {"w": 0}, "grad_clip": Clip("norm", 0.5)},
}
DECAYS = {
    "Adam": {"none": None, "l2": Decay(l2=0.3), "l1": Decay(l1=0.2)},
    "AdamW": {"none": None, "decoupled": 0.3},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("rule", "decay"), [(rule, decay) for rule in DECAYS for decay in DECAYS[rule]])
def test_steps_of_the_oracle(rule, decay, policy):
    """Ten steps; a parameter skips some, and its own count of steps with them."""
    decayed = {"weight_decay": DECAYS[rule][decay]}
    twin = Twin(rule, VALUES, learning_rate=0.05, **POLICIES[policy], **decayed)
    for t in range(10):
        grads = gradients(twin.params, seed=t)
        if t in (0, 3, 4):
            del grads["b"]
        twin.step(grads)


def test_a_group_decays_by_its_own_number():
    groups = [
        {"params": ["w"], "weight_decay": 0.5},
        {"params": ["b"], "weight_decay": None},
        {"params": ["k"]},
    ]
    twin = Twin("AdamW", VALUES, groups=groups, weight_decay=0.1)
    for t in range(4):
        if t == 2:
            twin.edit(0, "weight_decay", 0.25)
            twin.edit(2, "learning_rate", 0.5)
        twin.step(gradients(twin.params, seed=t))


@pytest.mark.parametrize("dims", [{}, {"w": 1}], ids=["plain", "weight-norm"])
def test_functions_of_a_parameter(dims):
    """A ratio multiplies the rate, of the decay too; edits of groups keep both; g and v go with w."""
    ratios, without = {"w": 0.5, "b": 0.0, "k": 1.0}, {"k"}
    attrs = {name: {"learning_rate": ratio, "decays": name not in without} for name, ratio in ratios.items()}
    seen = []
    twin = Twin(
        "AdamW",
        VALUES,
        attrs=attrs,
        dims=dims,
        weight_decay=0.3,
        groups=[{"params": ["w", "k"]}, {"params": ["b"], "weight_decay": 0.9}],
        functions={
            "lr_ratio": lambda p: seen.append(p.name) or ratios[p.name],
            "apply_decay_param_fun": lambda name: name not in without,
        },
    )
    for parameter in twin.params.values():
        parameter.learning_rate = 1.0  # the ratio is all
    assert seen == ["w", "k", "b"]
    for t in range(6):
        if t == 3:
            twin.edit(0, "weight_decay", 0.2)
            twin.edit(1, "learning_rate", 2.0)
        twin.step(gradients(twin.params, seed=t))


def test_a_regularizer_comes_on_top_of_the_decoupled_decay():
    attrs = {"w": {"regularizer": Decay(l2=0.5)}, "k": {"regularizer": Decay(l1=0.5)}}
    twin = Twin("AdamW", VALUES, attrs=attrs, weight_decay=0.3)
    alone = Twin("Adam", VALUES, attrs=attrs)
    for t in range(3):
        twin.step(gradients(twin.params, seed=t))
        alone.step(gradients(alone.params, seed=t))
    assert not np.allclose(twin.params["w"].value, alone.params["w"].value)


def test_paddle_numbers():
    """The first step is the rate, whatever the gradient; the decay takes the rate before the correction."""
    start, grad = [1.0, -2.0, 0.0, 0.5], [0.1, 0.2, 0.3, -0.4]

    def stepped(kind, **options):
        params = nb.ParameterBuffer.from_arrays({"p": start})
        opt = kind(0.1, parameters=params, **options)
        opt.step({"p": grad})
        return params["p"].numpy()

    assert_allclose(stepped(nb.optimizer.Adam), [0.9, -2.1, -0.1, 0.6], rtol=1e-6)
    assert_allclose(stepped(nb.optimizer.Adam, epsilon=0.1), [0.95, -2.06666667, -0.075, 0.58], rtol=1e-6)
    params = nb.ParameterBuffer.from_arrays({"p": start})
    nb.optimizer.AdamW(0.1, parameters=params, weight_decay=0.1).step({"p": np.zeros(4)})
    assert_array_equal(params["p"].value, np.array(start) - 0.1 * 0.1 * np.array(start))


def test_half_of_the_bits_are_enough():
    """float32 storage after a thousand steps is float64 but for rounding: the correction fits the betas."""
    results = []
    for dtype in ("float32", "float64"):
        params = nb.ParameterBuffer.from_arrays({"p": np.zeros(4)}, dtype=dtype)
        opt = nb.optimizer.Adam(0.001, parameters=params)
        for _ in range(1000):
            opt.step({"p": [1.0, -1.0, 0.01, 100.0]})
        results.append(params["p"].numpy())
    assert_allclose(results[0], results[1], rtol=3e-5)
    assert_allclose(results[1], [-1.0, 1.0, -1.0, -1.0], rtol=1e-5)


# --- what they keep and take ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nb.optimizer.Adam, nb.optimizer.AdamW])
def test_accumulators_and_defaults(kind):
    opt = kind(parameters=small())
    expected = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "grad_clip": None, "rescale_grad": 1.0}
    expected["weight_decay"] = 0.01 if kind is nb.optimizer.AdamW else None
    assert {key: opt.param_groups[0][key] for key in expected} == expected
    assert opt.get_lr() == 0.001
    assert [key for key in opt.state_dict() if key.startswith("b.")] == ["b.moment1", "b.moment2", "b.step"]
    kept = kind(parameters=small(), amsgrad=True).state_dict()
    assert "b.moment2_max" in kept


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kind", [nb.optimizer.Adam, nb.optimizer.AdamW])
def test_going_on_from_a_state_is_exact(kind, amsgrad):
    params, again = small("float32"), small("float32")
    opt, other = (kind(0.1, parameters=p, amsgrad=amsgrad) for p in (params, again))
    for t in range(3):
        opt.step(gradients(params, t))
    other.set_state_dict(opt.state_dict())
    again.from_vector(params.to_vector(space="trainable"), space="trainable")
    for t in range(3):
        opt.step(gradients(params, 9 + t))
        other.step(gradients(again, 9 + t))
    assert params.fingerprint() == again.fingerprint()


def test_copies_keep_what_the_functions_answered():
    params = small()
    opt = nb.optimizer.AdamW(
        0.1,
        parameters=[params["w"], params["b"]],
        weight_decay=0.5,
        lr_ratio=lambda p: 0.5 if p.name == "w" else 1.0,
        apply_decay_param_fun=lambda name: name != "b",
    )
    grads = gradients(params)
    copies = [copy.deepcopy((params, opt)), pickle.loads(pickle.dumps((params, opt)))]
    opt.step(grads)
    for others, other in copies:
        other.step(grads)
        assert others.fingerprint() == params.fingerprint()
        group = {"params": others["k"]}
        refuses(lambda o=other, g=group: o.add_param_group(g), TypeError, "copy lr_ratio", others, other)
    opt.add_param_group({"params": params["k"], "weight_decay": 0.0})
    assert len(opt.param_groups) == 2

    params = small()
    plain = copy.deepcopy(nb.optimizer.AdamW(parameters=[params["w"]]))
    plain.add_param_group({"params": plain._buffer["b"]})


# --- refused --------------------------------------------------------------------------------------

ADAM = {
    "beta1": ({"beta1": 1.0}, HyperparameterError, "beta1 >= 0 < 1 1.0"),
    "beta2-negative": ({"beta2": -0.1}, HyperparameterError, "beta2 >= 0 < 1"),
    "beta2-nan": ({"beta2": NAN}, HyperparameterError, "beta2 nan"),
    "beta1-none": ({"beta1": None}, TypeError, "beta1 number None"),
    "beta2-1-in-float32": ({"beta2": 1 - 1e-9}, HyperparameterError, "beta2 float32"),
    "epsilon": ({"epsilon": -1e-8}, HyperparameterError, "epsilon >= 0"),
    "epsilon-inf": ({"epsilon": INF}, HyperparameterError, "epsilon inf"),
    "epsilon-text": ({"epsilon": "1e-8"}, TypeError, "epsilon number"),
    "amsgrad": ({"amsgrad": 1}, TypeError, "amsgrad True False 1"),
    "lazy": ({"lazy_mode": None}, TypeError, "lazy_mode"),
    "multi-precision": ({"multi_precision": 0}, TypeError, "multi_precision"),
    "group": ({"beta": 0.9}, TypeError, "beta"),
}
ADAMW = {
    "decay-l2": ({"weight_decay": nb.regularizer.L2Decay(0.1)}, TypeError, "weight_decay number"),
    "decay-negative": ({"weight_decay": -0.1}, HyperparameterError, "weight_decay >= 0"),
    "ratio-number": ({"lr_ratio": 0.5}, TypeError, "AdamW lr_ratio function 0.5"),
    "ratio-negative": ({"lr_ratio": lambda p: -1.0}, HyperparameterError, "lr_ratio 'w' >= 0 -1.0"),
    "ratio-none": ({"lr_ratio": lambda p: None}, TypeError, "lr_ratio 'w' number None"),
    "decays-list": ({"apply_decay_param_fun": ["w"]}, TypeError, "apply_decay_param_fun function"),
    "decays-raises": ({"apply_decay_param_fun": lambda name: {}[name]}, KeyError, "w"),
}


@pytest.mark.parametrize(("options", "error", "words"), expand("", ADAM))
@pytest.mark.parametrize("kind", [nb.optimizer.Adam, nb.optimizer.AdamW])
def test_argument_refused(kind, options, error, words):
    params = small("float32")
    refuses(lambda: kind(parameters=params, **options), error, words, params)


@pytest.mark.parametrize(("options", "error", "words"), expand("", ADAMW))
def test_argument_of_adamw_refused(options, error, words):
    params = small()
    refuses(lambda: nb.optimizer.AdamW(parameters=params, **options), error, words, params)


def test_parameters_in_the_place_of_a_number():
    for kind in (nb.optimizer.Adam, nb.optimizer.AdamW):
        with pytest.raises(TypeError, match=r"place of beta1: write AdamW?\(\.\.\., parameters=params\)"):
            kind(0.1, small())


def test_a_refused_group_changes_nothing():
    params = small()
    opt = nb.optimizer.AdamW(parameters=[params["w"]], lr_ratio=lambda p: {"w": 1.0}[p.name])
    opt.step({"w": np.ones((2, 3))})
    before = picture(params, opt)
    with pytest.raises(KeyError):
        opt.add_param_group({"params": params["b"]})
    assert picture(params, opt) == before


@pytest.mark.parametrize("kind", [nb.optimizer.Adam, nb.optimizer.AdamW])
def test_moments_are_formed_in_the_precision_of_the_parameters(kind):
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(400, np.float32)})
    opt = kind(0.1, parameters=params)
    grad = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    opt.step({"w": grad})
    share = np.float32(1) - np.float32(0.999)
    assert_array_equal(opt.state_dict()["w.moment2"], share * grad * grad)
