"""Memory stays as it is: thousands of steps, of every kind, leave nothing behind."""

import gc
import sys
import tracemalloc

import numba
import numpy as np
import pytest

import nbopt as nb

ROUNDS = 200  # in a window that is measured
WINDOWS = 3  # something that stays behind is there after each; what others do in the meantime is not


@pytest.fixture(autouse=True, scope="module")
def _alone():
    """Leave what earlier tests hold out of every collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def made(nonfinite="raise", rate=0.1):
    params = nb.ParameterBuffer.from_arrays({f"w{i}": np.ones(7, np.float32) for i in range(10)})
    clip = nb.ClipGradByGlobalNorm(1.0)
    return params, nb.optimizer.Momentum(rate, parameters=params, grad_clip=clip, nonfinite=nonfinite)


def steps():
    _, opt = made()
    return opt.step


def steps_with_gradients():
    params, opt = made()
    grads = {name: np.full(7, 0.5, np.float32) for name in params}
    return lambda: opt.step(grads)


def gradients():
    params, _ = made()
    grads = {name: np.full(7, 0.5, np.float32) for name in params}

    def use():
        params.set_grads(grads)
        params.set_grads(params.to_vector("grad"))
        params.clear_grad()
        params["w0"].grad = None

    return use


def schedule():
    rate = nb.optimizer.lr.CosineAnnealingDecay(0.1, T_max=50)
    _, opt = made(rate=rate)

    def use():
        opt.step()
        rate.step()

    return use


def skips():
    params, opt = made("skip")

    def use():
        params["w3"].grad = np.full(7, np.nan, np.float32)
        opt.step()
        params.clear_grad()
        opt.step()

    return use


def refusals():
    params, opt = made()
    params["w3"].grad = np.full(7, np.nan, np.float32)

    def use():
        with pytest.raises(nb.errors.NonFiniteGradientError):
            opt.step()

    return use


def compiled_steps():
    _, opt = made()
    step, state = opt.jit_step()

    @numba.njit
    def run(state, number):
        for _ in range(number):
            step(state)

    return lambda: run(state, 10)


def edits():
    params, opt = made()

    def use():
        opt.param_groups[0]["learning_rate"] = 0.5
        opt.set_lr(0.2)
        params["w1"].trainable = not params["w1"].trainable
        opt.step()

    return use


def reports():
    _, opt = made()

    def use():
        opt.step()
        return opt.grad_norm, opt.clip_coefficients, opt.step_count

    return use


def averages():
    params, opt = made()
    average = nb.ModelAverage(0.15, params)

    def use():
        opt.step()
        average.step()

    return use


KINDS = {
    make.__name__: make
    for make in (
        steps,
        steps_with_gradients,
        gradients,
        schedule,
        skips,
        refusals,
        compiled_steps,
        edits,
        reports,
        averages,
    )
}


def least_growth(use, measure, rounds):
    """Return what the window in which the fewest bytes stayed behind left."""
    grown = []
    for _ in range(WINDOWS):
        gc.collect()
        before = measure()
        for _ in range(rounds):
            use()
        gc.collect()
        grown.append(measure() - before)
    return min(grown)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_python_keeps_nothing_of_a_step(make, counted):
    use = make()
    for _ in range(20):
        use()
    tracemalloc.start()
    try:
        grown = least_growth(use, lambda: tracemalloc.get_traced_memory()[0], ROUNDS)
    finally:
        tracemalloc.stop()
    assert grown < 4 * ROUNDS  # no object is that small
    counted("rounds of steps after which no memory had stayed behind", WINDOWS * ROUNDS)


def resident():
    """Bytes of memory that this process takes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["steps", "skips"])
def test_the_process_keeps_nothing_of_a_step(kind, counted):
    use = KINDS[kind]()
    for _ in range(200):
        use()
    rounds = 3_000
    assert least_growth(use, resident, rounds) < 16 * rounds
    counted("rounds of steps after which no memory had stayed behind", WINDOWS * rounds)
