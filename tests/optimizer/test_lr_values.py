"""Rates of schedules: what Paddle 3.3.1 recorded, closed forms under any jump, and the edges."""

import itertools
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import nbopt as nb
from tests.optimizer.schedules import CLOSED, RECORDED, TABLE, Halving, lr, walk, wave
from tests.recordings import GOLDEN, build_schedule, load, play_nbopt

STEPS = 60
DRIVEN = sorted(path.stem for path in GOLDEN.glob("sched_*.npz"))
WALKS = {name: walk(make(), STEPS) for name, make in CLOSED.items()}

# --- recordings -----------------------------------------------------------------------------------


def test_every_recording_is_used():
    assert {name.partition("::")[2] for name in TABLE.arrays} == RECORDED.keys()
    assert len(DRIVEN) == 22
    kinds = {spec["type"] for spec in TABLE.meta["schedulers"].values()}
    assert kinds | {"ReduceOnPlateau", "LRScheduler"} == set(lr.__all__)
    assert len(lr.__all__) == 18


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_rates(name):
    expected = TABLE.arrays[f"lr::{name}"]
    assert_allclose(WALKS[name][: len(expected)], expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_jump(name):
    schedule, recorded = RECORDED[name](), TABLE.arrays[f"jump::{name}"]
    schedule.step(5)
    got = [schedule()]
    schedule.step()
    got.append(schedule())
    assert got == WALKS[name][5:7]
    if name == "linear":  # D9: it goes by its last rate, and jumps elsewhere
        assert np.all(np.abs(got - recorded) > 0.04)
    else:
        assert_allclose(got, recorded, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", DRIVEN)
def test_recorded_optimizer(name):
    rec = load(name)
    schedule = build_schedule(rec.opt["learning_rate"])
    trajectory = list(play_nbopt(rec, schedule=schedule))
    for t, got in enumerate(trajectory):
        for key, expected in rec.expected(t).items():
            assert_allclose(got[key], expected, rtol=1e-5, atol=1e-6, err_msg=f"{key} after step {t}")
    rates = [state["learning_rate"] for state in trajectory]
    assert_allclose(rates, rec.arrays["lr"], rtol=1e-13, atol=0)


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOSED)
def test_jumps_are_exact_in_any_order(name):
    schedule = CLOSED[name]()
    for epoch in np.random.default_rng(0).permutation(STEPS):
        schedule.step(epoch)
        assert (schedule.last_epoch, schedule()) == (epoch, WALKS[name][epoch])
        assert schedule.get_lr() == schedule.get_lr() == schedule()
    assert type(schedule.last_epoch) is int
    assert type(schedule()) is float


@given(st.data())
def test_steps_and_jumps(data):
    name = data.draw(st.sampled_from(sorted(CLOSED)))
    schedule, at = CLOSED[name](), 0
    for epoch in data.draw(st.lists(st.none() | st.integers(0, STEPS - 1), max_size=20)):
        at = epoch if epoch is not None else at + 1
        if at == STEPS:
            break
        schedule.step(epoch)
        assert (schedule.last_epoch, schedule.last_lr) == (at, WALKS[name][at])


@pytest.mark.parametrize("start", [-1, 3, 20])
@pytest.mark.parametrize("name", RECORDED)
def test_a_schedule_can_start_anywhere(name, start):
    spec = TABLE.meta["schedulers"][name]
    schedule = build_schedule(spec | {"kwargs": spec["kwargs"] | {"last_epoch": start}})
    assert schedule.last_epoch == start + 1
    assert walk(schedule, 10) == WALKS[name][start + 1 : start + 11]


# A product is as long as that.
@pytest.mark.parametrize("name", sorted(CLOSED.keys() - {"multiplicative", "multiplicative-wave"}))
def test_a_far_step_has_a_rate(name):
    schedule = CLOSED[name]()
    schedule.step(2**63 - 1)
    assert 0.0 <= schedule() <= 0.7
    schedule.step(0)
    assert schedule() == WALKS[name][0]


# --- edges ----------------------------------------------------------------------------------------


def at(schedule, *epochs):
    rates = []
    for epoch in epochs:
        schedule.step(epoch)
        rates.append(schedule())
    return rates


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_stays_at_its_end(strategy, three_phase):  # D9
    schedule = lr.OneCycleLR(0.2, 12, 5.0, 0.01, 0.4, strategy, three_phase)
    assert at(schedule, 11, 12, 13, 14, 500, 10**12) == [0.01] * 6
    assert at(schedule, 0, 10)[1] > 0.01


@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_with_a_phase_of_no_steps(three_phase):
    """0/0 in Paddle."""
    schedule = lr.OneCycleLR(1.0, 10, phase_pct=0.1, three_phase=three_phase)
    assert at(schedule, 0, 9) == [1.0, 0.0001]


def test_one_cycle_at_its_corners():
    schedule = lr.OneCycleLR(1.0, 20, 4.0, 0.0, 0.25, "linear", three_phase=True)
    assert_allclose(at(schedule, 0, 2, 4, 6, 8, 14, 19), [0.25, 0.625, 1, 0.625, 0.25, 0.25 * 5 / 11, 0])
    assert lr.OneCycleLR(1.0, 1)() == 0.0001
    assert at(lr.OneCycleLR(1.0, 20, phase_pct=1), 0, 19, 20) == [0.04, 1.0, 0.0001]
    assert at(lr.OneCycleLR(1.0, 9, phase_pct=0, anneal_strategy="linear"), 8) == [0.0001]


@pytest.mark.parametrize("factor", [2, 3, 5, 7])
@pytest.mark.parametrize("first", [1, 3, 10])
def test_restarts_are_where_they_belong(first, factor):
    """A logarithm misses some of them: log(243, 3) < 5."""
    schedule = lr.CosineAnnealingWarmRestarts(0.3, first, factor, 0.1)
    starts = np.cumsum([0, *(first * factor**i for i in range(12))]).tolist()
    assert at(schedule, *starts) == [0.3] * len(starts)
    ends = [start - 1 for start in starts[2:]]
    assert max(at(schedule, *ends)) < 0.3


def test_turning_points_are_exact():
    cosine = lr.CosineAnnealingDecay(0.3, 7, 0.1)
    assert at(cosine, 7, 21, 7 + 14 * 10**15) == [0.1] * 3
    assert at(cosine, 0, 14, 14 * 10**15) == [0.3] * 3
    assert at(cosine, 14 * 10**15 + 3) == at(cosine, 3) == at(cosine, 11)
    assert at(lr.LinearLR(0.7, 3, 1 / 3, 0.9), 3, 4) == [0.7 * 0.9] * 2
    assert at(lr.PolynomialDecay(0.7, 3, 0.1, 0.3), 3, 99) == [0.1] * 2
    assert at(lr.NoamDecay(64, 4), 0) == [0.0]
    assert at(lr.LinearWarmup(0.7, 3, 0.1, 0.5), 0, 3, 4) == [0.1, 0.7, 0.7]
    assert at(lr.CyclicLR(0.25, 0.75, 3, 2), 3, 5, 8, 10) == [0.75, 0.25, 0.75, 0.25]
    assert at(lr.MultiStepDecay(0.5, (2, 5), 0.5), 1, 2, 4, 5) == [0.5, 0.25, 0.25, 0.125]


def test_a_scale_of_the_user():
    asked = []

    def scale(number):
        asked.append(number)
        return 0.5

    schedule = lr.CyclicLR(0.0, 1.0, 1, 1, scale_fn=scale)
    assert at(schedule, 1, 2, 3) == [0.5, 0.0, 0.5]
    assert asked == [1, 1, 2, 2]  # cycles, counted from 1
    asked.clear()
    at(lr.CyclicLR(0.0, 1.0, 1, 1, "any", scale_fn=scale, scale_mode="iterations"), 1, 7)
    assert asked == [0, 1, 7]


# --- products of a function -----------------------------------------------------------------------


def test_a_product_goes_on_where_it_was():
    asked = []

    def factor(epoch):
        asked.append(epoch)
        return wave(epoch)

    schedule = lr.MultiplicativeDecay(1e-3, factor)
    rates = walk(schedule, 50)
    assert asked == list(range(1, 51))
    factors = (wave(epoch) for epoch in range(1, 50))
    assert rates == list(itertools.accumulate(factors, operator.mul, initial=1e-3))
    schedule.step(10)
    assert asked[50:] == list(range(1, 11))
    schedule.base_lr = 1.0
    schedule.step(1)
    assert schedule() == wave(1)


# --- a schedule in a warm-up ----------------------------------------------------------------------


def test_what_follows_a_warm_up_is_stepped_with_it():
    inner = lr.StepDecay(0.4, 2)
    schedule = lr.LinearWarmup(inner, 3, 0.0, 0.4)
    for epoch, steps in ((0, 0), (2, 0), (3, 0), (4, 1), (9, 6), (1, 0), (5, 2)):
        schedule.step(epoch)
        assert inner.last_epoch == steps
        assert inner() == (schedule() if epoch >= 3 else 0.4)


def test_what_follows_may_go_by_its_last_rate():
    inner = Halving(0.4)
    assert_allclose(walk(lr.LinearWarmup(inner, 2, 0.0, 0.4), 7), [0, 0.2, 0.4, 0.2, 0.1, 0.05, 0.025])


def test_a_warm_up_before_a_warm_up():
    rates = walk(lr.LinearWarmup(lr.LinearWarmup(lr.StepDecay(0.5, 1), 2, 0.1, 0.5), 2, 0.0, 0.1), 7)
    assert_allclose(rates, [0, 0.05, 0.1, 0.3, 0.5, 0.05, 0.005])


def test_what_follows_rests_during_the_warm_up(capsys):
    schedule = lr.LinearWarmup(lr.StepDecay(0.4, 2, verbose=True), 3, 0.0, 0.4)
    for _ in range(4):
        schedule.step()
    told = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["Epoch 0", "Epoch 1"]


# --- plateaus -------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
HALF = {"factor": 0.5, "patience": 0}

# Arguments, metrics, and how often the rate was halved after each.
PLATEAUS = {
    "equal-is-no-better": (HALF, [3.0, 3.0, 3.0], [0, 1, 2]),
    "patience": (HALF | {"patience": 2}, [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0], [0, 0, 0, 1, 1, 1, 2]),
    "better-resets": (HALF | {"patience": 1}, [3.0, 3.0, 2.0, 2.0, 2.0], [0, 0, 0, 0, 1]),
    "cooldown-ignores": (HALF | {"cooldown": 2}, [3.0, 3.0, 0.0, 0.0, 2.0, 2.0], [0, 1, 1, 1, 1, 2]),
    "relative": (HALF | {"threshold": 0.1}, [10.0, 9.0, 8.9], [0, 1, 1]),
    "absolute": (HALF | {"threshold": 0.5, "threshold_mode": "abs"}, [10.0, 9.5, 9.4], [0, 1, 1]),
    "max": (HALF | {"mode": "max", "threshold": 0.25}, [4.0, 5.0, 5.5, 7.0], [0, 1, 1, 1]),
    "max-absolute": (
        HALF | {"mode": "MAX", "threshold": 1.0, "threshold_mode": "Abs"},
        [4.0, 5.0, 5.5, 7.0],
        [0, 1, 1, 1],
    ),
    "negative": (HALF | {"threshold_mode": "abs"}, [-1.0, -1.0, -2.0], [0, 1, 1]),
    "nan-is-no-better": (HALF, [3.0, NAN, 2.0], [0, 1, 1]),
    "nan-first": (HALF, [NAN, 3.0, 2.0], [1, 1, 1]),
    "inf-first": (HALF, [INF, 3.0, 3.0], [1, 1, 2]),
    "minus-inf": (HALF, [-INF, 3.0, -INF], [0, 1, 2]),
    "inf-max": (HALF | {"mode": "max"}, [INF, 3.0], [0, 1]),
    "numbers": (HALF, [5, np.float32(4), np.int64(3), np.array([2.0]), np.array(1)], [0] * 5),
}


@pytest.mark.parametrize(("arguments", "metrics", "halved"), PLATEAUS.values(), ids=PLATEAUS)
def test_plateau(arguments, metrics, halved):
    schedule = lr.ReduceOnPlateau(0.5, **arguments)
    assert (schedule.last_epoch, schedule()) == (0, 0.5)
    for epoch, (metric, times) in enumerate(zip(metrics, halved, strict=True), 1):
        schedule.step(metric)
        assert (schedule.last_epoch, schedule()) == (epoch, 0.5 * 0.5**times)
        assert schedule.get_lr() == schedule()


def test_plateau_has_a_floor():
    schedule = lr.ReduceOnPlateau(0.5, factor=0.5, patience=0, min_lr=0.2)
    assert [schedule.step(1.0) or schedule() for _ in range(5)] == [0.5, 0.25, 0.2, 0.2, 0.2]
    schedule = lr.ReduceOnPlateau(0.5, factor=0.5, patience=0, epsilon=0.2)
    assert [schedule.step(1.0) or schedule() for _ in range(4)] == [0.5, 0.25, 0.25, 0.25]
    schedule = lr.ReduceOnPlateau(0.1, patience=0, min_lr=0.5)  # never up
    assert [schedule.step(1.0) or schedule() for _ in range(3)] == [0.1] * 3


def test_plateau_counts_as_told():
    schedule = lr.ReduceOnPlateau(0.5)
    schedule.step(1.0, 7)
    schedule.step(1.0)
    assert (schedule.last_epoch, schedule.best, schedule.num_bad_epochs) == (8, 1.0, 1)


# --- one of the user's ----------------------------------------------------------------------------


def test_a_schedule_as_paddle_documents_it():
    class StepDecay(nb.optimizer.lr.LRScheduler):
        def __init__(self, learning_rate, step_size, gamma=0.1, last_epoch=-1, verbose=False):
            self.step_size = step_size
            self.gamma = gamma
            super().__init__(learning_rate, last_epoch, verbose)

        def get_lr(self):
            i = self.last_epoch // self.step_size
            return self.base_lr * (self.gamma**i)

    assert walk(StepDecay(0.5, 3), 10) == walk(lr.StepDecay(0.5, 3), 10)


def test_a_schedule_that_steps_by_itself():
    class Alternating(lr.LRScheduler):
        def step(self, epoch=None):
            self.last_epoch += 1
            self.last_lr = self.base_lr * (1 + self.last_epoch % 2)

    schedule = Alternating(0.5)
    opt = nb.optimizer.SGD(schedule, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
    rates = []
    for _ in range(3):
        rates.append(opt.get_lr())
        schedule.step()
    assert rates == [0.5, 1.0, 0.5]


@pytest.mark.parametrize("number", [np.float32(0.5), np.array([0.5]), np.float64(0.5), 1, np.int64(1)])
def test_numbers_of_every_kind_are_rates(number):
    class Own(lr.LRScheduler):
        def get_lr(self):
            return number

    rate = Own(number)()
    assert (rate, type(rate)) == (float(np.asarray(number).reshape(())), float)
    assert lr.LambdaDecay(1, lambda epoch: number)() == rate


# --- what is printed ------------------------------------------------------------------------------


def test_verbose(capsys):
    schedule = lr.StepDecay(0.5, 1, 0.5, verbose=True)
    schedule.step(2)
    plateau = lr.ReduceOnPlateau(0.5, factor=0.5, patience=0, verbose=True)
    for _ in range(2):
        plateau.step(1.0)
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 0: StepDecay set learning rate to 0.5.",
        "Epoch 2: StepDecay set learning rate to 0.125.",
        "Epoch 2: ReduceOnPlateau set learning rate to 0.25.",
    ]
    lr.StepDecay(0.5, 1).step()
    assert capsys.readouterr().out == ""
    assert repr(schedule) == "StepDecay(last_epoch=2, last_lr=0.125)"
