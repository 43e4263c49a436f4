"""`minimize`, a step on some of the parameters, and what a step reports: norm and coefficients."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import NonFiniteGradientError, ParameterError
from tests import oracle
from tests.optimizer import expand, gradients, normed, refuses, small

# --- the loss --------------------------------------------------------------------------------------

LOSSES = {
    "int": (3, 3.0),
    "float": (0.5, 0.5),
    "numpy": (np.float32(0.5), 0.5),
    "array-0d": (np.array(2.0), 2.0),
    "array-1": (np.array([2], np.int32), 2.0),
    "negative": (-1.5, -1.5),
    "inf": (float("inf"), float("inf")),
    "nan": (float("nan"), float("nan")),
    "nan-numpy": (np.float32("nan"), float("nan")),
    "nan-array-0d": (np.array(np.nan), float("nan")),
    "nan-array-1": (np.array([np.nan]), float("nan")),
    "none": (None, None),
}


@pytest.mark.parametrize("called", [False, True], ids=["number", "callable"])
@pytest.mark.parametrize(("loss", "expected"), expand("", LOSSES))
def test_loss(loss, expected, called):
    params, plain = small(), small()
    opt, reference = nb.optimizer.SGD(0.1, params), nb.optimizer.SGD(0.1, plain)
    assert opt.last_loss is None

    def write():
        params.set_grads(gradients(params))
        return loss

    if not called:
        write()
    result = opt.minimize(write if called else loss)
    reference.step(gradients(plain))
    assert params.fingerprint() == plain.fingerprint()
    assert_array_equal(opt.last_loss, expected)
    assert type(opt.last_loss) is type(expected)
    empty, pairs = result
    assert empty == []
    assert [p for p, _ in pairs] == list(params.values())
    for p, grad in pairs:
        assert_array_equal(grad, p.grad)


def test_the_last_loss_stays_until_the_next():
    params = small()
    opt = nb.optimizer.SGD(0.1, params)
    opt.minimize(2.0)
    opt.minimize()
    opt.step()
    assert (opt.last_loss, opt.step_count) == (2.0, 3)


def test_as_in_paddle():
    """Loss, start-up program, parameters and no_grad_set by position."""
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params.set_grads(gradients(params))
    empty, pairs = opt.minimize(1.0, None, [params["w"], "b"], {"b"})
    assert empty == []
    assert [p for p, _ in pairs] == [params["w"]]


# --- which parameters ------------------------------------------------------------------------------

CHOICES = {
    "all": ({}, "wbk"),
    "one": ({"parameters": lambda p: [p["w"]]}, "w"),
    "one-bare": ({"parameters": lambda p: p["w"]}, "w"),
    "name-bare": ({"parameters": lambda p: "k"}, "k"),
    "names": ({"parameters": lambda p: ["k", "w"]}, "wk"),
    "mixed-twice": ({"parameters": lambda p: ("k", p["k"], p["b"])}, "bk"),
    "generator": ({"parameters": lambda p: (q for q in p.values())}, "wbk"),
    "buffer": ({"parameters": lambda p: p}, "wbk"),
    "nothing": ({"parameters": lambda p: []}, ""),
    "without": ({"no_grad_set": lambda p: {"b"}}, "wk"),
    "without-parameter": ({"no_grad_set": lambda p: [p["w"], "b"]}, "k"),
    "without-nothing": ({"no_grad_set": lambda p: set()}, "wbk"),
    "both": ({"parameters": lambda p: ["w", "b"], "no_grad_set": lambda p: ["b", "k"]}, "w"),
    "none": ({"parameters": lambda p: ["w"], "no_grad_set": lambda p: ["w"]}, ""),
}


@pytest.mark.parametrize(("choice", "moving"), expand("", CHOICES))
def test_only_the_chosen_move(choice, moving):
    params, plain = small(), small()
    opt = nb.optimizer.Momentum(0.1, parameters=params, weight_decay=0.1)
    reference = nb.optimizer.Momentum(0.1, parameters=plain, weight_decay=0.1)
    for p in plain.values():
        p.trainable = p.name in moving
    for seed in range(2):
        params.set_grads(gradients(params, seed))
        pairs = opt.minimize(**{key: choose(params) for key, choose in choice.items()})[1]
        reference.step(gradients(plain, seed))
        assert [p.name for p, _ in pairs] == list(moving)
    assert params.fingerprint() == plain.fingerprint()
    state = opt.state_dict()
    assert [state[f"{name}.step"] for name in "wbk"] == [2 * (name in moving) for name in "wbk"]
    assert all(p.trainable for p in params.values())
    assert opt.step_count == 2


def test_frozen_and_absent_take_no_part():
    params = small()
    opt = nb.optimizer.SGD(0.1, params)
    params["w"].trainable = False
    params["b"].clear_grad(set_to_zero=False)
    before = params.numpy()
    assert [p for p, _ in opt.minimize(parameters=["w", "b", "k"])[1]] == [params["k"]]
    assert not params["w"].trainable
    assert not params["b"].has_grad
    assert_array_equal(params["w"].value, before["w"])


def test_a_weight_moves_by_both_its_parts():
    params = normed()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params.set_grads(gradients(params))
    before = {name: params[name].numpy() for name in ("w_v", "w_g", "b")}
    params["w_g"].trainable = False
    pairs = opt.minimize(no_grad_set=["b"])[1]
    assert [p for p, _ in pairs] == [params["w"]]
    assert pairs[0][1] is params["w"].grad
    assert (params["w_v"].value != before["w_v"]).any()
    assert_array_equal(params["w_g"].value, before["w_g"])
    assert_array_equal(params["b"].value, before["b"])
    assert [params[name].trainable for name in ("w_v", "w_g", "b")] == [True, False, True]


def test_gradients_of_others_may_be_anything():
    params = small()
    opt = nb.optimizer.SGD(0.1, params)
    params["w"].grad = np.full((2, 3), np.nan)
    opt.minimize(no_grad_set=["w"])
    assert opt.step_count == 1


# --- refused ---------------------------------------------------------------------------------------

REFUSED = {
    "loss-string": ({"loss": "0.5"}, TypeError, "loss number '0.5'"),
    "loss-true": ({"loss": True}, TypeError, "loss number True"),
    "loss-complex": ({"loss": 1j}, TypeError, "loss number 1j"),
    "loss-array": ({"loss": np.ones(2)}, TypeError, "loss number"),
    "loss-from-callable": ({"loss": lambda: "low"}, TypeError, "loss number 'low'"),
    "unknown-name": ({"parameters": ["w", "x"]}, ParameterError, "parameters 'x'"),
    "not-its-own": ({"parameters": ["k"]}, ParameterError, "parameters 'k'"),
    "of-another-buffer": ({"parameters": [small()["w"]]}, ParameterError, "parameters 'w'"),
    "number": ({"parameters": 3}, TypeError, "parameters int"),
    "number-in-list": ({"parameters": ["w", 3]}, TypeError, "parameters int"),
    "array": ({"parameters": [np.ones(2)]}, TypeError, "parameters ndarray"),
    "unknown-in-no-grad-set": ({"no_grad_set": {"x"}}, ParameterError, "no_grad_set 'x'"),
    "none-in-no-grad-set": ({"no_grad_set": [None]}, TypeError, "no_grad_set NoneType"),
    "flag": ({"no_grad_set": True}, TypeError, "no_grad_set bool"),
}


@pytest.mark.parametrize(("arguments", "error", "words"), expand("", REFUSED))
def test_minimize_refused(arguments, error, words):
    params = small()
    opt = nb.optimizer.Momentum(parameters=[params["w"], params["b"]])
    params.set_grads(gradients(params))
    refuses(lambda: opt.minimize(**arguments), error, words, params, opt)
    assert opt.last_loss is None


def test_an_error_in_the_loss_changes_nothing():
    params = small()
    opt = nb.optimizer.SGD(0.1, params)

    def loss():
        raise KeyError("mine")

    refuses(lambda: opt.minimize(loss, no_grad_set=["w"]), KeyError, "mine", params, opt)


def test_a_refused_step_leaves_the_frozen_as_they_were():
    params = small()
    opt = nb.optimizer.SGD(0.1, params)
    params["b"].grad = [1.0, np.inf, 1.0]
    before = params.fingerprint()
    with pytest.raises(NonFiniteGradientError, match="'b'"):
        opt.minimize(parameters=["b"])
    assert params.fingerprint() == before
    assert all(p.trainable for p in params.values())


# --- what a step reports ---------------------------------------------------------------------------

SHRINK = 1 - 2.0**-44  # a clip of float64 stays below its limit by this
REPORTS = {
    "no-clip": (None, {}),
    "value": (nb.ClipGradByValue(0.1), {}),
    "each": (nb.ClipGradByNorm(0.7), {}),
    "global": (nb.ClipGradByGlobalNorm(0.7), {}),
    "below": (nb.ClipGradByGlobalNorm(100.0), {}),
    "rescaled": (nb.ClipGradByGlobalNorm(0.7), {"rescale_grad": -3.0}),
    "need-no-clip": (nb.ClipGradByGlobalNorm(0.7), {"b": {"need_clip": False}}),
    "frozen": (nb.ClipGradByNorm(0.7), {"b": {"trainable": False}}),
    "absent": (nb.ClipGradByGlobalNorm(0.7), {"absent": "b"}),
}


@pytest.mark.parametrize("make", [small, normed])
@pytest.mark.parametrize(("clip", "how"), expand("", REPORTS))
def test_norm_and_coefficients(clip, how, make):
    params = make()
    rescale = how.get("rescale_grad", 1.0)
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=clip, rescale_grad=rescale)
    assert opt.grad_norm is None
    assert opt.clip_coefficients == {}
    for name, value in how.get("b", {}).items():
        setattr(params["b"], name, value)
    grads = gradients(params)
    active = {name: rescale * grad for name, grad in grads.items()}
    if make is normed:
        dv, dg = oracle.weight_norm_backward(params["w_v"].numpy(), params["w_g"].numpy(), active.pop("w"), 0)
        active |= {"w_v": dv, "w_g": dg}
    if how.get("absent") or not params["b"].trainable:
        del active["b"]
    opt.step(grads | {"b": None} if "absent" in how else grads)

    assert_allclose(opt.grad_norm, float(oracle.norm(active.values())), rtol=1e-14)
    clipped = [name for name in active if params[name].need_clip]
    expected = dict.fromkeys(active, 1.0)
    if isinstance(clip, nb.ClipGradByGlobalNorm | nb.ClipGradByNorm):
        for name in clipped:
            members = clipped if isinstance(clip, nb.ClipGradByGlobalNorm) else [name]
            total = float(oracle.norm(active[member] for member in members))
            expected[name] = clip.clip_norm * SHRINK / total if total > clip.clip_norm else 1.0
    assert opt.clip_coefficients.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(opt.clip_coefficients[name], value, rtol=0 if value == 1.0 else 1e-14)


NO_NORMS = {
    "no-clip": (None, {}, False),
    "value": (nb.ClipGradByValue(1.0), {}, False),
    "need-no-clip": (nb.ClipGradByNorm(1.0), {"b": nb.ParamAttr(need_clip=False)}, False),
    "each": (nb.ClipGradByNorm(1.0), {}, True),
    "measured-only": (nb.ClipGradByGlobalNorm(np.inf), {}, True),
}


@pytest.mark.parametrize(("clip", "attrs", "measured"), expand("", NO_NORMS))
def test_no_norm_is_taken_where_nothing_asks_for_one(clip, attrs, measured):
    params = small(**attrs)
    opt = nb.optimizer.SGD(0.1, params, grad_clip=clip, nonfinite="propagate")
    opt.step(gradients(params))
    assert (opt.grad_norm is not None) == measured


def test_reports_are_those_of_the_last_step():
    params = small()
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    opt.step(gradients(params))
    norm, coefficients = opt.grad_norm, opt.clip_coefficients
    opt.param_groups[0].update(rescale_grad=7.0, grad_clip=None)
    params["w"].trainable = False
    params["b"].grad = [9.0, 9.0, 9.0]
    assert (opt.grad_norm, opt.clip_coefficients) == (norm, coefficients)
    coefficients["w"] = 3.0
    assert opt.clip_coefficients["w"] != 3.0


def test_an_optimizer_shows_itself():
    opt = nb.optimizer.Momentum(0.25, parameters=small(), name="main")
    opt.step()
    for word in ("Momentum", "main", "3 parameters", "0.25", "1"):
        assert word in repr(opt)
