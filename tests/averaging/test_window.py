"""`ModelAverage` against recordings of Paddle, and against the same in plain NumPy."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.kernels import scalars
from tests.averaging import Window, applied, buffer, normed_buffer, same_bits
from tests.recordings import GOLDEN

FLOATS = ["float32", "float64"]

# --- recordings -----------------------------------------------------------------------------------

RECORDINGS = sorted(GOLDEN.glob("model_average_*.npz"))
SUMS = ("sum_1", "sum_2", "sum_3")
COUNTS = ("num_accumulates", "old_num_accumulates", "num_updates")


def load(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    windows = {key: meta[key] for key in ("average_window_rate", "min_average_window", "max_average_window")}
    params = nb.ParameterBuffer.from_arrays({"w": arrays["init"]})
    return meta, arrays, params, nb.ModelAverage(parameters=params, **windows)


def test_every_recording_is_found():
    assert [path.stem[-1] for path in RECORDINGS] == list("abcde")


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recorded_values_give_the_recorded_averages(path):
    """The values of Paddle go in; sums, counts and averages come out to the bit."""
    meta, arrays, params, average = load(path)
    for t in range(meta["steps"]):
        params["w"].value = arrays["params"][t]
        average.step()
        state = average.state_dict()
        for key in SUMS:
            assert_array_equal(state[f"w.{key}"], arrays[key][t], strict=True)
        assert [state[f"w.{key}"] for key in COUNTS] == [arrays[key][t].item() for key in COUNTS]
        assert_array_equal(applied(params, average)["w"], arrays["average"][t], strict=True)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recorded_run(path):
    """The gradients of Paddle go in, through the optimizer."""
    meta, arrays, params, average = load(path)
    rule = dict(meta["opt"])
    opt = getattr(nb.optimizer, rule.pop("type"))(parameters=params, **rule)
    for t in range(meta["steps"]):
        opt.step({"w": arrays["grads"][t]})
        average.step()
        assert_allclose(params["w"].value, arrays["params"][t], rtol=1e-5, atol=1e-6)
        assert_allclose(applied(params, average)["w"], arrays["average"][t], rtol=1e-5, atol=1e-6)


# --- the oracle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seed", range(12))
def test_random_runs(seed, dtype):
    rng = np.random.default_rng(seed)
    least = int(rng.integers(0, 6))
    windows = float(rng.choice([0.0, 0.15, 0.5, 1.0, 3.0])), least, least + int(rng.integers(0, 12))
    params = buffer(dtype, seed)
    opt = nb.optimizer.SGD(0.1, parameters=params)
    average = nb.ModelAverage(windows[0], params, *windows[1:])
    oracles = {name: Window(p.numpy(), *windows) for name, p in params.items()}
    for _ in range(60):
        present = {name: p for name, p in params.items() if rng.random() < 0.8}
        opt.step({name: rng.normal(size=p.shape) for name, p in present.items()})
        average.step()
        for name, p in present.items():
            oracles[name].step(p.value)
        state = {}
        for name in params:
            state |= oracles[name].state(name)
        same_bits(average.state_dict(), state)
        got = applied(params, average)
        for name, p in params.items():
            assert_array_equal(got[name], oracles[name].average(p.value), strict=True)
            if oracles[name].open + oracles[name].closed:
                assert_allclose(got[name], oracles[name].mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_sum_moves_on_after_16384_updates(dtype):
    """Twice, in one window; then the window ends."""
    params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]}, dtype=dtype)
    average = nb.ModelAverage(1.0, params, 40000, 40000)
    expected = {16383: (16383, 0, 0), 16384: (0, 16384, 0), 16385: (1, 16384, 0), 32768: (0, 32768, 0)}
    expected |= {39999: (7231, 32768, 0), 40000: (0, 0, 40000), 40001: (1, 0, 40000)}
    for update in range(1, 40002):
        average.step()
        if update in expected:
            state = average.state_dict()
            for key, count in zip(SUMS, expected[update], strict=True):
                assert_array_equal(state[f"w.{key}"], count * params["w"].value, strict=True)
            assert state["w.num_updates"] == update
            assert_array_equal(applied(params, average)["w"], [1.0, 2.0])


def loaded(windows, counts):
    """An average of one number that is far into a run."""
    sums = (3.0, 5.0, 7.0) if counts[0] else (0.0, 0.0, 7.0)
    params = nb.ParameterBuffer.from_arrays({"w": [2.0]}, dtype="float32")
    average = nb.ModelAverage(windows[0], params, *windows[1:])
    state = {f"w.{key}": np.float32([value]) for key, value in zip(SUMS, sums, strict=True)}
    average.set_state_dict(state | {f"w.{key}": n for key, n in zip(COUNTS, counts, strict=True)})
    return average


# (rate, least, most), (num_accumulates, old_num_accumulates, num_updates), and both after one step.
EDGES = {
    "one short": ((1.0, 5, 5), (3, 9, 30), (4, 9, 31), (5.0, 5.0, 7.0)),
    "full": ((1.0, 5, 5), (4, 9, 30), (0, 5, 31), (0.0, 0.0, 10.0)),
    "spill": ((1.0, 50, 50), (4, 9, 16383), (5, 9, 16384), (0.0, 10.0, 7.0)),
    "spill again": ((1.0, 50, 50), (4, 9, 32767), (5, 9, 32768), (0.0, 10.0, 7.0)),
    "spill and full": ((1.0, 5, 5), (4, 9, 16383), (0, 5, 16384), (0.0, 0.0, 10.0)),
    "share, one short": ((0.5, 2, 50), (9, 9, 21), (10, 9, 22), (5.0, 5.0, 7.0)),
    "share": ((0.5, 2, 50), (10, 9, 21), (0, 11, 22), (0.0, 0.0, 10.0)),
    "share, fraction dropped": ((0.5, 2, 50), (10, 9, 22), (0, 11, 23), (0.0, 0.0, 10.0)),
    "float32 product": ((0.29, 2, 50), (28, 9, 99), (0, 29, 100), (0.0, 0.0, 10.0)),
    "float32 product, one short": ((0.29, 2, 50), (27, 9, 99), (28, 9, 100), (5.0, 5.0, 7.0)),
    "float32 count": ((1.0, 2, 2**40), (2**24 - 1, 1, 2**24), (0, 2**24, 2**24 + 1), (0.0, 0.0, 10.0)),
    "least wins": ((0.0, 30, 50), (28, 9, 99), (29, 9, 100), (5.0, 5.0, 7.0)),
    "rate without bounds": ((1e30, 2, 2**40), (28, 9, 99), (29, 9, 100), (5.0, 5.0, 7.0)),
    "beyond float32": ((1e300, 2, 29), (28, 9, 99), (0, 29, 100), (0.0, 0.0, 10.0)),
    "no window": ((0.0, 0, 0), (0, 9, 99), (0, 1, 100), (0.0, 0.0, 2.0)),
}


@pytest.mark.parametrize(("windows", "before", "after", "sums"), EDGES.values(), ids=EDGES)
def test_edges_of_a_window(windows, before, after, sums):
    average = loaded(windows, before)
    average.step()
    state = average.state_dict()
    assert tuple(state[f"w.{key}"] for key in COUNTS) == after
    assert tuple(state[f"w.{key}"].item() for key in SUMS) == sums


def test_the_formulas():
    assert [n for n in range(1, 50000) if scalars.is_spill(n)] == [16384, 32768, 49152]
    full = [n for n in range(12) if scalars.is_full(n, 20, 0.15, 2, 4)]
    assert full == list(range(3, 12))
    assert scalars.mean(1.0, 2.0, 3.0, 4.0) == 1.5
    assert scalars.added(1.0, 2.0) == 3.0


# --- what is taken in -----------------------------------------------------------------------------


def updates(average):
    state = average.state_dict()
    return {key.removesuffix(".num_updates"): n for key, n in state.items() if key.endswith(".num_updates")}


def test_frozen_absent_and_excluded_parameters_are_left_out():
    params = buffer(b=nb.ParamAttr(do_model_average=False), one=nb.ParamAttr(trainable=False))
    average = nb.ModelAverage(0.5, params)
    average.step()
    params["w"].clear_grad(set_to_zero=False)
    average.step()
    assert updates(average) == {"w": 1, "b": 0, "empty": 2, "one": 0}
    params["b"].do_model_average = True
    params["one"].trainable = True
    params["w"].grad = np.ones((3, 5))
    params["empty"].do_model_average = False
    average.step()
    assert updates(average) == {"w": 2, "b": 1, "empty": 2, "one": 1}


@pytest.mark.parametrize("set_to_zero", [True, False])
def test_gradients_may_be_cleared_before(set_to_zero):
    """The last step decides, and not what became of the gradients since."""
    params = buffer(b=nb.ParamAttr(trainable=False))
    opt = nb.optimizer.SGD(0.1, parameters=params)
    average = nb.ModelAverage(0.5, params)
    opt.step({"w": np.ones((3, 5)), "b": np.ones(7)})
    params.clear_grad(set_to_zero)
    params.freeze("w")
    params.unfreeze("b")
    average.step()
    assert updates(average) == {"w": 1, "b": 0, "empty": 0, "one": 0}
    opt.step({"b": np.ones(7)})
    params["w"].grad = np.ones((3, 5))
    average.step()
    assert updates(average) == {"w": 1, "b": 1, "empty": 0, "one": 0}


def test_a_refused_step_is_not_averaged():
    params = buffer()
    opt = nb.optimizer.SGD(0.1, parameters=params, nonfinite="skip")
    average = nb.ModelAverage(0.5, params)
    for value, count in ((1.0, 1), (np.nan, 1), (1.0, 2)):
        opt.step({"b": np.full(7, value)})
        average.step()
        assert updates(average)["b"] == count


def test_each_optimizer_speaks_for_its_parameters():
    params = buffer()
    one, two = nb.optimizer.SGD(0.1, params["w"]), nb.optimizer.SGD(0.1, params["b"])
    average = nb.ModelAverage(0.5, params)
    one.step({"w": np.ones((3, 5))})
    two.step({"b": None})
    average.step()
    assert updates(average) == {"w": 1, "b": 0, "empty": 1, "one": 1}
    two.minimize(no_grad_set=["b"])
    one.step({"w": None})
    average.step()
    assert updates(average) == {"w": 1, "b": 0, "empty": 2, "one": 2}


def test_g_and_v_are_told_apart():
    params = normed_buffer()
    params["w"].weight_g.trainable = False
    average = nb.ModelAverage(0.5, params)
    nb.optimizer.SGD(0.1, parameters=params).step({"w": np.ones((3, 5))})
    average.step()
    assert updates(average) == {"w_g": 0, "w_v": 1, "b": 0}


def test_a_zero_gradient_and_a_rate_of_zero_count():
    params = buffer()
    opt = nb.optimizer.SGD(0.0, parameters=params)
    average = nb.ModelAverage(0.5, params)
    opt.step()
    params.clear_grad()
    average.step()
    assert set(updates(average).values()) == {1}


def test_what_was_never_taken_in_stays():
    """Paddle makes it 0/0."""
    params = buffer(b=nb.ParamAttr(trainable=False))
    average = nb.ModelAverage(0.5, params, 1, 1)
    before = params.numpy()
    with pytest.warns(RuntimeWarning, match="this ModelAverage has taken no values in"), average.apply():
        same_bits(params.numpy(), before)
    average.step()
    params["w"].value += 1
    average.step()
    params["w"].value += 1
    with average.apply():
        same_bits(params.numpy("b"), {"b": before["b"]})
        assert_allclose(params["w"].value, before["w"] + 1)


def test_an_average_that_is_switched_off_later_is_not_applied():
    params = buffer()
    average = nb.ModelAverage(0.5, params)
    average.step()
    params["b"].value += 1
    live = params["b"].numpy()
    params["b"].do_model_average = False
    assert_array_equal(applied(params, average)["b"], live)
    params["b"].do_model_average = True
    assert_allclose(applied(params, average)["b"], live - 1, rtol=1e-15)


def test_a_part_of_the_parameters():
    params = buffer()
    average = nb.ModelAverage(0.5, [params["b"], params["b"]])
    assert set(average.state_dict()) == {f"b.{key}" for key in (*SUMS, *COUNTS)}
    assert average.parameters == [params["b"]]
    average.step()
    params["b"].value += 1
    params["w"].value += 1
    live = params.numpy()
    got = applied(params, average)
    assert_allclose(got["b"], live["b"] - 1, rtol=1e-15)
    assert np.count_nonzero(average._sums) == params["b"].size
    assert_array_equal(got["w"], live["w"])


def test_dtypes_are_kept():
    for dtype in FLOATS:
        params = buffer(dtype)
        average = nb.ModelAverage(0.5, params)
        average.step()
        assert {a.dtype.name for a in applied(params, average).values()} == {dtype}
        assert {average.state_dict()[f"w.{key}"].dtype.name for key in SUMS} == {dtype}


def test_float64_is_averaged_in_float64():
    params = nb.ParameterBuffer.from_arrays({"w": [1.0 + 2.0**-40]}, dtype="float64")
    average = nb.ModelAverage(0.5, params)
    average.step()
    assert applied(params, average)["w"] == 1.0 + 2.0**-40


# --- weight norm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim, dtype):
    """g and v are averaged, w follows from them, and everything comes back to the bit."""
    params = normed_buffer(dtype, dim)
    w = params["w"]
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    average = nb.ModelAverage(0.5, params, 2, 5)
    oracles = {part.name: Window(part.numpy(), 0.5, 2, 5) for part in w._moved}
    rng = np.random.default_rng(0)
    for _ in range(9):
        opt.step({"w": rng.normal(size=w.shape), "b": rng.normal(size=7)})
        average.step()
        for part in w._moved:
            oracles[part.name].step(part.value)
        data = params._seal().data.tobytes()
        got = applied(params, average)
        assert params._seal().data.tobytes() == data
        for part in w._moved:
            assert_array_equal(got[part.name], oracles[part.name].average(part.value), strict=True)
        assert_array_equal(got["w"], nb.weight_norm(got["w_v"], got["w_g"], dim), strict=True)


def test_weight_norm_is_left_out_by_default():
    params = normed_buffer()
    params["w"].do_model_average = nb.WeightNormParamAttr().do_model_average
    average = nb.ModelAverage(0.5, params)
    average.step()
    assert updates(average) == {"w_g": 0, "w_v": 0, "b": 1}


def test_g_alone_is_averaged():
    params = normed_buffer()
    w = params["w"]
    w.weight_v.do_model_average = False
    average = nb.ModelAverage(0.5, params)
    average.step()
    g = w.weight_g.numpy()
    w.weight_g.set_value(3 * g)
    average.step()
    got = applied(params, average)
    assert_allclose(got["w_g"], 2 * g)
    assert_array_equal(got["w_v"], w.weight_v.value)
    assert_array_equal(got["w"], nb.weight_norm(got["w_v"], got["w_g"], 0))


# --- sizes and threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 31, 32, 4095, 4096, 4097, 12289, 100_003])
def test_every_element_is_reached(size):
    values = {"a": np.arange(size, dtype=float), "b": np.arange(7.0), "c": np.arange(size, dtype=float)}
    params = nb.ParameterBuffer.from_arrays(values)
    average = nb.ModelAverage(0.5, params)
    average.step()
    params.trainable_flat[:] += 2.0
    average.step()
    got = applied(params, average)
    for name, value in values.items():
        assert_array_equal(got[name], value + 1.0)
