"""Optimizers that follow a schedule: its rate now is that of the next step."""

import gc
import sys
import threading
import weakref

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError
from tests.optimizer import gradients, normed, refuses, small
from tests.optimizer.schedules import CLOSED, lr, walk


@nb.rule
def plain(param, grad, lr):
    return param - lr * grad


def own_rule(*args, **kwargs):
    return nb.Optimizer(plain, *args, **kwargs)


MAKERS = {"Momentum": nb.optimizer.Momentum, "SGD": nb.optimizer.SGD}
MAKERS |= {"Adam": nb.optimizer.Adam, "AdamW": nb.optimizer.AdamW, "rule": own_rule}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_maker
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("params", [small, normed])
def test_a_schedule_is_a_rate_set_by_hand(make, late, params):
    """The same bits; the step after a jump too."""
    schedule = lr.LinearWarmup(lr.CosineAnnealingDecay(0.4, 5), 3, 0.0, 0.4)
    mine, hers = params(), params()
    opt = make(0.7 if late else schedule, parameters=mine)
    twin = make(0.7, parameters=hers)
    if late:
        opt.set_lr_scheduler(schedule)
    for step, epoch in enumerate([None, None, None, None, 9, 2, None, 0]):
        assert opt.get_lr() == schedule.get_lr() == schedule.last_lr
        twin.set_lr(schedule())
        for each, its in ((opt, mine), (twin, hers)):
            each.step(gradients(its, step))
        schedule.step(epoch)
    assert mine.fingerprint() == hers.fingerprint()


def test_it_multiplies_what_groups_and_parameters_have():
    params = small(b=nb.ParamAttr(learning_rate=3.0))
    schedule = lr.StepDecay(0.5, 1, 0.5)
    opt = nb.optimizer.SGD(schedule, [{"params": [params["w"], params["b"]], "learning_rate": 2.0}])
    schedule.step()
    opt.add_param_group({"params": params["k"], "learning_rate": 0.5})  # late, and nothing moves
    assert schedule.state_dict() == {"last_epoch": 1, "last_lr": 0.25}
    before = params.numpy()
    opt.step({name: np.ones(p.shape) for name, p in params.items()})
    for name, rate in {"w": 0.5, "b": 1.5, "k": 0.125}.items():
        assert_array_equal(params[name].value, before[name] - rate)
    assert [row.rate for row in opt.explain()] == [0.5, 1.5, 0.125]


def test_a_step_asks_the_schedule_nothing():
    asked = []

    class Counting(lr.LRScheduler):
        def get_lr(self):
            asked.append(self.last_epoch)
            return 1.0

    params, schedule = small(), Counting(1.0)
    opt = nb.optimizer.SGD(schedule, params)
    for step in range(5):
        opt.step(gradients(params, step))
        opt.get_lr()
    assert asked == [0]
    schedule.step()
    assert asked == [0, 1]


def test_one_schedule_drives_several():
    schedule = lr.ExponentialDecay(0.5, 0.9)
    buffers = [small(dtype) for dtype in ("float32", "float64")]
    opts = [make(schedule, parameters=params) for make in MAKERS.values() for params in buffers]
    for rate in walk(lr.ExponentialDecay(0.5, 0.9), 5):
        assert {opt.get_lr() for opt in opts} == {rate}
        schedule.step()
    opts[0].set_lr_scheduler(None)
    opts[1].set_lr_scheduler(lr.StepDecay(0.25, 1))
    schedule.step(0)
    assert [opt.get_lr() for opt in opts] == [0.5 * 0.9**5, 0.25, *[0.5] * (len(opts) - 2)]


def test_compiled_code_sees_the_rate():
    params, schedule = small(), lr.StepDecay(0.5, 1, 0.5)
    twin = small()
    opt, other = nb.optimizer.SGD(schedule, params), nb.optimizer.SGD(0.5, twin)
    step, state = opt.jit_step()

    @numba.njit
    def run(state):
        return step(state)

    for number in range(4):
        assert state.lr[0] == schedule()
        params.set_grads(gradients(params, number))
        assert run(state) == 0
        other.set_lr(0.5**number * 0.5)
        other.step(gradients(twin, number))
        schedule.step()
    assert params.fingerprint() == twin.fingerprint()


def test_a_plateau_drives():
    schedule = lr.ReduceOnPlateau(0.5, factor=0.5, patience=0)
    opt = nb.optimizer.SGD(schedule, small())
    assert [schedule.step(1.0) or opt.get_lr() for _ in range(3)] == [0.5, 0.25, 0.125]
    schedule.last_lr = 0.4  # by hand
    assert opt.get_lr() == 0.4


# --- setting and letting go -----------------------------------------------------------------------


def test_set_lr_under_a_schedule():
    params, schedule = small(), lr.StepDecay(0.5, 1)
    opt = nb.optimizer.SGD(schedule, params)
    words = "SGD follows StepDecay set_lr_scheduler None set_lr"
    refuses(lambda: opt.set_lr(0.1), RuntimeError, words, params, opt)
    opt.set_lr_scheduler(None)
    assert opt.get_lr() == 0.5
    opt.set_lr(0.1)
    schedule.step()
    assert opt.get_lr() == 0.1


def test_another_schedule_takes_over():
    first, second = lr.StepDecay(0.5, 1), lr.StepDecay(0.25, 1)
    opt = nb.optimizer.SGD(first, small())
    first.step()
    opt.set_lr_scheduler(second)
    assert opt.get_lr() == 0.25
    first.step()
    assert opt.get_lr() == 0.25
    opt.set_lr_scheduler(second)  # again
    second.step()
    assert opt.get_lr() == 0.025


NO_SCHEDULES = [0.1, "StepDecay", lr.StepDecay, object(), [lr.StepDecay(0.5, 1)]]


@pytest.mark.parametrize("value", NO_SCHEDULES, ids=type)
def test_what_is_no_schedule(value):
    params, schedule = small(), lr.StepDecay(0.5, 1)
    opt = nb.optimizer.SGD(schedule, params)
    words = f"SGD.set_lr_scheduler schedule {type(value).__name__}"
    refuses(lambda: opt.set_lr_scheduler(value), TypeError, words, params, opt)
    schedule.step()
    assert opt.get_lr() == 0.05
    if not isinstance(value, float):
        words = "SGD learning_rate number nbopt.optimizer.lr"
        refuses(lambda: nb.optimizer.SGD(value, params), TypeError, words, params)


def test_a_group_has_a_number():
    params, schedule = small(), lr.StepDecay(0.5, 1)
    groups = [{"params": params["w"], "learning_rate": schedule}]
    refuses(lambda: nb.optimizer.SGD(0.1, groups), TypeError, "group 0 learning_rate number", params)


def test_a_schedule_that_was_not_started():
    class Forgetful(lr.LRScheduler):
        def __init__(self):
            self.base_lr = 0.5

    params = small()
    words = "Forgetful.__init__ super().__init__(learning_rate"
    refuses(lambda: nb.optimizer.SGD(Forgetful(), params), TypeError, words, params)
    opt = nb.optimizer.SGD(0.1, params)
    refuses(lambda: opt.set_lr_scheduler(Forgetful()), TypeError, words, params, opt)


def test_a_rate_that_float32_does_not_hold():
    schedule = lr.PiecewiseDecay([2, 3], [0.5, 1e39, 0.25])
    wide, narrow = small(), small("float32")
    opts = [nb.optimizer.SGD(schedule, params) for params in (wide, narrow)]
    schedule.step()
    for epoch in (None, 2):
        with pytest.raises(HyperparameterError, match=r"PiecewiseDecay at step 2.*float32"):
            schedule.step(epoch)
        assert (schedule.last_epoch, schedule(), *(opt.get_lr() for opt in opts)) == (1, 0.5, 0.5, 0.5)
    opts[1].set_lr_scheduler(None)
    schedule.step()
    words = "SGD learning_rate PiecewiseDecay float32"
    refuses(lambda: opts[1].set_lr_scheduler(schedule), HyperparameterError, words, narrow, opts[1])
    refuses(lambda: nb.optimizer.SGD(schedule, narrow), HyperparameterError, words, narrow)
    assert (opts[0].get_lr(), opts[1].get_lr()) == (1e39, 0.5)


def test_an_inner_schedule_is_not_left_behind():
    """The warm-up of a rate that float32 does not hold: both stay where they were."""
    inner = lr.PiecewiseDecay([2, 3], [0.5, 1e39, 0.25])
    schedule = lr.LinearWarmup(inner, 2, 0.0, 0.5)
    nobody, opt = nb.optimizer.SGD(schedule, small()), nb.optimizer.SGD(schedule, small("float32"))
    schedule.step(3)
    before = schedule.state_dict()
    with pytest.raises(HyperparameterError, match="float32"):
        schedule.step()
    assert (schedule.state_dict(), opt.get_lr(), nobody.get_lr()) == (before, 0.5, 0.5)


# --- who keeps whom -------------------------------------------------------------------------------


def test_a_schedule_keeps_no_optimizer_and_an_optimizer_its_schedule():
    schedule = lr.StepDecay(0.5, 1)
    opt = nb.optimizer.SGD(schedule, small())
    there = weakref.ref(opt)
    del opt
    gc.collect()
    assert there() is None
    schedule.step()
    opt = nb.optimizer.SGD(schedule, small())
    there = weakref.ref(schedule)
    del schedule
    gc.collect()
    assert opt.get_lr() == there()() == 0.05


def test_threads_each_with_a_schedule():
    def train(name, found):
        params, schedule = small(), CLOSED[name]()
        opt = nb.optimizer.Momentum(schedule, parameters=params)
        for step in range(30):
            opt.step(gradients(params, step))
            schedule.step()
        found[name] = params.fingerprint()

    alone, together = {}, {}
    for name in CLOSED:
        train(name, alone)
    threads = [threading.Thread(target=train, args=(name, together)) for name in CLOSED]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_optimizers_may_be_built_while_another_thread_steps_their_schedule():
    """Without a look at the followers at one moment, stepping fails: the set changed while it was read."""
    params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    schedule, failures, done = nb.optimizer.lr.ExponentialDecay(0.5, gamma=0.9999), [], threading.Event()

    def step():
        try:
            while not done.is_set():
                schedule.step()
        except RuntimeError as error:
            failures.append(error)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=step)
        thread.start()
        built = [nb.optimizer.SGD(schedule, params) for _ in range(400)]
        done.set()
        thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert not failures
    schedule.step()
    assert {opt.get_lr() for opt in built} == {schedule.last_lr}
