"""nbopt.compat.jittor.weightnorm: Jittor's names and numbers, and where it differs on purpose (D13)."""

import inspect
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.compat.jittor import weightnorm
from nbopt.compat.jittor.weightnorm import WeightNorm, remove_weight_norm, weight_norm
from nbopt.errors import ParameterError
from tests.compat import Linear, Record, assert_close
from tests.recordings import GOLDEN

W = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
RECORDINGS = sorted(path.stem for path in GOLDEN.glob("jt_wn_*.npz"))


def backward(module, dw, axis):
    """dL/dv and dL/dg, in the shapes of v and g, by the public function along the rows of one axis."""
    v, g = module.weight_v, module.weight_g
    rows = [np.moveaxis(a, axis, -1) for a in (v, g, dw)]
    shape = rows[0].shape
    dv, dg = nb.weight_norm_backward(
        rows[0].reshape(-1, shape[-1]), rows[1].reshape(-1), rows[2].reshape(-1, shape[-1]), 0
    )
    return np.moveaxis(dv.reshape(shape), -1, axis), dg.reshape(g.shape)


def test_there_are_recordings_of_every_kind():
    assert len(RECORDINGS) == 12


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        rec = dict(file)
    meta = json.loads(str(rec["meta"]))
    axis = -1 if meta["dim"] is None else meta["dim"]
    module = weight_norm(Record(rec["W"].copy()), "weight", meta["dim"])
    assert_close(module.weight, rec["w_init"])
    assert_close(module.weight_g, rec["g_init"])
    params = nb.ParameterBuffer.from_arrays({"g": module.weight_g, "v": module.weight_v})
    module.weight_g, module.weight_v = params["g"].value, params["v"].value  # what the optimizer moves
    opt = nb.optimizer.SGD(meta["lr"], parameters=params)
    for dw, w, grad_g, grad_v in zip(*(rec[key] for key in ("dLdw", "w", "grad_g", "grad_v")), strict=True):
        assert_close(module.weight, w)
        dv, dg = backward(module, dw, axis)
        assert_close(dg, grad_g)
        assert_close(dv, grad_v)
        opt.step({"g": dg, "v": dv})
    WeightNorm("weight", meta["dim"]).remove(module)
    assert_close(module.weight, rec["w_removed"])


# --- names -----------------------------------------------------------------------------------------


def test_signatures():
    def names(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    empty = inspect.Parameter.empty
    assert names(weight_norm) == [("module", empty), ("name", empty), ("dim", empty)]
    assert names(remove_weight_norm) == [("module", empty), ("name", "weight")]
    assert names(WeightNorm) == [("name", empty), ("dim", empty)]
    assert names(WeightNorm.apply) == [("module", empty), ("name", empty), ("dim", empty)]
    assert weightnorm is nb.compat.jittor.weightnorm


def test_the_class():
    module = Linear()
    expected = module.weight
    wn = WeightNorm("other", 0)
    hook = wn.apply(module, "weight", -1)  # says nothing of the one that it was called on
    assert hook is not wn
    assert (hook.name, hook.dim) == ("weight", -1)
    assert module.__fhook2__ is hook
    assert_array_equal(hook.compute_weight(module), expected, strict=True)
    module.weight_g *= 2
    computed = hook.compute_weight(module)
    assert_array_equal(computed, module.weight)
    computed[0] = 1.0  # a new array
    assert hook.remove(module) is None
    assert_allclose(module.weight, 2 * expected)
    assert type(module) is Linear


def test_none_is_the_last_axis():
    assert WeightNorm("weight", None) == WeightNorm("weight", -1)
    module = weight_norm(Record(W.copy()), "weight", None)
    assert_allclose(module.weight_g, np.sqrt([[5.0], [25.0], [61.0]]))


@pytest.mark.parametrize(
    ("dim", "g"),
    [(1, [[5.0], [25.0], [61.0]]), (-1, [[5.0], [25.0], [61.0]]), (0, [[35.0, 56.0]]), (-2, [[35.0, 56.0]])],
)
def test_dim_is_the_axis_that_is_reduced(dim, g):
    module = weight_norm(Record(W.copy()), "weight", dim)
    assert_close(module.weight_g, np.sqrt(g))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (2, 3, 4, 5), (1, 5, 1)], ids=str)
def test_one_axis_is_reduced_for_every_rank(shape, dtype):
    rng = np.random.default_rng(0)
    for dim in range(-len(shape), len(shape)):
        start = rng.standard_normal(shape).astype(dtype)
        module = weight_norm(Record(start.copy()), "weight", dim)
        assert_array_equal(module.weight, start, strict=True)  # the bits
        norms = np.sqrt(np.sum(np.longdouble(start) ** 2, axis=dim, keepdims=True))
        assert_close(module.weight_g, norms.astype(dtype))
        module.weight_v[...] = v = rng.standard_normal(shape).astype(dtype)
        module.weight_g[...] = g = rng.standard_normal(norms.shape).astype(dtype)
        expected = g * np.longdouble(v) / np.sqrt(np.sum(np.longdouble(v) ** 2, axis=dim, keepdims=True))
        assert_allclose(module.weight, expected.astype(dtype), rtol=4 * np.finfo(dtype).eps)
        assert module.weight.flags.c_contiguous


def test_any_attribute_of_any_name():
    class Model:
        def __init__(self, weight):
            self.linear = weight

        def execute(self, x):
            return x @ self.linear

    model = weight_norm(Model(W.copy()), "linear", -1)
    assert {"linear_g", "linear_v"} == set(vars(model))
    model.linear_g[...] = 1.0
    assert_allclose(np.linalg.norm(model.execute(np.eye(3)), axis=1), 1.0)
    assert not hasattr(remove_weight_norm(model, "linear"), "linear_g")


# --- the floor -------------------------------------------------------------------------------------


def test_a_norm_is_at_least_1e_15():
    module = weight_norm(Record(np.array([[0.0, 0.0], [3.0, 4.0], [3e-16, 4e-16]])), "weight", -1)
    assert_allclose(module.weight_g, [[1e-15], [5.0], [1e-15]])
    assert_array_equal(module.weight, [[0.0, 0.0], [3.0, 4.0], [3e-16, 4e-16]])
    module.weight_g[...] = 1.0
    assert_allclose(module.weight, [[0.0, 0.0], [0.6, 0.8], [0.3, 0.4]], rtol=1e-14)
    dv, dg = backward(module, np.ones((3, 2)), -1)
    assert_array_equal(dv[0], [0.0, 0.0])
    assert dg[0, 0] == 0.0


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e30), ("float64", 1e200), ("float64", 1e-14)])
def test_squares_of_large_weights_do_not_overflow(dtype, scale):
    module = weight_norm(Record(np.array([[3.0, 4.0]], dtype) * np.dtype(dtype).type(scale)), "weight", -1)
    assert_allclose(module.weight_g, [[5 * scale]], rtol=1e-6)
    module.weight_g[...] = 1.0
    assert_allclose(module.weight, [[0.6, 0.8]], rtol=1e-6)


# --- errors ----------------------------------------------------------------------------------------


def test_one_hook_for_a_module():
    module = weight_norm(Linear(), "weight", -1)
    for name in ("weight", "bias", "nothing"):
        with pytest.raises(RuntimeError, match=r"two weight_norm hooks on one module: Linear has WeightNorm"):
            weight_norm(module, name, -1)
    assert not hasattr(module, "bias_g")
    remove_weight_norm(module)
    weight_norm(module, "bias", 0)


def test_a_missing_attribute():
    with pytest.raises(AttributeError, match="nothing"):
        weight_norm(Linear(), "nothing", -1)


def test_removal_of_what_is_not_there():
    module = Linear()
    with pytest.raises(AttributeError, match="Linear object has no attribute 'weight_g'"):
        WeightNorm("weight", -1).remove(module)
    with pytest.raises(ValueError, match="weight_norm of 'weight' not found in Linear"):
        remove_weight_norm(module)
    weight_norm(module, "weight", -1)
    for name in ("bias", "weight_g"):
        with pytest.raises(AttributeError, match=f"{name}_g"):
            WeightNorm(name, -1).remove(module)
        with pytest.raises(ParameterError, match=f"{name!r} not found"):
            remove_weight_norm(module, name)
    with pytest.raises(AttributeError, match="weight_v"):
        WeightNorm("weight", -1).compute_weight(Linear())
    assert hasattr(module, "__fhook2__")


@pytest.mark.parametrize("remove", [remove_weight_norm, WeightNorm("weight", 0).remove])
def test_removal_is_whole(remove):
    """D13: Jittor leaves either the hook, with which the next call fails, or g and v."""
    module = weight_norm(Linear(), "weight", -1)
    module.weight_g *= 2
    expected = module.weight
    remove(module)
    assert [hasattr(module, name) for name in ("__fhook2__", "weight_g", "weight_v")] == [False] * 3
    assert_array_equal(module.weight, expected)
    assert module.execute(np.eye(3)).shape == (3, 4)
    weight_norm(module, "weight", -1)
    assert_array_equal(module.weight, expected)


def test_a_hook_does_not_change():
    hook = WeightNorm("weight", -1)
    with pytest.raises(AttributeError):
        hook.dim = 0
    assert hash(hook) == hash(WeightNorm("weight", None))
