"""Averages of Paddle, and where nbopt differs on purpose (D4 of the design)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from tests.conformance.paddle_peer import paddle, parameter

pytestmark = pytest.mark.conformance

SHAPES = {"a": (3,), "b": (2, 4), "c": (5,)}
COUNTS = ("num_accumulates", "old_num_accumulates", "num_updates")


def draw(rng):
    return {name: rng.normal(size=shape).astype("float32") for name, shape in SHAPES.items()}


def their_state(average, tensor):
    """The accumulators of one parameter, by their own names."""
    names = ("sum_1", "sum_2", "sum_3", *COUNTS)
    return {name: average._get_accumulator(name, tensor).numpy() for name in names}


# --- ModelAverage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(15))
def test_model_average(seed):
    rng = np.random.default_rng(seed)
    least = int(rng.integers(0, 5))
    windows = float(rng.choice([0.0, 0.15, 0.29, 0.5, 1.0, 3.0])), least, least + int(rng.integers(0, 9))
    params = nb.ParameterBuffer.from_arrays(draw(rng))
    tensors = {name: parameter(p.numpy()) for name, p in params.items()}
    ours = nb.ModelAverage(windows[0], params, *windows[1:])
    theirs = paddle.incubate.ModelAverage(windows[0], list(tensors.values()), *windows[1:])
    taken = set()
    for _ in range(30):
        for name, value in draw(rng).items():
            present = rng.random() < 0.8
            tensors[name].set_value(value)
            tensors[name].grad = paddle.to_tensor(value) if present else None
            params[name].value = value
            params[name].grad = value if present else None
            taken |= {name} if present else set()
        theirs.step()
        ours.step()
        state = ours.state_dict()
        with ours.apply(), theirs.apply():
            for name in taken:
                for key, value in their_state(theirs, tensors[name]).items():
                    assert_array_equal(
                        state[f"{name}.{key}"], value.reshape(np.shape(state[f"{name}.{key}"]))
                    )
                assert_array_equal(params[name].value, tensors[name].numpy())
        for name, tensor in tensors.items():
            assert_array_equal(params[name].value, tensor.numpy())


def test_the_sum_moves_on_after_16384_updates():
    value = np.float32([0.1, 1.0])
    tensor = parameter(value)
    tensor.grad = paddle.to_tensor(value)
    params = nb.ParameterBuffer.from_arrays({"w": value})
    ours = nb.ModelAverage(1.0, params, 16386, 16386)
    theirs = paddle.incubate.ModelAverage(1.0, [tensor], 16386, 16386)
    for update in range(16390):
        ours.step()
        theirs.step()
        if update > 16380:
            for key, got in their_state(theirs, tensor).items():
                assert_array_equal(np.ravel(ours.state_dict()[f"w.{key}"]), got)


def pair(value, **attr):
    """One value after another, taken in by Paddle and by nbopt, whose average is 3."""
    value = np.full(2, value)
    tensor = parameter(value, **attr)
    params = nb.ParameterBuffer.from_arrays({"w": value}, attrs={"w": nb.ParamAttr(**attr)})
    averages = nb.ModelAverage(0.5, params), paddle.incubate.ModelAverage(0.5, [tensor])
    for number in (1.0, 5.0):
        tensor.set_value(np.full_like(value, number))
        params["w"].value = np.full_like(value, number)
        tensor.grad = paddle.to_tensor(value) if tensor.trainable else None
        for average in averages:
            average.step()
    return params["w"], tensor, *averages


def warned(average):
    """Apply an average that has taken nothing in: nbopt says so."""
    with pytest.warns(RuntimeWarning, match="taken no values in"):
        return average.apply()


def test_do_model_average():
    w, tensor, ours, theirs = pair(np.float32(0), do_model_average=False)
    with warned(ours), theirs.apply():
        assert_array_equal(tensor.numpy(), [3.0, 3.0])
        assert_array_equal(w.value, [5.0, 5.0])


def test_never_taken_in():
    w, tensor, ours, theirs = pair(np.float32(0), trainable=False)
    with warned(ours), theirs.apply():
        assert np.isnan(tensor.numpy()).all()
        assert_array_equal(w.value, [5.0, 5.0])


def test_float64():
    w, tensor, ours, theirs = pair(0.0)
    with ours.apply(), theirs.apply():
        assert tensor.dtype == paddle.float32
        assert w.value.dtype == np.float64
        assert_array_equal(w.value, tensor.numpy())


def test_applied_twice():
    """Paddle restores the average; nbopt refuses the second call."""
    w, tensor, ours, theirs = pair(np.float32(0))
    with theirs.apply(need_restore=False), theirs.apply(need_restore=False):
        theirs.restore()
    assert_array_equal(tensor.numpy(), [3.0, 3.0])
    ours.apply()
    with pytest.raises(RuntimeError):
        ours.apply()
    ours.restore()
    assert_array_equal(w.value, [5.0, 5.0])


def test_apply_without_with():
    w, tensor, ours, theirs = pair(np.float32(0))
    ours.apply()
    theirs.apply()
    assert_array_equal(tensor.numpy(), [5.0, 5.0])
    assert_array_equal(w.value, [3.0, 3.0])


# --- ExponentialMovingAverage ---------------------------------------------------------------------


@pytest.fixture
def static(monkeypatch):
    """Static graphs, of the old kind: in 3.3.1 the class cannot be built for the new one.

    Its branches cannot be built for either. Of each, the first is what is wanted here: there was an update,
    and the number of steps bounds the decay.
    """
    paddle.enable_static()
    monkeypatch.setattr(paddle.static.nn, "cond", lambda test, yes, no: yes())
    with paddle.pir_utils.OldIrGuard():
        yield
    paddle.disable_static()


def their_averages(values, decay, steps=None):
    """After each update: the average, and what is applied. With `steps`, those of each update."""
    program, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(program, startup):
        x = paddle.static.data("x", values[0].shape, "float32")
        w = paddle.create_parameter(values[0].shape, "float32", attr=paddle.ParamAttr(name="w"))
        paddle.create_parameter([2], "float32", attr=paddle.ParamAttr(name="frozen", trainable=False))
        paddle.create_parameter([2], "float32", attr=paddle.ParamAttr(name="out", do_model_average=False))
        paddle.assign(x, output=w)
        count = None if steps is None else paddle.static.data("count", [1], "float32")
        average = paddle.static.ExponentialMovingAverage(decay, thres_steps=count)
        average.update()
    assert [p.name for p, _ in average._params_tmps] == ["w", "frozen"]
    executor = paddle.static.Executor(paddle.CPUPlace())
    scope = paddle.static.Scope()

    def read(name):
        return np.array(scope.find_var(name).get_tensor())

    with paddle.static.scope_guard(scope):
        executor.run(startup)
        for t, value in enumerate(values):
            feed = {"x": value} | ({} if steps is None else {"count": np.float32([steps[t]])})
            executor.run(program, feed=feed)
            with average.apply(executor):
                applied = read("w")
            yield read(average._ema_vars["w"].name), applied


@pytest.mark.usefixtures("static")
@pytest.mark.parametrize("decay", [0.1, 0.5, 0.9, 0.999])
def test_exponential(decay):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 2)).astype("float32") for _ in range(12)]
    params = nb.ParameterBuffer.from_arrays({"w": values[0]})
    ours = nb.ExponentialMovingAverage(decay, params)
    for value, (average, applied) in zip(values, their_averages(values, decay), strict=True):
        params["w"].value = value
        ours.update()
        assert_allclose(ours.state_dict()["w.ema"], average, rtol=1e-6, atol=1e-7)
        with ours.apply():
            assert_allclose(params["w"].value, applied, rtol=1e-4)  # its 1 - decay**t is a float32 number


@pytest.mark.usefixtures("static")
def test_exponential_with_a_number_of_steps():
    """The same averages; Paddle corrects by a power of the last decay, so that a constant is none."""
    value, steps = np.float32([1.0, 2.0]), list(range(8))
    params, count = nb.ParameterBuffer.from_arrays({"w": value}), np.zeros(1)
    ours = nb.ExponentialMovingAverage(0.99, params, thres_steps=count)
    for step, (average, applied) in zip(steps, their_averages([value] * 8, 0.99, steps), strict=True):
        count[0] = step
        ours.update()
        assert_allclose(ours.state_dict()["w.ema"], average, rtol=1e-6)
        with ours.apply():
            assert_allclose(params["w"].value, value, rtol=1e-6)
        assert np.allclose(applied, value, rtol=1e-4) == (step == 0)
