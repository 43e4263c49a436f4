"""`apply` and `restore`: whatever happens in between, the parameters' own values come back."""

import contextlib
import copy
import gc
import pickle
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import ConcurrencyError
from nbopt.kernels import tables as t
from nbopt.parameter import Parameter
from tests.averaging import bits_of, buffer, normed_buffer


def model_average(params):
    return nb.ModelAverage(0.5, params)


def exponential(params):
    return nb.ExponentialMovingAverage(0.5, params)


def take(average):
    getattr(average, "step", getattr(average, "update", None))()


@pytest.fixture(params=[model_average, exponential], ids=["window", "exponential"])
def make(request):
    return request.param


@pytest.fixture(params=[buffer, normed_buffer], ids=["plain", "normed"])
def params(request):
    return request.param()


@pytest.fixture
def average(make, params):
    """An average that differs from the values."""
    average = make(params)
    take(average)
    move(params)
    take(average)
    return average


def move(params):
    opt = nb.optimizer.SGD(0.1, parameters=params)
    rng = np.random.default_rng(3)
    opt.step({name: rng.normal(size=p.shape) for name, p in params.items()})


# --- the ways to use it ---------------------------------------------------------------------------


def test_a_with_statement(params, average):
    live = bits_of(params)
    with average.apply() as nothing:
        assert nothing is None
        assert average.is_applied
        averaged = bits_of(params)
    assert averaged[0] != live[0]
    assert averaged[1] == live[1]
    assert bits_of(params) == live
    assert not average.is_applied


def test_a_plain_call(params, average):
    live = bits_of(params)
    with average.apply():
        averaged = bits_of(params)
    for need_restore in (True, False):
        average.apply(need_restore=need_restore)
        gc.collect()
        assert bits_of(params) == averaged
        average.restore()
        assert bits_of(params) == live


def test_a_with_statement_that_does_not_restore(params, average):
    live = bits_of(params)
    with average.apply(need_restore=False):
        averaged = bits_of(params)
    assert average.is_applied
    assert bits_of(params) == averaged
    average.restore()
    assert bits_of(params) == live


def test_restored_within_the_with_statement(params, average):
    live = bits_of(params)
    with average.apply():
        average.restore()
        assert bits_of(params) == live
    assert bits_of(params) == live


def test_applied_anew_within_the_with_statement(params, average):
    """The end of the first is not the end of the second."""
    live = bits_of(params)
    with average.apply():
        average.restore()
        average.apply()
    assert average.is_applied
    average.restore()
    assert bits_of(params) == live


def test_a_later_with_statement(average):
    context = average.apply()
    with context:
        assert average.is_applied
    with pytest.raises(RuntimeError, match=r"restored already.*apply\(\)"), context:
        raise AssertionError("not reached")


def test_an_exit_stack(params, average):
    live = bits_of(params)
    with contextlib.ExitStack() as stack:
        stack.enter_context(average.apply())
        assert bits_of(params) != live
    assert bits_of(params) == live


def test_views_stay(params, average):
    view = params["b"].value
    live = view.copy()
    with average.apply():
        assert not np.array_equal(view, live)
    assert_array_equal(view, live)


# --- nothing is lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_inside(params, average, error):
    live = bits_of(params)

    def evaluate():
        with average.apply():
            params["b"].value = np.zeros(7)
            raise error

    with pytest.raises(error):
        evaluate()
    assert bits_of(params) == live
    assert not average.is_applied


def test_an_exception_inside_without_restore(params, average):
    live = bits_of(params)
    with pytest.raises(ValueError, match="inside"), average.apply(need_restore=False):
        raise ValueError("inside")
    assert average.is_applied
    average.restore()
    assert bits_of(params) == live


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_exception_while_it_is_applied(monkeypatch, make, error):
    params = normed_buffer()
    average = make(params)
    take(average)
    move(params)
    live = bits_of(params)

    def fail(self):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Parameter, "_recompose", fail)
        with pytest.raises(error):
            average.apply()
    assert bits_of(params) == live
    assert not average.is_applied
    with average.apply():
        assert bits_of(params) != live
    assert bits_of(params) == live


def test_applied_twice(params, average):
    live = bits_of(params)
    with average.apply():
        averaged = bits_of(params)
        with pytest.raises(RuntimeError, match=r"restore\(\) before the next apply"):
            average.apply()
        assert bits_of(params) == averaged
    assert bits_of(params) == live


def test_applied_twice_where_nothing_was_taken_in(make, params):
    average = make(params)
    with pytest.warns(RuntimeWarning, match=r"has taken no values in.* call \w+\.(step|update)\(\)"):
        applied = average.apply()
    with applied, pytest.raises(RuntimeError, match=r"restore\(\)"):
        average.apply()


def test_restored_twice(params, average):
    average.apply()
    average.restore()
    live = bits_of(params)
    with pytest.raises(RuntimeError, match=r"apply\(\) comes first"):
        average.restore()
    assert bits_of(params) == live


def test_two_averages_of_the_same_parameters(params, average):
    """Restored in the wrong order, one would put the other's averages back."""
    other = nb.ExponentialMovingAverage(0.9, params["b"])
    other.update()
    live = bits_of(params)
    with average.apply():
        with pytest.raises(RuntimeError, match="'b' holds the average of another"):
            other.apply()
        assert not other.is_applied
    with other.apply(), pytest.raises(RuntimeError, match="'b' holds"):
        average.apply()
    assert bits_of(params) == live


def test_averages_of_g_and_of_v():
    """Both change w, so they do not go together either."""
    params = normed_buffer()
    one, two = nb.ModelAverage(0.5, params["w_g"]), nb.ModelAverage(0.5, params["w_v"])
    one.step()
    two.step()
    with one.apply(), pytest.raises(RuntimeError, match="'w' holds"):
        two.apply()


def test_averages_of_different_parameters_and_buffers(make):
    params, others = buffer(), buffer()
    averages = [make(params["w"]), make(params["b"]), make(others)]
    live = bits_of(params)
    for average in averages:
        take(average)
    move(params)
    live = bits_of(params)
    for average in averages:
        average.apply()
    for average in averages:
        average.restore()
    assert bits_of(params) == live


def test_an_average_that_goes_leaves_what_it_replaced(make, params):
    """With the buffer: another average puts it back."""
    average, again = make(params), make(params)
    for one in (average, again):
        take(one)
    move(params)
    live = bits_of(params)
    kind = type(average).__name__
    average.apply()
    averaged = bits_of(params)
    del average
    gc.collect()
    assert bits_of(params) == averaged != live
    with pytest.raises(RuntimeError, match=rf"{kind} that is gone; call this one's restore\(\) first"):
        again.apply()
    assert not again.is_applied
    again.restore()
    assert bits_of(params) == live
    with pytest.raises(RuntimeError, match="own values"):
        again.restore()
    with again.apply():
        assert again.is_applied
    assert bits_of(params) == live


def test_its_own_values_come_first(make):
    """Then those of an average that is gone."""
    params = buffer()
    average, gone = make(params["w"]), make(params["b"])
    take(average)
    take(gone)
    move(params)
    live = bits_of(params)
    gone.apply()
    average.apply()
    del gone
    gc.collect()
    average.restore()
    assert not average.is_applied
    assert params["w"].value.tobytes() == live[0][: params["w"].value.nbytes]
    assert bits_of(params) != live
    average.restore()
    assert bits_of(params) == live


@pytest.mark.parametrize("averaged", ["w_g", "w_v"])
def test_the_part_that_is_not_averaged_may_move(make, averaged):
    """Then w follows from its value of now, and from the own value of the other."""
    params = normed_buffer()
    average = make(params[averaged])
    take(average)
    move(params)
    own = params[averaged].numpy()
    with average.apply():
        move(params)
        for part in (params["w_g"], params["w_v"]):
            part.value = 3.0 * part.numpy()
    assert_array_equal(params[averaged].value, own)
    composed = nb.weight_norm(params["w_v"].numpy(), params["w_g"].numpy(), 0)
    assert_array_equal(params["w"].value, composed)


@pytest.mark.parametrize("with_average", [False, True])
def test_a_checkpoint_is_not_restored_under_averages(tmp_path, params, average, with_average):
    """The end of the block would undo it."""
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    things = [params, opt, average] if with_average else [params, opt]
    nb.save(tmp_path / "a", *things)
    saved = params.fingerprint()
    move(params)
    opt.step({"b": np.ones(7)})
    live = bits_of(params)
    with average.apply():
        averaged = bits_of(params)
        with pytest.raises(RuntimeError, match=r"restore\(\)"):
            nb.restore(tmp_path / "a", *things)
        assert (bits_of(params), opt.step_count) == (averaged, 1)
        nb.restore(tmp_path / "a", opt)
    assert (bits_of(params), opt.step_count) == (live, 0)
    nb.restore(tmp_path / "a", *things)
    assert params.fingerprint() == saved


def test_what_is_written_inside_is_given_up(params, average):
    """By hand or by a step; but not the velocities of the optimizer."""
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    live = bits_of(params)
    with average.apply():
        opt.step({"b": np.ones(7)})
        params["b"].value = np.zeros(7)
    assert bits_of(params)[0] == live[0]
    assert opt.state_dict()["b.step"] == 1


def test_what_is_not_averaged_keeps_what_is_written():
    """As running statistics that are computed anew with the averages."""
    params = buffer(b=nb.ParamAttr(trainable=False))
    average = nb.ModelAverage(0.5, params)
    average.step()
    with average.apply():
        params["b"].value = np.arange(7.0)
    assert_array_equal(params["b"].value, np.arange(7.0))


INSIDE = {
    "take": take,
    "state_dict": lambda average: average.state_dict(),
    "set_state_dict": lambda average: average.set_state_dict({}, strict=False),
    "load_state_dict": lambda average: average.load_state_dict({}, strict=False),
}


@pytest.mark.parametrize("call", INSIDE.values(), ids=INSIDE)
def test_what_is_refused_inside(params, average, call):
    live, state = bits_of(params), average.state_dict()
    with average.apply(), pytest.raises(RuntimeError, match=r"restore\(\)"):
        call(average)
    assert bits_of(params) == live
    assert repr(average.state_dict()) == repr(state)


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.array([True])])
def test_need_restore_is_a_flag(params, average, value):
    """Paddle's first argument is an executor."""
    live = bits_of(params)
    with pytest.raises(TypeError, match="need_restore"):
        average.apply(value)
    assert bits_of(params) == live


# --- copies ---------------------------------------------------------------------------------------


def out_of_band(value):
    buffers = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])  # read-only


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "out of band": out_of_band,
}
each_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)


@each_copy
def test_copies_are_tied_to_the_copied_buffer(params, average, duplicate):
    others, twin = duplicate((params, average))
    assert twin._buffer is others
    assert repr(twin.state_dict()) == repr(average.state_dict())
    before = repr(average.state_dict())
    live = bits_of(params)
    others["b"].value += 1
    take(twin)
    assert repr(average.state_dict()) == before
    with twin.apply():
        assert bits_of(params) == live
        with average.apply():
            pass
    take(average)
    assert repr(twin.state_dict()) != repr(average.state_dict())


@each_copy
def test_a_copy_alone_brings_its_buffer(average, duplicate):
    twin = duplicate(average)
    assert [p.name for p in twin.parameters] == [p.name for p in average.parameters]
    assert twin._buffer is not average._buffer
    assert repr(twin) == repr(average)


@each_copy
def test_a_copy_of_applied_averages_can_be_restored(params, average, duplicate):
    live = bits_of(params)
    with average.apply():
        averaged = bits_of(params)
        others, twin = duplicate((params, average))
    assert bits_of(params) == live
    assert twin.is_applied
    assert bits_of(others) == averaged
    twin.restore()
    assert bits_of(others) == live


# --- threads --------------------------------------------------------------------------------------

CALLS = {**INSIDE, "apply": lambda average: average.apply(), "restore": lambda average: average.restore()}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_one_call_at_a_time(params, average, call):
    live = bits_of(params)
    with average._lock, pytest.raises(ConcurrencyError, match="another thread"):
        call(average)
    assert bits_of(params) == live
    take(average)


STEPPED_CALLS = {
    "take": take,
    "apply": lambda average: average.apply(),
    "restore": lambda average: average.restore(),
}


@pytest.mark.parametrize("call", STEPPED_CALLS.values(), ids=STEPPED_CALLS)
def test_not_during_a_step(params, average, call):
    """It would take in, or put back, what is half of one step and half of the next."""
    first, opt = (nb.optimizer.Momentum(0.1, parameters=params) for _ in range(2))
    if call is STEPPED_CALLS["restore"]:
        average.apply()
    live, sums = bits_of(params), average._sums.copy()
    opt._tables.counters[t.BUSY] = 1
    with pytest.raises(ConcurrencyError, match="is stepping these parameters"):
        call(average)
    assert first._tables.counters[t.BUSY] == 0
    opt._tables.counters[t.BUSY] = 0
    assert bits_of(params) == live
    assert_array_equal(average._sums, sums)
    call(average)
    first.step()


@pytest.mark.parametrize("call", STEPPED_CALLS.values(), ids=STEPPED_CALLS)
def test_no_step_meanwhile(monkeypatch, params, average, call):
    """Neither from Python nor from compiled code; and steps afterwards, also where the call failed."""
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    step, state = opt.jit_step()
    assert step(state) == 0
    if call is STEPPED_CALLS["restore"]:
        average.apply()
    told, put_back, sweep = [], type(average)._put_back, type(average)._sweep

    def steps(original, *args):
        told.append(step(state))
        with pytest.raises(ConcurrencyError, match="is stepping this Momentum"):
            opt.step()
        original(*args)

    monkeypatch.setattr(type(average), "_put_back", lambda *args: steps(put_back, *args))
    monkeypatch.setattr(type(average), "_sweep", lambda *args: steps(sweep, *args))
    call(average)
    assert told == [t.CONCURRENT]
    assert step(state) == 0

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(type(average), "_put_back", fail)
    monkeypatch.setattr(type(average), "_sweep", fail)
    with pytest.raises(MemoryError):
        average.restore() if average.is_applied else take(average)
    assert step(state) == 0


def test_two_threads_count_every_call(make):
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(1000)})
    average = make(params)
    taken = []

    def run():
        for _ in range(300):
            with contextlib.suppress(ConcurrencyError):
                take(average)
                taken.append(1)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    twin = make(params)
    for _ in taken:
        take(twin)
    assert repr(average.state_dict()) == repr(twin.state_dict())
