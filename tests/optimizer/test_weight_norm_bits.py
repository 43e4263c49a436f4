"""The bits of a step of weight norm: those of a loop in NumPy, in threads, in copies, frozen and set again.

Run as a script, it prints a hash of the model for each of some numbers of threads.
"""

import copy
import hashlib
import os
import pickle
import sys

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.kernels import tables as t
from nbopt.kernels.cpu import run
from nbopt.layout import as_slices, sums_of
from tests.kernels import python
from tests.optimizer import gradients

STEPS = 3
ALWAYS, NEVER = 0, 2**62  # values of PARALLEL_FROM
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])

# The three forms, pieces and tiles of two kinds each, and a plain parameter.
FORMS = {
    **{"rows": ((37, 211), 0), "blocks": ((2, 9001), 0), "long": ((40_001,), None)},
    **{"pieces": ((3, 2, 4099), 1), "tile": ((523, 3, 7), 1), "wide_tile": ((5, 3001), 1)},
}
DIMS = {name: dim for name, (_, dim) in FORMS.items()}
SHAPES = {name: shape for name, (shape, _) in FORMS.items()} | {"plain": (4099,)}


@pytest.fixture(autouse=True)
def serial(monkeypatch):
    """A model takes the serial twin, but where a test says otherwise."""
    monkeypatch.setattr(run, "PARALLEL_FROM", NEVER)


def model(dtype):
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    attrs = {name: nb.WeightNormParamAttr(dim=dim) for name, dim in DIMS.items()}
    params = nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype=dtype)
    clip, decay = nb.ClipGradByGlobalNorm(3.0), nb.regularizer.L2Decay(0.01)
    return params, nb.optimizer.Momentum(0.1, 0.9, params, True, weight_decay=decay, grad_clip=clip)


def walk(params, opt, steps=range(STEPS)):
    for step in steps:
        opt.step(gradients(params, step))
    return image(params, opt)


def image(params, opt):
    """The bits of every w, v, g and velocity, by name."""
    arrays = {p.name: p.value for p in params.values()} | {k: params[k].value for k in halves(DIMS)}
    arrays |= {key: a for key, a in opt.state_dict().items() if key.endswith("velocity")}
    return {key: (a.shape, a.dtype.str, a.tobytes()) for key, a in arrays.items()}


def halves(names):
    return [f"{name}_{half}" for name in names for half in "vg"]


def test_the_model_has_every_form():
    spans = {name: sums_of(*as_slices(*cut)).span for name, cut in FORMS.items()}
    assert set(spans.values()) == {t.SPAN_ROWS, t.SPAN_PIECE, t.SPAN_TILE}
    assert spans["long"] == spans["pieces"] == t.SPAN_PIECE  # of one slice, and of several


@dtypes
@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "nesterov"])
def test_a_loop_in_numpy_has_the_same_bits(nesterov, dtype):
    """In the storage dtype, from the gradients of v and g that the parameters show."""
    params, _ = model(dtype)
    opt = nb.optimizer.Momentum(0.1, 0.9, params, nesterov, weight_decay=0.01)
    number = np.dtype(dtype).type
    rate, mu, decay = number(0.1), number(0.9), number(0.01)
    names = [*halves(DIMS), "plain"]
    velocity = {name: np.zeros(params[name].shape, dtype) for name in names}
    for step in range(STEPS):
        params.set_grads(gradients(params, step))
        values = {name: params[name].numpy() for name in names}
        grads = {name: params[name].grad + decay * values[name] for name in names}
        opt.step()
        composed = {name: params[name].numpy() for name in FORMS}
        params.recompose()
        for name in FORMS:
            assert_array_equal(params[name].value, composed[name], err_msg=name, strict=True)
        for name in names:
            velocity[name] = mu * velocity[name] + grads[name]
            moved = grads[name] + mu * velocity[name] if nesterov else velocity[name]
            expected = values[name] - rate * moved
            assert_array_equal(params[name].value, expected, err_msg=name, strict=True)


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_threads_change_no_bit(dtype, threads, monkeypatch):
    expected = walk(*model(dtype))
    monkeypatch.setattr(run, "PARALLEL_FROM", ALWAYS)
    for count in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        threads(count)
        assert walk(*model(dtype)) == expected
    for shares in (2, 3, 7, 64):  # more than threads: each takes several
        monkeypatch.setattr(numba, "get_num_threads", lambda shares=shares: shares)
        assert walk(*model(dtype)) == expected


def digest():
    return hashlib.sha256(repr(sorted(walk(*model("float32")).items())).encode()).hexdigest()


def test_more_threads_than_cores_change_no_bit():
    counts = [2, 2 * os.cpu_count() + 1]
    printed = python("-m", __spec__.name, *map(str, counts), NUMBA_NUM_THREADS=str(max(counts))).split()
    assert printed == [digest()] * len(counts)


# --- copies, frozen parts, values ---------------------------------------------------------------------------

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda value: pickle.loads(pickle.dumps(value, protocol=5))}


@dtypes
@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_go_on_with_the_same_bits(duplicate, dtype):
    params, opt = model(dtype)
    before = walk(params, opt)
    other, twin = duplicate((params, opt))
    assert image(other, twin) == before
    assert walk(other, twin, [7]) == walk(params, opt, [7]) != before
    assert image(*duplicate((params, opt))) == image(params, opt)


@dtypes
def test_recompose_gives_back_what_a_step_left(dtype):
    params, opt = model(dtype)
    before = walk(params, opt)
    trainable = params.trainable_flat.copy()
    params.flat[: params.slices["plain"].start] = 0.0
    params.recompose()
    assert image(params, opt) == before
    params.trainable_flat[:] = 2.0
    params.recompose()
    params.trainable_flat[:] = trainable
    params.recompose()
    assert image(params, opt) == before


@dtypes
def test_values_of_v_and_g_give_back_w(dtype):
    params, opt = model(dtype)
    before = walk(params, opt)
    values = {name: params[name].numpy() for name in halves(DIMS)}
    for name, value in values.items():
        params[name].set_value(3.0 * value)
    assert image(params, opt) != before
    for name, value in values.items():
        params[name].set_value(value)
    assert image(params, opt) == before
    for name in FORMS:
        w = params[name].numpy()
        params[name].set_value(w)
        assert_array_equal(params[f"{name}_v"].value, w, strict=True)


@dtypes
@pytest.mark.parametrize("part", ["", "_v", "_g"], ids=["w", "v", "g"])
def test_what_is_frozen_keeps_its_bits(part, dtype):
    params, opt = model(dtype)
    before = walk(params, opt)
    for name in FORMS:
        params[name + part].trainable = False
    after = walk(params, opt, [4, 5])
    frozen = {key for key in before if key.partition(".")[0].endswith(part)} - {"plain", "plain.velocity"}
    assert {key for key in before if after[key] == before[key]} == frozen
    params.unfreeze("*")
    thawed = walk(params, opt, [6])
    assert not [key for key in before if thawed[key] == after[key]]


if __name__ == "__main__":
    run.PARALLEL_FROM = ALWAYS
    for count in map(int, sys.argv[1:]):
        numba.set_num_threads(count)
        sys.stdout.write(digest() + "\n")
