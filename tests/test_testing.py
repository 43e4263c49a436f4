"""`nbopt.testing`: what it finds, and how it says so."""

import itertools
import re

import numpy as np
import pytest

import nbopt as nb
from tests.checkpoint import Counter, gradients, model, momentum


def run_of(change=lambda params, opt, i: None, keep=lambda params, opt: (params, opt)):
    """A `make_run` whose steps do one thing more, and which saves what `keep` returns."""

    def make_run():
        params = model()
        opt = momentum(params)

        def step(i):
            opt.step(gradients(params, i))
            change(params, opt, i)

        return step, keep(params, opt)

    return make_run


@pytest.mark.parametrize(
    "keep",
    [
        lambda params, opt: (params, opt),
        lambda params, opt: [opt, params],
        lambda params, opt: {"model": params, "optimizer": opt},
    ],
    ids=["tuple", "list", "dictionary"],
)
@pytest.mark.parametrize("at_step", [0, 1, 4])
def test_a_run_that_forgets_nothing(at_step, keep):
    nb.testing.assert_resume_exact(run_of(keep=keep), at_step)


def test_one_object_without_a_tuple():
    def make_run():
        counter = Counter()

        def step(i):
            counter.count += i

        return step, counter

    nb.testing.assert_resume_exact(make_run, 3)


def test_a_schedule_and_averages():
    def make_run():
        params = model()
        schedule = nb.optimizer.lr.StepDecay(0.1, step_size=2)
        opt, ema = nb.optimizer.Momentum(schedule, 0.9, params), nb.ExponentialMovingAverage(0.9, params)

        def step(i):
            opt.step(gradients(params, i))
            schedule.step()
            ema.update()

        return step, {"params": params, "opt": opt, "ema": ema}

    nb.testing.assert_resume_exact(make_run, 3, further=4)


def failure(make_run, at_step=3, **options):
    with pytest.raises(AssertionError) as caught:
        nb.testing.assert_resume_exact(make_run, at_step, **options)
    return str(caught.value)


NUMBER = r"-?\d\S*"


def test_a_forgotten_optimizer():
    found = failure(run_of(keep=lambda params, opt: (params,)))
    pattern = (
        rf"after step 3, the first since the restore, 'fc.weight_g' differs first at \(0, 0\): {NUMBER} "
    )
    assert re.fullmatch(rf"{pattern}without a stop, {NUMBER} with it", found)


def test_forgotten_values():
    found = failure(run_of(keep=lambda params, opt: (opt,)))
    assert found.startswith("right after the restore, 'fc.weight of buffer 0' differs first at (0, 0): ")


def test_forgotten_gradients():
    """A step on a gradient of the step before."""

    def again(params, opt, i):
        opt.step()

    nb.testing.assert_resume_exact(run_of(again), 2)  # written anew before

    def make_run():
        params = model()
        opt = momentum(params)

        def step(i):
            if i % 4 == 0:
                params.set_grads(gradients(params, i))
            opt.step()

        return step, (params, opt)

    assert "after step 2, the first since the restore, 'fc.weight_g'" in failure(make_run, 2)
    nb.testing.assert_resume_exact(make_run, 4)


def test_a_late_difference_is_found_and_numbered():
    """What is forgotten shows only three steps later."""

    def make_run():
        step, (params, opt) = run_of()()
        seen = []

        def late(i):
            seen.append(i)
            step(i)
            if i == 6 and len(seen) > 5:
                params["out.weight"].value[6, 2] += 1

        return late, (params, opt)

    found = failure(make_run, 4)
    assert found.startswith(
        "after step 6, number 3 since the restore, 'out.weight' differs first at (6, 2): "
    )
    nb.testing.assert_resume_exact(make_run, 4, further=2)


def test_a_run_that_cannot_be_repeated():
    numbers = itertools.count()

    def change(params, opt, i):
        params["scale"].value = float(next(numbers))

    found = failure(run_of(change))
    assert found.startswith(
        "two runs differ after 3 steps, before anything was saved: 'scale' differs first at ("
    )
    assert "two runs differ at once" in failure(lambda: (lambda i: None, Counter(next(numbers))), 0)


def test_values_that_differ():
    class Forgetful(Counter):
        def set_state_dict(self, state):
            self.count = -0.0

    def make_run():
        return (lambda i: None), Forgetful(0.0)

    assert "'count' differs: 0.0 without a stop, -0.0 with it" in failure(make_run, 0)


def test_nan_is_nan():
    def make_run():
        counter = Counter(float("nan"))
        counter.history = np.array([np.nan, 1.0])
        return (lambda i: None), counter

    nb.testing.assert_resume_exact(make_run, 1)


def test_a_shape_that_differs():
    class Growing(Counter):
        def set_state_dict(self, state):
            super().set_state_dict(state)
            self.history = np.append(self.history, 1.0)

    found = failure(lambda: ((lambda i: None), Growing()), 0)
    assert "'history' differs: float64 of shape (0,) without a stop, float64 of shape (1,) with it" in found


def test_absent_gradients_count():
    made = []

    def make_run():
        step, (params, opt) = run_of()()
        made.append(params)
        if len(made) == 2:
            params["fc.bias"].grad = None
        return step, (params, opt)

    found = failure(make_run, 0)
    words = "'the absent gradients of ParameterBuffer' differs: [] without a stop, ['fc.bias'] with it"
    assert found == f"two runs differ at once, before anything was saved: {words}"


@pytest.mark.parametrize("second", [1, 2], ids=["repeated", "restored"])
@pytest.mark.parametrize("which", ["object", "buffer"])
def test_runs_that_share(which, second):
    """A run that is compared with itself would forget nothing."""
    shared, made = model(), []

    def make_run():
        made.append(None)
        params = shared if len(made) in (1, second + 1) else model()
        opt = momentum(params)
        return (lambda i: opt.step(gradients(params, i))), (params, opt) if which == "object" else (opt,)

    with pytest.raises(TypeError, match="two runs share one ParameterBuffer; make it inside make_run"):
        nb.testing.assert_resume_exact(make_run, 0)


@pytest.mark.parametrize("made", [None, (1, 2), (lambda i: None,), [lambda i: None, ()]])
def test_what_make_run_must_return(made):
    with pytest.raises(TypeError, match=r"make_run must return \(step, objects\)"):
        nb.testing.assert_resume_exact(lambda: made, 1)


def test_numbers_of_steps():
    for options, error in (({"at_step": -1}, ValueError), ({"at_step": 1.5}, TypeError)):
        with pytest.raises(error, match="at_step"):
            nb.testing.assert_resume_exact(run_of(), **options)
    with pytest.raises(ValueError, match="further must be >= 1"):
        nb.testing.assert_resume_exact(run_of(), 1, further=0)
