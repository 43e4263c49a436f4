"""Momentum, SGD, Adam and clips of Paddle, and where nbopt differs on purpose (D-numbers of the design)."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from tests.conformance import paddle_peer
from tests.conformance.comparison import TOLERANCE, NbOpt, as_clip, clip_in_place, follow
from tests.conformance.configurations import PADDLE, PADDLE_ADAM, Configuration, Spec, table
from tests.conformance.paddle_peer import Paddle, paddle
from tests.oracle import Clip, Decay

pytestmark = pytest.mark.conformance

STEPS = table(PADDLE, 280)
ADAM = table(PADDLE_ADAM, 240)


@pytest.mark.parametrize("conf", STEPS, ids=lambda conf: conf.label)
def test_steps(conf):
    follow(conf, NbOpt(conf, own_clips=True), Paddle(conf))


@pytest.mark.parametrize("conf", ADAM, ids=lambda conf: conf.label)
def test_adam(conf):
    follow(conf, NbOpt(conf, own_clips=True), Paddle(conf))


# --- clips as functions ---------------------------------------------------------------------------


def test_clip_of_plain_arrays():
    clipped = [conf for conf in STEPS if conf.options.get("grad_clip")]
    assert len(clipped) > 150
    for conf in clipped:
        clip, grads = conf.options["grad_clip"], conf.grads(1)
        grads = {name: grad for name, grad in grads.items() if grad is not None}
        need = {name: conf.params[name].need_clip for name in grads}
        pairs = [
            (paddle_peer.parameter(np.zeros_like(grad), need_clip=need[name]), paddle.to_tensor(grad))
            for name, grad in grads.items()
        ]
        got = as_clip(clip)(grads, need_clip=need)
        for (name, grad), (_, tensor) in zip(grads.items(), paddle_peer.as_clip(clip)(pairs), strict=True):
            array = tensor.numpy().reshape(grad.shape)  # Paddle makes rank 0 into rank 1
            tolerance = 1e-6 if conf.dtype == "float32" else 1e-13  # the margin of the limit, D11
            assert_allclose(got[name], array, rtol=tolerance, err_msg=f"{name} of {conf}", strict=True)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_clip_grad_norm(norm_type):
    for conf in STEPS:
        tensors = [paddle_peer.parameter(value) for value in conf.values().values()]

        def theirs(grads, limit, tensors=tensors):
            for tensor, grad in zip(tensors, grads, strict=True):
                tensor.grad = paddle.to_tensor(grad)
            total = paddle.nn.utils.clip_grad_norm_(tensors, limit, norm_type)
            return float(total), [tensor.grad.numpy() for tensor in tensors]

        clip_in_place(conf, norm_type, theirs)


# --- differences: Paddle does what nbopt does of another configuration ----------------------------

PLAIN = Configuration(
    peer="paddle",
    seed=0,
    rule="Momentum",
    dtype="float64",
    steps=5,
    params={"p0": Spec((3,)), "p1": Spec((2, 2))},
    options={"learning_rate": 0.1, "momentum": 0.5},
)
GROUPS = [{"params": ["p0"]}, {"params": ["p1"]}]
GROUPED = replace(PLAIN, groups=GROUPS)
POLICIES = {"p0": Spec((3,), learning_rate=0.5), "p1": Spec((2, 2), regularizer=Decay(l1=0.25))}
L1, L2 = {"weight_decay": Decay(l1=0.25)}, {"weight_decay": Decay(l2=0.25)}
NO_DECAY = [{**group, "weight_decay": None} for group in GROUPS]


def with_options(conf, **options):
    return replace(conf, options=conf.options | options)


# What is given to both, and what Paddle makes of it.
DIFFERENT = {
    "D2-group-drops-policies": (replace(GROUPED, params=POLICIES), GROUPED),
    "D2-l1-despite-group": (with_options(replace(PLAIN, groups=NO_DECAY), **L1), with_options(GROUPED, **L1)),
    "D2-sgd-decay-despite-group": tuple(
        replace(PLAIN, rule="SGD", options={"learning_rate": 0.1} | L2, groups=groups)
        for groups in (NO_DECAY, GROUPS)
    ),
    "D3-norm-per-group": (
        with_options(GROUPED, grad_clip=Clip("global", 0.5)),
        with_options(replace(PLAIN, groups=[group | {"grad_clip": Clip("global", 0.5)} for group in GROUPS])),
    ),
    "D5-no-rescale": (with_options(PLAIN, rescale_grad=0.5), PLAIN),
    "D6-float32-momentum": (
        with_options(PLAIN, momentum=0.9),
        with_options(PLAIN, momentum=float(np.float32(0.9))),
    ),
    "D6-float32-decay": (
        with_options(PLAIN, weight_decay=Decay(l2=0.1)),
        with_options(PLAIN, weight_decay=Decay(l2=float(np.float32(0.1)))),
    ),
}


@pytest.mark.parametrize(("conf", "as_paddle"), DIFFERENT.values(), ids=DIFFERENT)
def test_difference(conf, as_paddle):
    follow(conf, NbOpt(as_paddle), Paddle(conf))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        follow(conf, NbOpt(conf), Paddle(conf))


@pytest.mark.parametrize("name", ["D6-float32-momentum", "D6-float32-decay"])
def test_float32_numbers_are_a_small_difference(name):
    conf, _ = DIFFERENT[name]
    follow(conf, NbOpt(conf), Paddle(conf), tolerance=1e-6)


# --- differences of other kinds -------------------------------------------------------------------


def test_a_name_is_shared():  # D8
    params = nb.ParameterBuffer()
    first = params.create_parameter([2], "shared")
    assert params.create_parameter([2], "shared") is first
    with paddle.utils.unique_name.guard():
        paddle.nn.Linear(2, 2, weight_attr="shared")
        with pytest.raises(ValueError, match="shared"):
            paddle.nn.Linear(2, 2, weight_attr="shared")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_gradient_is_an_error_unless_asked_for(bad):  # D10
    grads = {"p0": np.array([1.0, bad, 2.0]), "p1": np.ones((2, 2))}
    ours, peer = NbOpt(PLAIN), Paddle(PLAIN)
    with pytest.raises(nb.errors.NonFiniteGradientError, match="p0"):
        ours.step(grads)
    for name, value in PLAIN.values().items():
        assert_array_equal(ours.values()[name], value)
    peer.step(grads)
    ours = NbOpt(with_options(PLAIN, nonfinite="propagate"))
    ours.step(grads)
    for name in PLAIN.params:
        assert_allclose(ours.values()[name], peer.values()[name], rtol=1e-10, err_msg=name)
    assert np.isfinite(peer.values()["p0"]).tolist() == [True, False, True]


@pytest.mark.parametrize("kind", ["norm", "global"])
def test_a_huge_norm_is_clipped_and_not_lost(kind):  # D11
    conf = replace(PLAIN, dtype="float32", options=PLAIN.options | {"grad_clip": Clip(kind, 1.0)})
    grads = {"p0": np.float32([1e20, 1e20, 0]), "p1": np.zeros((2, 2), np.float32)}
    ours, peer = NbOpt(conf), Paddle(conf)
    ours.step(grads)
    peer.step(grads)
    assert_allclose(ours.values()["p0.velocity"], [2**-0.5, 2**-0.5, 0], rtol=1e-6)
    assert_array_equal(peer.values()["p0.velocity"], 0)


def test_a_step_changes_nothing_of_the_caller():  # D12
    grads = PLAIN.grads(0)
    conf = with_options(PLAIN, grad_clip=Clip("global", 0.5))
    ours, peer = NbOpt(conf), Paddle(conf)
    ours.step(grads)
    peer.step(grads)
    assert_array_equal(ours.params["p0"].grad, grads["p0"])
    assert np.abs(peer.params["p0"].grad.numpy()).max() < np.abs(grads["p0"]).max()

    for params, optimizer, changed in (
        (ours.params["p0"], nb.optimizer, False),
        (peer.params["p0"], paddle.optimizer, True),
    ):
        group = {"params": [params], "weight_decay": 0.1}
        optimizer.Momentum(parameters=[group])
        assert (group["weight_decay"] is None) == changed


# --- what the table covers ------------------------------------------------------------------------


def test_the_table_has_every_policy():
    specs = [spec for conf in STEPS for spec in conf.params.values()]
    for key in ("learning_rate", "regularizer", "need_clip", "trainable"):
        assert sum(getattr(spec, key) != getattr(Spec, key) for spec in specs) > 50, key
    for key in ("absent", "zero", "rates", "edits", "groups"):
        assert sum(bool(getattr(conf, key)) for conf in STEPS) > 50, key
    kinds = [conf.options["grad_clip"].kind for conf in STEPS if conf.options.get("grad_clip")]
    assert all(kinds.count(kind) > 20 for kind in ("value", "norm", "global"))
    decays = [conf.options.get("weight_decay") or Decay() for conf in STEPS]
    assert min(sum(bool(decay.l1) for decay in decays), sum(bool(decay.l2) for decay in decays)) > 30
    assert {conf.dtype for conf in STEPS} == set(TOLERANCE)
