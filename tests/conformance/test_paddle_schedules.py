"""Schedules of Paddle, step by step and by jumps, and where nbopt differs on purpose (D9)."""

import inspect
import math
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nbopt as nb
from tests.conformance.paddle_peer import paddle

pytestmark = pytest.mark.conformance

ours, theirs = nb.optimizer.lr, paddle.optimizer.lr
STEPS = 60


def slow(epoch):
    return 1.0 / (1 + 0.1 * epoch)


def swing(epoch):
    return 0.9 + 0.15 * (epoch % 2)


# What is drawn for each argument of a schedule.
DRAWS = {
    "NoamDecay": lambda r: (r.integers(1, 600), r.integers(1, 50), r.uniform(0, 3)),
    "PiecewiseDecay": lambda r: (sorted(set(r.integers(0, 70, 5).tolist())), r.uniform(0, 1, 6)),
    "NaturalExpDecay": lambda r: (r.uniform(0, 1), r.uniform(0.001, 1)),
    "InverseTimeDecay": lambda r: (r.uniform(0, 1), r.uniform(0, 2)),
    "PolynomialDecay": lambda r: (
        *(r.uniform(0, 1), r.integers(1, 40), r.uniform(0, 0.5), r.uniform(0.3, 3)),
        bool(r.integers(2)),
    ),
    "LinearWarmup": lambda r: (r.uniform(0, 1), r.integers(1, 40), r.uniform(0, 0.1), r.uniform(0.2, 1)),
    "ExponentialDecay": lambda r: (r.uniform(0, 1), r.uniform(0.01, 0.999)),
    "MultiStepDecay": lambda r: (
        *(r.uniform(0, 1), sorted(set(r.integers(0, 70, r.integers(0, 6)).tolist()))),
        r.uniform(0, 0.99),
    ),
    "StepDecay": lambda r: (r.uniform(0, 1), r.integers(1, 40), r.uniform(0, 0.99)),
    "LambdaDecay": lambda r: (r.uniform(0, 1), slow),
    "MultiplicativeDecay": lambda r: (r.uniform(0, 1), swing),
    "CosineAnnealingDecay": lambda r: (r.uniform(0, 1), r.integers(1, 40), r.uniform(0, 0.2)),
    "OneCycleLR": lambda r: (
        *(r.uniform(0, 1), STEPS + r.integers(0, 40), r.uniform(1, 30), r.uniform(0, 0.1)),
        *(r.uniform(0.05, 0.45), str(r.choice(["cos", "linear"])), bool(r.integers(2))),
    ),
    "CyclicLR": lambda r: (
        *(r.uniform(0, 0.5), r.uniform(0.5, 1), r.integers(1, 20), r.integers(1, 20)),
        *(str(r.choice(["triangular", "triangular2", "exp_range"])), r.uniform(0.8, 1)),
    ),
    "LinearLR": lambda r: (r.uniform(0, 1), r.integers(1, 80), r.uniform(0.01, 1), r.uniform(0, 1)),
    "CosineAnnealingWarmRestarts": lambda r: (
        *(r.uniform(0, 1), r.integers(1, 20), r.integers(1, 4)),
        r.uniform(0, 0.2),
    ),
}
EACH = 8
# Further ways to build one, in both libraries.
MORE = {
    "cyclic-function": lambda lr: lr.CyclicLR(0.1, 0.5, 4, 3, scale_fn=slow),
    "cyclic-function-of-steps": lambda lr: lr.CyclicLR(0.1, 0.5, 4, scale_fn=slow, scale_mode="iterations"),
    "warmup-cosine": lambda lr: lr.LinearWarmup(lr.CosineAnnealingDecay(0.5, 30), 7, 0.1, 0.5),
    "warmup-lambda": lambda lr: lr.LinearWarmup(lr.LambdaDecay(0.5, slow), 1, 0.0, 0.5),
    "warmup-restarts": lambda lr: lr.LinearWarmup(lr.CosineAnnealingWarmRestarts(0.5, 10, 2), 5, 0.0, 0.5),
    "warmup-warmup": lambda lr: lr.LinearWarmup(
        lr.LinearWarmup(lr.ExponentialDecay(0.5, 0.9), 5, 0.1, 0.5), 6, 0.0, 0.1
    ),
}


def build(kind, arguments, lr):
    return getattr(lr, kind)(*arguments)


def plain(value):
    """A Python number: Paddle takes no others."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def table():
    for kind, draw in DRAWS.items():
        for seed in range(EACH):
            arguments = [plain(value) for value in draw(np.random.default_rng([seed, len(kind)]))]
            if kind == "PiecewiseDecay":
                arguments[1] = arguments[1][: len(arguments[0]) + 1]
            yield f"{kind}-{seed}", partial(build, kind, arguments)
    yield from MORE.items()


TABLE = dict(table())
every_schedule = pytest.mark.parametrize("name", TABLE)


def close(got, expected):
    """Paddle's recursions lose some digits, relative to the rates that they come from."""
    assert_allclose(got, expected, rtol=1e-11, atol=1e-13)


@every_schedule
def test_steps(name):
    mine, peer = (TABLE[name](lr) for lr in (ours, theirs))
    assert mine.base_lr == peer.base_lr or isinstance(peer, theirs.PiecewiseDecay)
    for _ in range(STEPS):
        close(mine(), peer())
        assert (mine.last_epoch, mine.last_lr) == (peer.last_epoch, mine())
        assert set(mine.state_dict()) == set(peer.state_dict())
        mine.step()
        peer.step()


# These jump elsewhere, or stumble over floats, in Paddle; see below.
WALKERS = "LinearLR", "OneCycleLR", "CosineAnnealingWarmRestarts", "warmup-restarts"


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith(WALKERS)])
def test_jumps(name):
    mine, peer = (TABLE[name](lr) for lr in (ours, theirs))
    for epoch in np.random.default_rng(0).permutation(STEPS).tolist():
        mine.step(epoch)
        peer.step(epoch)
        close(mine(), peer())


@pytest.mark.parametrize("kind", ours.__all__)
def test_signature(kind):
    """Names, order, defaults and kinds of the arguments."""
    mine, peer = (inspect.signature(getattr(lr, kind)).parameters.values() for lr in (ours, theirs))
    assert [(p.name, p.default, p.kind) for p in mine] == [(p.name, p.default, p.kind) for p in peer]


def test_every_schedule_is_here():
    kinds = {name for name, value in vars(theirs).items() if inspect.isclass(value)}
    kinds = {name for name in kinds if issubclass(getattr(theirs, name), theirs.LRScheduler)}
    assert kinds == set(ours.__all__)
    assert DRAWS.keys() == kinds - {"LRScheduler", "ReduceOnPlateau"}


@pytest.mark.parametrize("seed", range(40))
def test_plateau(seed):
    draw = np.random.default_rng(seed)
    arguments = {
        "learning_rate": draw.uniform(0.1, 1),
        "mode": str(draw.choice(["min", "max"])),
        "factor": draw.uniform(0, 0.9),
        "patience": int(draw.integers(0, 4)),
        "threshold": float(draw.choice([0.0, 1e-4, 0.1])),
        "threshold_mode": str(draw.choice(["rel", "abs"])),
        "cooldown": int(draw.integers(0, 4)),
        "min_lr": float(draw.choice([0.0, 0.05])),
        "epsilon": float(draw.choice([1e-8, 0.01])),
    }
    mine, peer = (lr.ReduceOnPlateau(**arguments) for lr in (ours, theirs))
    rates = set()
    for step in range(STEPS):
        metric = draw.normal() + 0.1 * step if seed % 2 else float(draw.integers(0, 5))
        if step and draw.uniform() < 0.05:
            metric = math.nan
        mine.step(metric)
        peer.step(metric)
        assert mine.state_dict() == peer.state_dict()
        rates.add(mine())
    assert len(rates) > 1


def test_in_an_optimizer():
    """One schedule over two optimizers, and a late one."""
    value, grads = np.array([1.0, -2.0], np.float32), np.random.default_rng(0).normal(size=(20, 2))
    params = nb.ParameterBuffer.from_arrays({"w": value, "b": value}, dtype="float32")
    tensors = [paddle.create_parameter([2], "float32") for _ in params]
    for tensor in tensors:
        tensor.set_value(value)
    mine, peer = (MORE["warmup-cosine"](lr) for lr in (ours, theirs))
    opts = [nb.optimizer.SGD(mine, params["w"]), nb.optimizer.Momentum(0.1, parameters=params["b"])]
    peers = [paddle.optimizer.SGD(peer, tensors[:1]), paddle.optimizer.Momentum(0.1, parameters=tensors[1:])]
    opts[1].set_lr_scheduler(mine)
    peers[1].set_lr_scheduler(peer)
    for grad in grads.astype(np.float32):
        for opt, other, p, tensor in zip(opts, peers, params.values(), tensors, strict=True):
            close(opt.get_lr(), other.get_lr())
            tensor.grad = paddle.to_tensor(grad)
            p.grad = grad
            opt.step()
            other.step()
            assert_allclose(p.value, tensor.numpy(), rtol=1e-5, atol=1e-6)
        mine.step()
        peer.step()
    for opt, other in zip(opts, peers, strict=True):
        with pytest.raises(RuntimeError):
            opt.set_lr(0.1)
        with pytest.raises(RuntimeError):
            other.set_lr(0.1)


# --- differences (D9) -----------------------------------------------------------------------------


def both(make):
    return [make(lr) for lr in (ours, theirs)]


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_past_its_end(strategy):
    mine, peer = both(lambda lr: lr.OneCycleLR(1.0, 10, 5.0, 0.01, 0.4, strategy, True))
    for schedule in (mine, peer):
        schedule.step(9)
        close(schedule(), 0.01)
        schedule.step()
    assert mine() == 0.01
    assert abs(peer() - 0.01) > 0.01
    mine.step()
    assert mine() == 0.01
    with pytest.raises(ValueError, match="Tried to step"):
        peer.step()


def test_a_jump_of_linear_lr():
    walked, jumped = (both(lambda lr: lr.LinearLR(0.5, 5, 0.25)) for _ in range(2))
    for schedule, other in zip(walked, jumped, strict=True):
        for _ in range(4):
            schedule.step()
        other.step(4)
    assert walked[0]() == jumped[0]()
    assert abs(walked[1]() - jumped[1]()) > 0.1


@pytest.mark.parametrize(
    ("kind", "arguments", "start"),
    [("LinearLR", (0.5, 5, 0.25, 1.0), 2), ("CosineAnnealingWarmRestarts", (0.5, 2, 2, 0.1), 5)],
)
def test_a_schedule_that_starts_late(kind, arguments, start):
    mine, peer = both(lambda lr: getattr(lr, kind)(*arguments, last_epoch=start))
    walked = both(lambda lr: getattr(lr, kind)(*arguments))
    for schedule in walked:
        for _ in range(start + 1):
            schedule.step()
    assert mine() == walked[0]()
    close(walked[0](), walked[1]())
    assert abs(peer() - walked[1]()) > 0.1


def test_restarts_continue_in_their_cycle():
    mine, peer = both(lambda lr: lr.CosineAnnealingWarmRestarts(0.5, 3, 2, 0.1))
    fresh = both(lambda lr: lr.CosineAnnealingWarmRestarts(0.5, 3, 2, 0.1))
    far = []
    for schedule, other in zip((mine, peer), fresh, strict=True):
        for _ in range(5):
            schedule.step()
        other.set_state_dict(schedule.state_dict())
        schedule.step()
        other.step()
        far.append(abs(schedule() - other()))
    assert far[0] == 0.0
    assert far[1] > 0.05


def test_a_jump_to_a_restart():
    """After 1 + 3 + 9 + 27 + 81 steps; Paddle takes a logarithm, which is too small here."""
    mine, peer = both(lambda lr: lr.CosineAnnealingWarmRestarts(0.5, 1, 3))
    epoch = (3**5 - 1) // 2
    for schedule in (mine, peer):
        schedule.step(epoch)
    assert mine() == 0.5
    assert peer() < 0.01


def test_surplus_values():
    with pytest.raises(nb.errors.HyperparameterError, match="one more of values"):
        ours.PiecewiseDecay([2], [0.3, 0.2, 0.1])
    peer = theirs.PiecewiseDecay([2], [0.3, 0.2, 0.1])
    peer.step(5)
    assert peer() == 0.1


def test_a_first_metric_of_nan():
    rates = []
    for schedule in both(lambda lr: lr.ReduceOnPlateau(0.5, factor=0.5, patience=1)):
        for metric in (math.nan, 5.0, 4.0, 3.0, 2.0):
            schedule.step(metric)
        rates.append(schedule())
    assert rates == [0.5, 0.125]


def test_a_plateau_in_a_warm_up():
    with pytest.raises(TypeError, match="metric"):
        ours.LinearWarmup(ours.ReduceOnPlateau(0.5), 3, 0.0, 0.5)
    inner = theirs.ReduceOnPlateau(0.5)
    peer = theirs.LinearWarmup(inner, 3, 0.0, 0.5)
    for _ in range(6):
        peer.step()
    assert inner.best == 0  # the number of a step
