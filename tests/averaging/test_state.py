"""What averages remember: dictionaries, and a run that goes on from them."""

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import ParameterError, StateDictError
from tests.averaging import bits_of, buffer, normed_buffer, same_bits
from tests.optimizer import expand, frozen_bytes

STEPS = 12


def model_average(params):
    return nb.ModelAverage(0.5, params, 2, 5)


def exponential(params):
    return nb.ExponentialMovingAverage(0.75, params)


MAKE = {"window": model_average, "exponential": exponential}
each_kind = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def take(average):
    getattr(average, "step", getattr(average, "update", None))()


def run(params, opt, average, steps):
    """Steps with some gradients left out."""
    for seed in steps:
        rng = np.random.default_rng(seed)
        opt.step({name: rng.normal(size=p.shape) for name, p in params.items() if rng.random() < 0.7})
        take(average)


# --- round trips ----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("model", [buffer, normed_buffer])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resumed_after_any_step(dtype, model, make):
    """A run that goes on from dictionaries has the bits of one that never stopped."""
    params = model(dtype)
    opt, average = nb.optimizer.Momentum(0.1, parameters=params), make(params)
    saved = []
    for step in range(STEPS):
        saved.append((params.to_vector(space="trainable"), opt.state_dict(), average.state_dict()))
        run(params, opt, average, [step])
    with average.apply():
        averaged = bits_of(params)[0]
    for step, (values, opt_state, state) in enumerate(saved):
        others = model(dtype)
        others.from_vector(values, space="trainable")
        opt_again, again = nb.optimizer.Momentum(0.1, parameters=others), make(others)
        opt_again.set_state_dict(opt_state)
        again.set_state_dict(state)
        same_bits(again.state_dict(), state)
        run(others, opt_again, again, range(step, STEPS))
        same_bits(again.state_dict(), average.state_dict())
        with again.apply():
            assert bits_of(others)[0] == averaged


def test_keys():
    windows = ["sum_1", "sum_2", "sum_3", "num_accumulates", "old_num_accumulates", "num_updates"]
    parts = ["b", "w_v", "w_g"]
    assert list(model_average(normed_buffer()).state_dict()) == [f"{p}.{k}" for p in parts for k in windows]
    ema = ["ema", "ema_weight"]
    assert list(exponential(normed_buffer()).state_dict()) == [f"{p}.{k}" for p in parts for k in ema]


@each_kind
def test_a_snapshot_is_a_copy_and_so_is_what_is_loaded(make):
    params = buffer()
    average = make(params)
    take(average)
    state = average.state_dict()
    bits = frozen_bytes(state)
    take(average)
    assert frozen_bytes(state) == bits
    average.set_state_dict(state)
    for value in state.values():
        if isinstance(value, np.ndarray):
            value[...] = 7.0
    assert frozen_bytes(average.state_dict()) == bits


@each_kind
def test_a_state_goes_anywhere_in_any_order(make):
    """Into another layout, by names; as numpy.load gives it."""
    params = buffer()
    average = make(params)
    take(average)
    state = average.state_dict()
    others = nb.ParameterBuffer.from_arrays({name: params[name].numpy() for name in reversed(list(params))})
    again = make(others)
    again.load_state_dict({key: np.asarray(state[key]) for key in reversed(list(state))})
    same_bits({key: again.state_dict()[key] for key in state}, state)


@each_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_loads_where_it_may_arise(make, bad):
    params = buffer()
    average = make(params)
    params["b"].value = np.full(7, bad)
    take(average)
    state, again = average.state_dict(), make(params)
    before, opts = again.state_dict(), []
    first = f"b.{average._rows[0]}"
    for nonfinite in ("raise", "skip"):
        with pytest.raises(StateDictError, match=f"{first}: holds NaN or Inf.*nonfinite='propagate'"):
            again.set_state_dict(state)
        opts.append(nb.optimizer.SGD(0.1, params, nonfinite=nonfinite))
    same_bits(again.state_dict(), before)
    opts.append(nb.optimizer.SGD(0.1, params, nonfinite="propagate"))
    again.set_state_dict(state)
    same_bits(again.state_dict(), state)


def test_not_strict_takes_what_is_there():
    average = model_average(buffer())
    average.step()
    before = average.state_dict()
    average.set_state_dict(
        {"w.num_updates": np.int32(9), "gone.sum_1": 3, "b.sum_2": np.ones(7)}, strict=False
    )
    after = average.state_dict()
    assert after["w.num_updates"] == 9
    assert after["b.sum_2"].sum() == 7
    kept = before.keys() - {"w.num_updates", "b.sum_2"}
    same_bits({key: after[key] for key in kept}, {key: before[key] for key in kept})
    average.set_state_dict({}, strict=False)
    same_bits(average.state_dict(), after)


def test_loaded_counts_decide_what_is_applied():
    params = buffer()
    average = model_average(params)
    average.step()
    average.set_state_dict(model_average(params).state_dict())
    params["b"].value += 1
    live = bits_of(params)
    with pytest.warns(RuntimeWarning, match="has taken no values in"), average.apply():
        assert bits_of(params) == live


# --- refused --------------------------------------------------------------------------------------

# What is changed in a good state (... takes the key out), and words of the message.
ARRAYS = {
    "missing": ({"b.{}": ...}, "missing b.{}"),
    "unexpected": ({"x.{}": np.zeros(2)}, "unexpected x.{}"),
    "unexpected number": ({3: 1.0}, "unexpected 3"),
    "shape": ({"w.{}": np.zeros((5, 3))}, "w.{} (5, 3) (3, 5)"),
    "number": ({"w.{}": 1.0}, "w.{} () (3, 5)"),
    "float32": ({"b.{}": np.zeros(7, np.float32)}, "b.{} float32 float64"),
    "integer": ({"b.{}": np.zeros(7, int)}, "b.{} int64 float64"),
    "complex": ({"b.{}": np.zeros(7, complex)}, "b.{} complex128"),
    "string": ({"b.{}": "abc"}, "b.{}"),
    "none": ({"b.{}": None}, "b.{}"),
    "ragged": ({"w.{}": [[1.0], [1.0, 2.0]]}, "w.{}"),
}
COUNTS = {
    "huge": ({"b.{}": 2**53}, "b.{} 2**53"),
    "missing": ({"b.{}": ...}, "missing b.{}"),
    "negative": ({"b.{}": -1}, "b.{} >= 0 -1"),
    "float": ({"b.{}": 1.5}, "b.{} integer 1.5"),
    "true": ({"b.{}": True}, "b.{} integer True"),
    "string": ({"b.{}": "3"}, "b.{} integer '3'"),
    "none": ({"b.{}": None}, "b.{} integer None"),
    "too large": ({"b.{}": 2**63}, "b.{} 2**53"),
    "array": ({"b.{}": np.zeros(2, int)}, "b.{} integer"),
}
WEIGHTS = {
    "missing": ({"b.{}": ...}, "missing b.{}"),
    "negative": ({"b.{}": -0.5}, "b.{} >= 0 -0.5"),
    "above one": ({"b.{}": 1.5}, "b.{} <= 1 1.5"),
    "nan": ({"b.{}": float("nan")}, "b.{} nan"),
    "string": ({"b.{}": "0.5"}, "b.{} number"),
    "none": ({"b.{}": None}, "b.{} number None"),
}


def cases(make, name, table):
    for key, (change, words) in table.items():
        filled = {str(k).format(name) if isinstance(k, str) else k: v for k, v in change.items()}
        yield f"{name}-{key}", (make, filled, words.format(name))


BAD = dict(
    [
        *(case for name in ("sum_1", "sum_3") for case in cases(model_average, name, ARRAYS)),
        *(case for name in ("num_accumulates", "num_updates") for case in cases(model_average, name, COUNTS)),
        *cases(exponential, "ema", ARRAYS),
        *cases(exponential, "ema_weight", WEIGHTS),
    ]
)


@pytest.mark.parametrize(("make", "change", "words"), expand("", BAD))
def test_state_refused(make, change, words):
    params = buffer()
    average = make(params)
    take(average)
    state = {k: v for k, v in {**make(params).state_dict(), **change}.items() if v is not ...}
    before = average.state_dict()
    with pytest.raises(StateDictError) as caught:
        average.set_state_dict(state)
    message = str(caught.value)
    assert [word for word in [type(average).__name__, *words.split()] if word not in message] == []
    same_bits(average.state_dict(), before)


# What no run comes to: entries of an average that took two values in, and words of the message.
TAMPERED = {
    "a weight that no update has": (exponential, {"b.ema_weight": 1e-300}, "b.ema_weight 1e-300 1.11"),
    "the weight of no update": (exponential, {"b.ema_weight": 0.0}, "b.ema not zero ema_weight 0"),
    "fewer updates than values": (model_average, {"b.num_updates": 1}, "b.num_updates 1"),
    "more values than updates": (model_average, {"b.num_accumulates": 2**52}, f"b.num_updates {2**52}"),
    "updates without values": (
        model_average,
        {"b.num_accumulates": 0, "b.old_num_accumulates": 0},
        "b.num_updates 2",
    ),
    "a sum of nothing": (
        model_average,
        {"b.num_accumulates": 0, "b.old_num_accumulates": 2},
        "b.sum_1 not zero",
    ),
    "an old sum of nothing": (model_average, {"b.sum_3": np.ones(7)}, "b.sum_3 not zero"),
}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
@pytest.mark.parametrize(("make", "change", "words"), expand("", TAMPERED))
def test_entries_that_contradict_each_other(make, change, words, strict):
    params = buffer()
    average = nb.ModelAverage(0.5, params, 5, 5) if make is model_average else make(params)
    for _ in range(2):
        take(average)
    before = average.state_dict()
    with pytest.raises(StateDictError) as caught:
        average.set_state_dict(before | change if strict else change, strict=strict)
    assert [word for word in words.split() if word not in str(caught.value)] == []
    same_bits(average.state_dict(), before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_least_weight_is_taken(dtype):
    params = buffer(dtype)
    decay = float(np.nextafter(params.dtype.type(1), params.dtype.type(0)))
    average, again = (nb.ExponentialMovingAverage(decay, params) for _ in range(2))
    average.update()
    again.set_state_dict(average.state_dict())
    same_bits(again.state_dict(), average.state_dict())


@each_kind
def test_all_problems_are_named_at_once(make):
    average = make(buffer())
    state = average.state_dict()
    first = next(iter(state))
    state |= {"x.sum_1": 1.0, first: "?"}
    del state[[*state][1]]
    with pytest.raises(StateDictError) as caught:
        average.set_state_dict(state)
    assert len(str(caught.value).splitlines()) == 4


@each_kind
def test_the_state_of_the_other_kind(make):
    params = buffer()
    state = next(other for other in MAKE.values() if other is not make)(params).state_dict()
    with pytest.raises(StateDictError, match="unexpected"):
        make(params).set_state_dict(state)


@each_kind
@pytest.mark.parametrize("given", [None, 3, "state", [("w.ema", 1)]])
def test_what_is_no_dictionary(make, given):
    with pytest.raises(TypeError, match="state_dict must be a dictionary"):
        make(buffer()).set_state_dict(given)
    with pytest.raises(TypeError, match="strict"):
        make(buffer()).set_state_dict({}, strict=1)


# --- names ----------------------------------------------------------------------------------------


@each_kind
def test_no_parameter_has_the_name_of_an_entry(make):
    """In a checkpoint, both would have one key."""
    for key in make(buffer()).state_dict():
        params = nb.ParameterBuffer()
        params.create_parameter([2], name=key.rpartition(".")[0])
        with pytest.raises(ParameterError, match="state dictionary"):
            params.create_parameter([2], name=key)
