"""nbopt.compat.paddle: the names, the dim and the epsilon of paddle.nn.utils.weight_norm."""

import inspect
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.compat.paddle import remove_weight_norm, weight_norm
from nbopt.errors import ParameterError
from tests.compat import Linear, Record, assert_close
from tests.recordings import GOLDEN

W = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
C = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])  # dL/dw
RECORDINGS = sorted(path.stem for path in GOLDEN.glob("wn_dygraph_*.npz"))


def kept(dim, rank):
    """The dim of Paddle's function as that of nb.weight_norm_backward."""
    return None if dim in (None, -1) else dim % rank


def test_there_are_recordings_of_every_kind():
    assert len(RECORDINGS) == 12


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        rec = dict(file)
    meta = json.loads(str(rec["meta"]))
    layer = weight_norm(Record(rec["W"].copy()), "weight", meta["dim"])
    assert_close(layer.weight_g, rec["g_init"])
    params = nb.ParameterBuffer.from_arrays({"v": layer.weight_v, "g": layer.weight_g})
    layer.weight_v, layer.weight_g = params["v"].value, params["g"].value  # what the optimizer moves
    assert meta["opt"].pop("type") == "Momentum"
    opt = nb.optimizer.Momentum(parameters=params, **meta["opt"])
    for t in range(meta["steps"]):
        assert_close(layer.weight, rec["w_forward"][t])
        dim = kept(meta["dim"], layer.weight.ndim)
        dv, dg = nb.weight_norm_backward(layer.weight_v, layer.weight_g, rec["dLdw"][t], dim)
        assert_close(dv, rec["grad_v"][t])
        assert_close(dg, rec["grad_g"][t])
        opt.step({"v": dv, "g": dg})
        state = opt.state_dict()
        for key, array in rec.items():
            match key:
                case "v" | "g":
                    assert_close(getattr(layer, f"weight_{key}"), array[t])
                case "vel_v" | "vel_g":
                    assert_close(state[f"{key[-1]}.velocity"], array[t])
    remove_weight_norm(layer)
    assert_close(layer.weight, rec["w_removed"])


# --- names and dims --------------------------------------------------------------------------------


def test_signatures():
    def names(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    empty = inspect.Parameter.empty
    assert names(weight_norm) == [("layer", empty), ("name", "weight"), ("dim", 0)]
    assert names(remove_weight_norm) == [("layer", empty), ("name", "weight")]
    assert nb.compat.paddle.weight_norm is weight_norm


@pytest.mark.parametrize(
    ("dim", "g"),
    [
        (0, [5.0, 25.0, 61.0]),
        (-2, [5.0, 25.0, 61.0]),
        (1, [35.0, 56.0]),
        (None, 91.0),
        (-1, 91.0),
        (np.int64(1), [35.0, 56.0]),
    ],
)
def test_dim_is_the_axis_that_is_kept(dim, g):
    layer = weight_norm(Record(W.copy()), dim=dim)
    assert_close(layer.weight_g, np.asarray(np.sqrt(g)), rtol=1e-7)
    assert_allclose(layer.weight, W)


def test_dims_of_a_convolution():
    kernel = np.arange(1.0, 25.0).reshape(2, 3, 2, 2)
    tables = {
        None: 70.0,
        0: [25.4951, 65.19202],
        1: [29.5973, 39.34463, 49.75942],
        2: [46.36809, 52.44044],
        3: [47.95832, 50.9902],
        -3: [29.5973, 39.34463, 49.75942],
    }
    for dim, g in tables.items():
        assert_allclose(weight_norm(Record(kernel.copy()), "weight", dim).weight_g, g, rtol=1e-6)


def test_dims_of_a_vector():
    vector = np.array([3.0, -4.0, 12.0])
    layer = weight_norm(Record(vector.copy()), dim=0)
    assert_close(layer.weight_g, np.array([3.0, 4.0, 12.0]))
    layer.weight_g[...] = [1.0, -2.0, 3.0]
    assert_allclose(layer.weight, [1.0, 2.0, 3.0])
    for dim in (None, -1):
        layer = weight_norm(Record(vector.copy()), dim=dim)
        assert_allclose(layer.weight_g, 13.0)
        assert layer.weight_g.shape == ()
        layer.weight_g *= 2
        layer.weight_g = layer.weight_g * 0.5  # now a NumPy scalar
        layer.weight_g = 26
        assert_allclose(layer.weight, 2 * vector)


def test_a_magnitude_set_by_hand():
    layer = weight_norm(Record(W.copy()))
    layer.weight_g[...] = [2.0, 3.0, 4.0]
    assert_allclose(layer.weight, [[0.894427, 1.788854], [1.8, 2.4], [2.560738, 3.072885]], rtol=1e-6)
    dv, dg = nb.weight_norm_backward(layer.weight_v, layer.weight_g, C, 0)
    assert_allclose(dg, [0.223607, 0.5, 0.781025], rtol=1e-5)
    assert_allclose(dv, np.zeros((3, 2)), atol=3e-8)


# --- the epsilon -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros(dtype):
    layer = weight_norm(Record(np.zeros((2, 2), dtype)))
    assert_allclose(layer.weight_g, [1e-6, 1e-6], rtol=1e-6)
    assert_array_equal(layer.weight, np.zeros((2, 2)))
    layer.weight_g[...] = 1.0
    assert_array_equal(layer.weight, np.zeros((2, 2)))
    layer = weight_norm(Record(np.zeros((2, 2), dtype)), dim=None)
    assert_allclose(layer.weight_g, 1e-6, rtol=1e-6)
    assert_array_equal(layer.weight, np.zeros((2, 2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiny_weights_change_as_they_do_in_paddle(dtype):
    layer = weight_norm(Record(np.full((2, 2), 1e-7, dtype)))
    assert_allclose(layer.weight_g, [1.00995e-6, 1.00995e-6], rtol=1e-5)
    assert_allclose(layer.weight, np.full((2, 2), 7.1414e-7), rtol=1e-5)
    layer = weight_norm(Record(np.full((2, 2), 1e-7, dtype)), dim=None)
    assert_allclose(layer.weight_g, 1.019804e-6, rtol=1e-5)
    assert_allclose(layer.weight, np.full((2, 2), 5.09899e-7), rtol=1e-5)


def test_v_is_divided_by_1e_12_at_least():
    layer = weight_norm(Record(np.array([[3e-13, 4e-13], [3.0, 4.0]])))
    layer.weight_g[...] = 1.0
    assert_allclose(layer.weight, [[0.3, 0.4], [0.6, 0.8]], rtol=1e-14)
    layer = weight_norm(Record(np.array([[3e-12, 4e-12]])), dim=None)
    layer.weight_g[...] = 1.0
    assert_allclose(layer.weight, [[0.5, 4 / 6]], rtol=1e-14)


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e30), ("float64", 1e200), ("float64", 3e307)])
@pytest.mark.parametrize("dim", [0, None])
def test_squares_of_large_weights_do_not_overflow(dim, dtype, scale):
    weight = np.array([[3.0, 4.0]], dtype) * np.dtype(dtype).type(scale)
    layer = weight_norm(Record(weight.copy()), dim=dim)
    assert_allclose(layer.weight, weight, rtol=1e-6)
    layer.weight_g[...] = 1.0
    assert_allclose(layer.weight, [[0.6, 0.8]], rtol=1e-6)


# --- errors ----------------------------------------------------------------------------------------


def test_a_missing_attribute():
    with pytest.raises(KeyError, match="Linear has no attribute 'nothing'"):
        weight_norm(Linear(), "nothing")


def test_one_hook_for_an_attribute_and_many_for_a_layer():
    layer = weight_norm(Linear())
    with pytest.raises(RuntimeError, match="two weight_norm hooks on the same attribute 'weight'"):
        weight_norm(layer, dim=None)
    weight_norm(layer, "bias")
    assert {"weight_g", "weight_v", "bias_g", "bias_v"} == set(vars(layer))


def test_removal_of_what_is_not_there():
    layer = weight_norm(Linear())
    with pytest.raises(ParameterError, match="weight_norm of 'bias' not found in Linear"):
        remove_weight_norm(layer, "bias")
    assert remove_weight_norm(layer) is layer
    with pytest.raises(ValueError, match="weight_norm of 'weight' not found in Linear"):
        remove_weight_norm(layer)


@pytest.mark.parametrize("dim", [0, None])
def test_a_number_has_no_axis(dim):
    with pytest.raises(ParameterError, match="weight of Record must have at least one axis"):
        weight_norm(Record(np.array(1.0)), dim=dim)


@pytest.mark.parametrize("name", ["ParamAttr", "WeightNormParamAttr"])
def test_attributes_of_parameters_are_in_the_package_itself(name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'; it is nbopt.{name}$"):
        getattr(nb.compat.paddle, name)
    with pytest.raises(AttributeError, match=r"has no attribute 'weight_nrm'$"):
        getattr(nb.compat.paddle, "weight_nrm")  # noqa: B009
