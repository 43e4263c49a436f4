"""The attribute of an object under weight norm, in each room: reads, writes, threads."""

import sys
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nbopt.errors import ParameterError
from tests.compat import Linear, assert_current, assert_untouched, snapshot
from tests.kernels import bits

# --- the attribute ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_weight_is_the_one_before(room, dtype):
    module = Linear(dtype=dtype)
    start = module.weight
    assert room.norm(module) is module
    assert_allclose(module.weight, start, rtol=1e-11)
    assert (module.weight.dtype, module.weight_g.dtype, module.weight_v.dtype) == (dtype,) * 3
    assert_array_equal(module.weight_v, start)
    assert not np.shares_memory(module.weight_v, start)
    assert_allclose(module.weight_g.ravel(), np.linalg.norm(start, axis=1), rtol=1e-6)
    assert set(vars(module)) == {"bias", "weight_g", "weight_v"}


def _set(module, part, value):
    setattr(module, f"weight_{part}", value)


EDITS = {
    "g in place": lambda m: np.multiply(m.weight_g, 3, out=m.weight_g),
    "g by an operator": lambda m: _set(m, "g", m.weight_g * 2),
    "augmented g": lambda m: _set(m, "g", m.weight_g.__imul__(-1)),
    "one element of g": lambda m: m.weight_g.__setitem__(1, 7.0),
    "new g": lambda m: _set(m, "g", np.full_like(m.weight_g, 0.5)),
    "g of integers": lambda m: _set(m, "g", np.full(m.weight_g.shape, 2)),
    "one element of v": lambda m: m.weight_v.__setitem__((1, 2), -9.0),
    "v in place": lambda m: m.weight_v.__iadd__(1.0),
    "new v": lambda m: _set(m, "v", np.eye(4, 3) + 1.0),
    "v through a view": lambda m: m.weight_v.ravel().__setitem__(slice(None, None, 2), 1.0),
    "v of another layout": lambda m: _set(m, "v", np.asfortranarray(m.weight_v + 1)),
    "through vars": lambda m: vars(m).update(weight_g=2 * m.weight_g),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_read_is_never_stale(room, edit):
    module = room.norm(Linear())
    before = module.weight
    edit(module)
    assert not np.allclose(module.weight, before)
    for _ in range(2):
        assert_current(module)
        assert_allclose(module.execute(np.eye(3)), module.weight.T)
        edit(module)


def test_what_is_read_cannot_be_written_by_mistake(room):
    module = room.norm(Linear())
    before = snapshot(module)
    weight = module.weight
    with pytest.raises(ValueError, match="read-only"):
        module.weight[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        module.weight += 1.0
    assert module.weight is not weight
    assert_untouched(module, before)


def test_an_assigned_weight_becomes_v_and_its_norm_g(room):
    module = room.norm(Linear(dtype="float32"))
    v, g = module.weight_v, module.weight_g
    given = np.random.default_rng(1).standard_normal((4, 3))
    module.weight = given
    assert module.weight_v is v  # in place: a buffer may own it
    assert module.weight_g is g
    assert_array_equal(v, given.astype(np.float32))
    assert_allclose(g.ravel(), np.linalg.norm(given, axis=1), rtol=1e-6)
    assert_array_equal(module.weight, v)
    module.weight = given.tolist()
    module.weight = module.weight_v[::-1]  # overlaps what is written
    assert_array_equal(module.weight, given[::-1].astype(np.float32))
    module.weight = module.weight - 0.5
    assert_allclose(module.weight, given[::-1] - 0.5, rtol=1e-5)


BAD_WEIGHTS = {
    "shape": (np.ones((3, 4)), ParameterError, r"weight of Linear .* \(4, 3\), got \(3, 4\)"),
    "number": (1.0, ParameterError, r"\(4, 3\), got \(\)"),
    "complex": (np.ones((4, 3), complex), TypeError, "weight of Linear must hold real numbers, got complex"),
    "None": (None, TypeError, "weight of Linear must hold real numbers"),
    "overflow": (np.full((4, 3), 3e38), ParameterError, "weight of Linear: a norm .* range of float32"),
}


@pytest.mark.parametrize(("value", "error", "words"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_a_weight_that_does_not_fit_changes_nothing(room, value, error, words):
    module = room.norm(Linear(dtype="float32"))
    before = snapshot(module)
    with pytest.raises(error, match=words):
        module.weight = value
    assert_untouched(module, before)


def test_arrays_that_cannot_be_written_are_replaced(room):
    module = room.norm(Linear())
    module.weight_v.flags.writeable = False
    module.weight_g = module.weight_g.astype(np.float32)
    module.weight = np.ones((4, 3))
    assert_allclose(module.weight, np.ones((4, 3)), rtol=1e-11)
    assert module.weight_g.dtype == np.float64


def test_deleting_the_weight_is_refused(room):
    module = room.norm(Linear())
    with pytest.raises(AttributeError, match="weight of Linear has weight norm: remove that"):
        del module.weight
    assert_current(module)


def test_a_lost_part_is_named(room):
    module = room.norm(Linear())
    del module.weight_g
    with pytest.raises(AttributeError, match="weight_g"):
        _ = module.weight
    assert not hasattr(module, "weight")


BAD_PARTS = {
    "shape of g": ("weight_g", np.ones(7), ParameterError, r"weight_g of Linear has shape \(7,\)"),
    "g of v's shape": ("weight_g", np.ones((4, 3)), ParameterError, r"weight_g .*\(4, 3\).*\(4,"),
    "complex g": ("weight_g", np.ones(4, complex), TypeError, "weight_g of Linear must hold real"),
    "v of other rows": ("weight_v", np.ones((5, 3)), ParameterError, r"weight_v has shape \(5, 3\)"),
    "v of integers": ("weight_v", np.ones((4, 3), int), TypeError, "weight_v of Linear .* int64"),
    "v of a list": ("weight_v", [[1.0]], TypeError, "weight_v of Linear .* list"),
    "v of no axis": ("weight_v", np.array(1.0), ParameterError, "weight_v of Linear .* one axis"),
}


@pytest.mark.parametrize(("part", "value", "error", "words"), BAD_PARTS.values(), ids=BAD_PARTS)
def test_a_part_that_does_not_fit_is_named_when_the_weight_is_read(room, part, value, error, words):
    module = room.norm(Linear())
    setattr(module, part, value)
    with pytest.raises(error, match=words):
        _ = module.weight


def test_a_norm_beyond_float64(room):
    module = room.norm(Linear())
    module.weight_v[...] = 1.7e308
    module.weight_g[...] = 2.0
    assert_allclose(module.weight, np.full((4, 3), 2 / np.sqrt(3)))


def test_nan_stays_in_its_row(room):
    module = room.norm(Linear())
    expected = module.weight
    module.weight_v[1, 1] = np.nan
    assert np.isnan(module.weight[1]).all()
    assert_array_equal(module.weight[[0, 2, 3]], expected[[0, 2, 3]])


# --- threads ---------------------------------------------------------------------------------------


def _run(*functions):
    """All at once; the exceptions that they raise."""
    caught = []

    def guarded(function):
        try:
            function()
        except Exception as error:
            caught.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return caught


def test_readers_in_many_threads(room):
    module = room.norm(Linear(40, 30))
    expected = bits(module.weight)

    def read():
        for _ in range(50):
            assert bits(module.weight) == expected

    assert _run(*[read] * 8) == []


def test_readers_while_weight_norm_comes_and_goes(room):
    module = Linear(dtype="float32")
    expected = module.weight.copy()
    done = threading.Event()

    def read():
        while not done.is_set():
            assert_allclose(module.weight, expected, rtol=1e-6)

    def toggle():
        try:
            for _ in range(200):
                room.norm(module)
                room.remove(module)
        finally:
            done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        assert _run(toggle, read, read, read) == []
    finally:
        sys.setswitchinterval(interval)
    assert_array_equal(module.weight, expected)
