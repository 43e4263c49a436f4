"""The state of a jit step: live, alive as long as it is held, and nothing else in its place."""

import copy
import functools
import gc
import pickle
import weakref

import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt.kernels import tables as t
from nbopt.kernels.cpu.jit import JitState
from nbopt.layout import ALIGNMENT
from tests.optimizer.jit import by_step, mixed, one, take, train

# --- live -----------------------------------------------------------------------------------------


@numba.njit
def halve(state):
    state.lr[0] *= 0.5


def test_the_rate_is_the_optimizer_s():
    params, opt, state = one()
    halve(state)
    assert opt.get_lr() == 0.5
    opt.set_lr(0.25)
    assert state.lr[0] == 0.25
    assert take(state) == 0
    np.testing.assert_array_equal(params["w"].value, 0.75)


def set_in_group(key, value):
    return lambda params, opt: opt.param_groups[0].__setitem__(key, value)


def set_of_w(key, value):
    return lambda params, opt: setattr(params["w"], key, value)


CHANGES = {
    "freeze": (lambda params, opt: params.freeze("w"), 1.0),
    "absent": (lambda params, opt: params["w"].clear_grad(set_to_zero=False), 1.0),
    "rate": (set_of_w("learning_rate", 2.0), -5.0),
    "regularizer": (set_of_w("regularizer", nb.regularizer.L2Decay(1.0)), -3.0),
    "need_clip": (set_of_w("need_clip", False), -2.0),
    "value": (set_of_w("value", [7.0]), 4.0),
    "group-decay": (set_in_group("weight_decay", 1.0), -3.0),
    "group-clip": (set_in_group("grad_clip", nb.ClipGradByValue(0.5)), 0.5),
    "no-clip": (set_in_group("grad_clip", None), -2.0),
    "load": (lambda params, opt: opt.set_state_dict({**opt.state_dict(), "learning_rate": 0.0}), 1.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_calls_is_seen(change):
    """At first w is 1, its gradient 3, and the clip idle; where it is to be taken off, its limit is 0."""
    clip = nb.ClipGradByNorm(0.0 if change in ("need_clip", "no-clip") else 3.0)
    params, opt, state = one(1, grad_clip=clip)
    params["w"].grad = [3.0]
    edit, expected = CHANGES[change]
    edit(params, opt)
    assert take(state) == 0
    assert params["w"].value.item() == expected


def test_a_new_group_is_seen():
    params = nb.ParameterBuffer.from_arrays({"a": [1.0], "b": [1.0]})
    opt = nb.optimizer.SGD(1.0, params.select("a"))
    _, state = opt.jit_step()
    params.set_grads({"a": [1.0], "b": [1.0]})
    assert take(state) == 0
    opt.add_param_group({"params": params["b"], "learning_rate": 0.5})
    assert take(state) == 0
    np.testing.assert_array_equal(params.to_vector(), [-1.0, 0.5])


def test_a_rate_is_written_into():
    _, opt, state = one()
    with pytest.raises(AttributeError, match=r"lr of a JitState cannot be set; write state\.lr\[0\] = value"):
        state.lr = 0.5
    with pytest.raises(AttributeError, match="learning_rate of a JitState cannot be set"):
        state.learning_rate = 0.5
    state.lr[0] = 0.5
    assert opt.get_lr() == 0.5


# --- life time ------------------------------------------------------------------------------------


def content(raw):
    """The part of an allocation that the buffer uses."""
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + raw.size - ALIGNMENT].copy()


def test_the_state_keeps_alive_what_it_needs():
    """And only as long as it lives itself."""
    params, opt, grads = mixed("Momentum", "float32")
    other, again, _ = mixed("Momentum", "float32")
    state, grad = opt.jit_step()[1], params.flat_grad
    held = [weakref.ref(params._seal().data.base), weakref.ref(opt._tables.accumulators)]
    gone = [weakref.ref(params), weakref.ref(opt)]
    del params, opt
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert train(state, grad, grads) == 0
    by_step(other, again, grads)
    np.testing.assert_array_equal(content(held[0]()), content(other._seal().data.base))
    np.testing.assert_array_equal(held[1](), again._tables.accumulators)
    del state
    gc.collect()
    assert [ref() for ref in held] == [None, None]


def test_a_copied_optimizer_has_a_state_of_its_own():
    params, opt, state = one()
    both, twin = copy.deepcopy((params, opt))
    _, other = twin.jit_step()
    assert other.lr is not state.lr
    assert take(other) == take(other) == take(state) == 0
    assert (opt.step_count, twin.step_count) == (1, 2)
    np.testing.assert_array_equal([params["w"].value[0], both["w"].value[0]], [0.0, -1.0])


def test_a_state_is_not_copied():
    _, opt, state = one()
    assert copy.copy(state) is state
    calls = [lambda: copy.deepcopy(state), lambda: copy.deepcopy({"opt": opt, "state": state})]
    calls += [functools.partial(pickle.dumps, state, k) for k in range(pickle.HIGHEST_PROTOCOL + 1)]
    for call in calls:
        with pytest.raises(TypeError, match=r"copy the optimizer and call jit_step\(\) of the copy"):
            call()


# --- wrong ways to use it -------------------------------------------------------------------------


def test_a_state_that_a_closure_holds_is_refused():
    params, opt, state = one()

    @numba.njit
    def enclosed():
        return take(state)

    before = params.fingerprint()
    with pytest.raises(RuntimeError, match=r"pass it as an argument: def train\(state, \.\.\.\)"):
        enclosed()
    assert params.fingerprint() == before
    assert take(state) == 0
    assert opt.step_count == 1


def test_a_state_that_is_global_is_refused():
    _, opt, state = one()
    namespace = {"take": take, "state": state}
    exec("def of_module():\n    return take(state)", namespace)
    with pytest.raises(RuntimeError, match="pass it as an argument"):
        numba.njit(namespace["of_module"])()
    assert opt.step_count == 0


def test_copied_arrays_are_no_state():
    _, opt, state = one()
    with pytest.raises(RuntimeError, match="pass it as an argument"):
        take(JitState(state.lr.copy(), state.call.copy()))
    assert opt.step_count == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda state: None,
        lambda state: 1,
        lambda state: tuple(state),
        lambda state: state.call,
        lambda state: JitState(state.lr, state.lr),
        lambda state: JitState(state.lr, state.call.astype(np.int32)),
        lambda state: JitState(state.lr, None),
        lambda state: JitState(state.lr, np.zeros(2 * t.CALL_COLUMNS, np.int64)[::2]),
        lambda state: JitState(state.lr, np.zeros((1, t.CALL_COLUMNS), np.int64)),
    ],
    ids=["none", "number", "tuple", "array", "reals", "narrow", "missing", "strided", "matrix"],
)
def test_another_argument_is_refused_by_the_compiler(make):
    _, opt, state = one()
    with pytest.raises((TypeError, numba.TypingError)):
        take(make(state))
    assert opt.step_count == 0


@pytest.mark.parametrize("size", range(t.CALL_COLUMNS))
def test_a_row_that_is_too_short_is_not_read(size):
    _, opt, state = one()
    with pytest.raises(RuntimeError, match="pass it as an argument"):
        take(JitState(state.lr, state.call[:size]))
    assert opt.step_count == 0
