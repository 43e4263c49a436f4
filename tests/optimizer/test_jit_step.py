"""A step inside compiled code: the bits of `step`, what it returns, and other threads."""

import functools
import threading
import time

import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import ConcurrencyError, NonFiniteGradientError
from nbopt.kernels import tables as t
from nbopt.kernels.cpu import run
from tests.optimizer import picture
from tests.optimizer.jit import LARGE, RATE, SHAPES, STEPS, by_step, digest, mixed, one, take, train

NAN = float("nan")

# --- the three ways of taking a step --------------------------------------------------------------


def by_call(params, opt, grads):
    step, state = opt.jit_step()
    for k in range(len(grads)):
        params.flat_grad[:] = grads[k]
        state.lr[0] = RATE / (1 + 0.1 * k)
        assert step(state) == 0


def by_loop(params, opt, grads):
    step, state = opt.jit_step()
    assert step is take  # one function for all optimizers
    assert train(state, params.flat_grad, grads) == 0


def by_loop_after_steps(params, opt, grads):
    """Half by `step`, half by the loop, which goes on from there."""
    by_step(params, opt, grads[:40])
    _, state = opt.jit_step()
    rest = grads[40:]
    for k in range(len(rest)):
        params.flat_grad[:] = rest[k]
        opt.set_lr(RATE / (1 + 0.1 * (k + 40)))
        assert take(state) == 0


WAYS = {"call": by_call, "loop": by_loop, "both": by_loop_after_steps}


@functools.cache
def expected(kind, dtype, large=False):
    """The hash after all steps by `step`, in one thread."""
    params, opt, grads = mixed(kind, dtype, LARGE | SHAPES if large else SHAPES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "PARALLEL_FROM", 2**62)
        by_step(params, opt, grads)
    return digest(params, opt)


def slowly(*case):
    return pytest.param(*case, marks=pytest.mark.slow)  # compiles kernels that no other test needs


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Momentum", "float32"),
        ("Momentum", "float64"),
        ("Adam", "float32"),
        slowly("Adam", "float64"),
        slowly("user", "float32"),
        ("user", "float64"),
    ],
)
def test_the_bits_are_those_of_step(kind, dtype, way):
    params, opt, grads = mixed(kind, dtype)
    WAYS[way](params, opt, grads)
    assert opt.step_count == STEPS
    assert opt.state_dict()["late.step"] == STEPS // 2
    assert digest(params, opt) == expected(kind, dtype)


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


needs_two = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
COUNTS = [1, pytest.param(2, marks=needs_two)]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", COUNTS)
def test_threads_change_no_bit(count, dtype, threads):
    threads(count)
    params, opt, grads = mixed("Momentum", dtype, LARGE | SHAPES)
    by_loop(params, opt, grads)
    assert digest(params, opt) == expected("Momentum", dtype, large=True)


@needs_two
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_the_number_of_threads_may_change_after_the_call(before, after, threads):
    params, opt, grads = mixed("Momentum", "float32", LARGE | SHAPES)
    threads(before)
    _, state = opt.jit_step()
    assert state.call[t.CALL_THREADS] == before
    threads(after)
    assert train(state, params.flat_grad, grads) == 0
    assert digest(params, opt) == expected("Momentum", "float32", large=True)


# --- what a step returns --------------------------------------------------------------------------


LOOKS = {
    "check": lambda opt: opt.check(),
    "step": lambda opt: opt.step(),
    "step_count": lambda opt: opt.step_count,
    "steps_skipped": lambda opt: opt.steps_skipped,
    "grad_norm": lambda opt: opt.grad_norm,
    "clip_coefficients": lambda opt: opt.clip_coefficients,
    "state_dict": lambda opt: opt.state_dict(),
    "explain": lambda opt: opt.explain(),
    "last_loss": lambda opt: opt.last_loss,
    "param_groups": lambda opt: opt.param_groups,
    "parameters": lambda opt: opt.parameters,
    "get_lr": lambda opt: opt.get_lr(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_refusal_stays_until_someone_looks(look):
    params, opt, state = one()
    assert take(state) == 0
    params["w"].grad[1] = NAN
    before = params.fingerprint()
    assert take(state) == 1
    params["w"].grad[1] = 1.0
    assert take(state) == 1  # the gradient is finite again, and nobody has looked
    params["w"].grad[1] = NAN  # what is found then names the element that is bad then
    assert params.fingerprint() == before
    with pytest.raises(NonFiniteGradientError) as caught:
        LOOKS[look](opt)
    assert (caught.value.name, caught.value.index, caught.value.step) == ("w", (1,), 2)
    assert (opt.step_count, opt.steps_skipped) == (1, 1)
    params["w"].grad = np.ones(3)
    assert take(state) == 0
    assert opt.step_count == 2


def test_a_refusal_changes_nothing():
    params, opt, grads = mixed("Momentum", "float32")
    _, state = opt.jit_step()
    assert train(state, params.flat_grad, grads[:5]) == 0
    before = picture(params, opt)
    params["conv"].grad[3, 1, 2, 0] = np.inf
    assert take(state) == 1
    with pytest.raises(NonFiniteGradientError, match=r"step 6 .* 'conv'"):
        opt.check()
    params["conv"].grad[3, 1, 2, 0] = grads[4][params.slices["conv"]].reshape(4, 3, 3, 3)[3, 1, 2, 0]
    after = picture(params, opt)
    for found in (before, after):
        found["states"][0].pop("steps_skipped")
        found["states"][0].pop("steps_skipped_in_a_row")
    assert after == before


def test_skipped_steps_are_counted_and_stop_at_the_tenth():
    params, opt, state = one(nonfinite="skip")
    params["w"].grad[0] = NAN
    assert [take(state) for _ in range(9)] == [1] * 9
    assert (opt.steps_skipped, opt.step_count) == (9, 0)
    params["w"].grad[0] = 1.0
    assert take(state) == 0  # a good one, and the row is over
    params["w"].grad[0] = NAN
    assert [take(state) for _ in range(10)] == [1] * 10
    params["w"].grad[0] = 1.0
    assert take(state) == 1
    with pytest.raises(NonFiniteGradientError, match="10 refusals in a row"):
        opt.check()
    assert take(state) == 0
    assert (opt.steps_skipped, opt.step_count) == (19, 2)


def test_propagate_computes_on():
    params, opt, state = one(nonfinite="propagate")
    params["w"].grad[0] = NAN
    assert take(state) == 0
    np.testing.assert_array_equal(params["w"].value, [NAN, 0.0, 0.0])
    assert opt.step_count == 1


# --- another thread -------------------------------------------------------------------------------


def test_a_second_thread_is_told_and_changes_nothing():
    params, opt, state = one()
    opt._tables.counters[t.BUSY] = 1  # as if another thread were inside a step
    before = params.fingerprint()
    assert take(state) == 2
    with pytest.raises(ConcurrencyError):
        opt.step()
    assert params.fingerprint() == before
    assert opt.step_count == 0
    opt._tables.counters[t.BUSY] = 0
    assert take(state) == 0


@numba.njit(nogil=True)
def many(state, tries, outcomes):
    for _ in range(tries):
        outcomes[take(state)] += 1


def test_two_threads_step_one_model():
    """Every call either took a whole step or none."""
    params, opt, state = one(2_000_000)
    outcomes = np.zeros((2, 3), np.int64)
    thread = threading.Thread(target=many, args=(state, 100, outcomes[0]))
    thread.start()
    deadline = time.monotonic() + 60
    while not outcomes[:, 2].any() and thread.is_alive() and time.monotonic() < deadline:
        many(state, 1, outcomes[1])
    thread.join()
    assert outcomes[:, 2].any()  # either met the other one
    assert outcomes[:, 1].sum() == 0
    taken = outcomes[:, 0].sum()
    assert opt.step_count == taken
    np.testing.assert_array_equal(params["w"].value, 1.0 - taken)


@numba.njit(nogil=True)
def until(state, w, limit, started, after):
    """Step, until one leaves w as it is; return how many that took."""
    for k in range(limit):
        before = w[0]
        take(state)
        started[0] = 1
        if w[0] == before:
            after[0] = state.lr[0]
            return k
    return limit


EDITS = {
    "freeze": lambda params, opt: params.freeze("w"),
    "rate": lambda params, opt: opt.set_lr(0.0),
    "group-rate": lambda params, opt: opt.param_groups[0].__setitem__("learning_rate", 0.0),
    "rescale": lambda params, opt: opt.param_groups[0].__setitem__("rescale_grad", 0.0),
    "clip": lambda params, opt: opt.param_groups[0].__setitem__("grad_clip", nb.ClipGradByNorm(0.0)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_running_loop_sees_an_edit(edit):
    limit = 20_000_000  # seconds of steps, so that it ends whatever happens
    params, opt, state = one()
    started, after, taken = np.zeros(1), np.zeros(1), []
    arguments = (state, params["w"].value, limit, started, after)
    until(*arguments[:2], 1, started, after)  # compiled before the clock runs
    started[0] = 0
    thread = threading.Thread(target=lambda: taken.append(until(*arguments)))
    thread.start()
    while not started[0] and thread.is_alive():
        time.sleep(1e-3)
    EDITS[edit](params, opt)
    thread.join()
    assert 0 < taken[0] < limit
    assert after[0] == opt.get_lr()
