"""What a refused step leaves alone beside the parameters, and finite gradients whose update overflows: N7."""

import re

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import NonFiniteGradientError
from tests.optimizer import gradients, normed, small
from tests.optimizer.test_nonfinite import everything

NAN, INF = float("nan"), float("inf")
ADAMS = {
    "Adam": lambda params, mode: nb.optimizer.Adam(0.1, parameters=params, amsgrad=True, nonfinite=mode),
    "AdamW": lambda params, mode: nb.optimizer.AdamW(0.1, parameters=params, nonfinite=mode),
}


def by_python(opt):
    return opt.step


def by_loop(opt):
    step, state = opt.jit_step()
    return lambda: step(state)


ways = pytest.mark.parametrize("way", [by_python, by_loop])


def refused(opt, call):
    """The error of a step, or of the check after one of compiled code."""

    def step_and_look():
        call()
        opt.check()

    with pytest.raises(NonFiniteGradientError) as caught:
        step_and_look()
    return caught.value


# --- what is left alone ---------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("mode", ["raise", "skip"])
@pytest.mark.parametrize("adam", ADAMS)
def test_moments_and_step_counts_stay(adam, mode, way):
    """Bias correction counts steps: the run goes on with the bits of one that had no bad gradient."""
    params, plain = small(), small()
    opt, reference = ADAMS[adam](params, mode), ADAMS[adam](plain, mode)
    step = way(opt)
    for seed in range(4):
        bad = gradients(params, seed)
        bad["k"][1] = INF
        params.set_grads(bad)
        before = everything(params, opt)
        if mode == "skip":
            step()
        else:
            error = refused(opt, step)
            assert (error.name, error.index, error.step) == ("k", (1,), seed + 1)
        assert everything(params, opt) == before
        params.set_grads(gradients(params, seed))
        step()
        reference.step(gradients(plain, seed))
    assert params.fingerprint() == plain.fingerprint()
    assert (opt.step_count, opt.steps_skipped) == (4, 4)


@ways
def test_a_model_average_takes_nothing_in(way):
    averages = []
    for is_spoilt in (True, False):
        params = small()
        opt = nb.optimizer.Momentum(0.1, parameters=params, nonfinite="skip")
        mean, step = nb.ModelAverage(0.5, params, 2, 4), way(opt)
        for seed in range(3):
            params.set_grads(gradients(params, seed))
            step()
            mean.step()
            if is_spoilt:
                params["w"].grad[1, 2] = NAN
                step()
                mean.step()
        assert (opt.step_count, opt.steps_skipped) == (3, 3 * is_spoilt)
        with mean.apply():
            averages.append(params.fingerprint())
    assert averages[0] == averages[1]


@ways
@pytest.mark.parametrize("part", ["w_v", "w_g"])
def test_a_value_behind_a_weight_is_named(part, way):
    params = normed()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params.set_grads(gradients(params))
    spoilt = params[part].numpy()
    spoilt[1, 0] = NAN
    params[part].set_value(spoilt)
    before = everything(params, opt)
    error = refused(opt, way(opt))
    assert (error.name, error.index, error.step) == ("w", (1, 0), 1)
    assert f"'{part}'" in str(error)
    assert everything(params, opt) == before


# --- an update that overflows ---------------------------------------------------------------------


@ways
@pytest.mark.parametrize("mode", ["raise", "skip", "propagate"])
def test_an_update_that_overflows_is_a_step(mode, way):  # O36
    """The gradient is finite: nothing is refused, nor counted so, then or later."""
    params = small()
    opt = nb.optimizer.Momentum(1e10, 0.9, params, nonfinite=mode)
    grads = gradients(params)
    grads["b"][:] = [1e300, -1e300, 0.0]
    params.set_grads(grads)
    before = params["b"].numpy()
    step = way(opt)
    step()
    np.testing.assert_array_equal(params["b"].value, [-INF, INF, before[2]])
    assert np.isfinite(params["w"].value).all()
    assert mode == "propagate" or np.isfinite(opt.grad_norm)
    params.set_grads(gradients(params, 2))
    step()
    opt.check()
    assert (opt.step_count, opt.steps_skipped) == (2, 0)
    assert opt.overflowed == {"b": 2}


def test_what_overflowed_is_counted_by_name_without_padding_and_what_others_move():
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(5, np.float32), "other": np.ones(3, np.float32)})
    opt = nb.optimizer.Adam(0.1, parameters=[params["w"]])
    assert opt.overflowed == {}
    params.trainable_flat[5:32] = NAN  # padding
    params["other"].value = [NAN, INF, 1.0]
    opt.step({"w": [1e25, 1.0, -1e25, 0.0, 1.0]})
    assert opt.overflowed == {"w.moment2": 2}
    params["w"].value[4] = -INF
    assert opt.overflowed == {"w": 1, "w.moment2": 2}


def test_what_overflowed_of_a_weight_is_counted_in_its_parts():
    params = normed()
    opt = nb.optimizer.SGD(1e308, parameters=params)
    opt.step({"w": np.full((2, 3), 1e10), "b": np.zeros(3)})
    assert set(opt.overflowed) <= {"w_g", "w_v"}
    assert opt.overflowed


def test_counting_what_overflowed_raises_first_what_is_pending():
    params = small()
    opt = nb.optimizer.Momentum(0.1, 0.9, params)
    params["b"].grad[1] = NAN
    by_loop(opt)()
    refused(opt, lambda: opt.overflowed)


@ways
@pytest.mark.parametrize("name", ["b", "w"])
def test_a_refusal_tells_of_a_value_that_is_not_finite(name, way):
    """A model that has left the range gives such gradients: what went first is the update."""
    params = normed()
    opt = nb.optimizer.Momentum(1e10, 0.9, params, nonfinite="raise")
    grads = gradients(params)
    grads[name].flat[1] = 1e300
    params.set_grads(grads)
    step = way(opt)
    step()
    opt.check()
    part = {"b": "b", "w": "w_g"}[name]
    assert not np.isfinite(params[part].value).all()
    params[name].grad = np.full_like(grads[name], NAN)
    error = refused(opt, step)
    assert (error.name, error.step) == (name, 2)
    assert f"the gradient of {name!r} is nan" in str(error)
    assert re.search(rf"the value of '{part}' is \S+ at \([\d, ]+\) already", str(error))


def test_a_gradient_that_was_mended_since_stays_the_reason():
    params = small()
    opt = nb.optimizer.Momentum(0.1, 0.9, params)
    params["b"].set_value([INF, *params["b"].value[1:]])
    params["b"].grad[1] = NAN
    by_loop(opt)()
    params["b"].grad = np.zeros_like(params["b"].grad)
    error = refused(opt, opt.check)
    assert "the gradient of 'b' was not finite, and the value of 'b' is inf at (0,) already" in str(error)
    assert (error.name, error.index) == ("b", ())


@ways
def test_a_refusal_tells_nothing_of_values_that_are_finite(way):
    params = small()
    opt = nb.optimizer.Momentum(0.1, 0.9, params)
    params["b"].grad[1] = NAN
    assert "value" not in str(refused(opt, way(opt)))


@ways
def test_a_magnitude_that_overflows_is_named_by_the_next_step(way):
    """Nothing can be made of an infinite g."""
    params = normed()
    opt = nb.optimizer.SGD(1e308, parameters=params, nonfinite="raise")
    params.set_grads({"w": np.full((2, 3), 1e10), "b": np.zeros(3)})
    step = way(opt)
    step()
    opt.check()
    assert (opt.step_count, opt.steps_skipped) == (1, 0)
    error = refused(opt, step)
    assert (error.name, error.step) == ("w", 2)
    assert "'w_g' is -inf" in str(error)
    assert (opt.step_count, opt.steps_skipped) == (1, 1)
