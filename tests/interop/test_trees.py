"""Trees of plain containers and NumPy arrays, the same with JAX and without it."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

import nbopt as nb
from nbopt.interop import jax as room


@dataclasses.dataclass(frozen=True)
class Layer:
    weight: np.ndarray
    bias: np.ndarray | None = None


class Pair(NamedTuple):
    one: object
    other: object


NAMES = ["0.layers.0.weight", "0.layers.0.bias", "0.layers.1.weight", "0.scale"]
NAMES += ["1.one", "1.other.a", "1.other.z"]


def model():
    layers = [Layer(np.arange(6.0).reshape(2, 3), np.ones(3)), Layer(np.eye(2))]
    return [{"scale": 0.5, "layers": layers}, Pair(1.5, {"z": np.zeros(0), "a": np.ones(1)})]


@pytest.fixture(params=["with", "without"], autouse=True)
def library(request, monkeypatch):
    """The room with JAX, where it is installed, and without it."""
    if request.param == "without":
        monkeypatch.setattr(room, "jax", None)
    elif room.jax is None:
        pytest.skip("jax is not installed")


def test_names_and_order():
    params = nb.jax.from_pytree(model())
    assert list(params) == NAMES
    assert params["0.layers.0.weight"].shape == (2, 3)
    assert params["1.one"].shape == ()


def test_back_again():
    before = model()
    params = nb.jax.from_pytree(before)
    for parameter in params.values():
        parameter.value *= 2
    out = nb.jax.to_pytree(params, before)
    assert type(out[1]) is Pair
    assert out[1].one == 3.0
    assert type(out[1].one) is float
    assert list(out[0]) == ["scale", "layers"]
    assert type(out[0]["layers"][0]) is Layer
    assert out[0]["layers"][1].bias is None
    assert np.array_equal(out[0]["layers"][0].weight, 2 * before[0]["layers"][0].weight)
    assert np.array_equal(before[0]["layers"][0].weight, model()[0]["layers"][0].weight)
    assert not np.shares_memory(out[0]["layers"][0].weight, params.flat)


def test_dtypes_are_those_of_the_tree():
    mixed = {"a": np.ones(2, np.float32), "b": np.ones(2)}
    params = nb.jax.from_pytree(mixed)
    assert params.dtype == np.float64
    out = nb.jax.to_pytree(params, mixed)
    assert (out["a"].dtype, out["b"].dtype) == (np.float32, np.float64)


def test_gradients():
    params = nb.jax.from_pytree(model())
    grads = nb.jax.to_pytree(params, model())
    nb.jax.set_grads(params, grads)
    assert np.array_equal(params.to_vector("grad"), params.to_vector())
    grads[0]["layers"][0] = Layer(grads[0]["layers"][0].weight)
    nb.jax.set_grads(params, grads)
    assert [name for name, p in params.items() if not p.has_grad] == ["0.layers.0.bias"]


REFUSED = {
    "one name": (lambda: {"a.b": 1.0, "a": {"b": 2.0}}, nb.errors.ParameterError, "two paths .* 'a.b'"),
    "one leaf": (lambda: np.ones(2), TypeError, "has keys, got a single ndarray"),
    "integers": (lambda: {"n": np.arange(2)}, TypeError, "leaf 'n' is int64.*attrs={'n': False}"),
    "an int": (lambda: {"n": 3}, TypeError, "leaf 'n' is int"),
    "a name": (lambda: {"n": "tanh"}, TypeError, "leaf 'n' is str"),
    "a function": (lambda: [np.tanh], TypeError, "leaf '0' is ufunc"),
    "a class": (lambda: [Layer], TypeError, "leaf '0' is type"),
    "keys of two kinds": (lambda: {"a": 1.0, 2: 1.0}, TypeError, "must be of one kind"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_trees_that_are_refused(what):
    make, kind, message = REFUSED[what]
    with pytest.raises(kind, match=message):
        nb.jax.from_pytree(make())


def test_trees_that_do_not_fit():
    params = nb.jax.from_pytree({"a": np.ones(2)})
    params["a"].grad = [3.0, 4.0]
    with pytest.raises(nb.errors.ParameterError, match="no leaf for parameter 'a'; it has: b"):
        nb.jax.to_pytree(params, {"b": np.ones(2)})
    with pytest.raises(nb.errors.ParameterError, match=r"leaf 'a' has shape \(1,\), but .* \(2,\)"):
        nb.jax.to_pytree(params, {"a": np.ones(1)})
    for leaf in (np.arange(2), 3):
        with pytest.raises(TypeError, match="leaf 'a' is int"):
            nb.jax.to_pytree(params, {"a": leaf})
    for grads in ({"b": np.ones(2)}, {"a": np.ones(3)}):
        with pytest.raises(nb.errors.ParameterError):
            nb.jax.set_grads(params, grads)
    assert params["a"].grad.tolist() == [3.0, 4.0]


def test_attributes_by_pattern():
    params = nb.jax.from_pytree(model(), attrs={"*.bias": nb.ParamAttr(need_clip=False), "1.*": False})
    assert list(params) == NAMES[:4]
    assert not params["0.layers.0.bias"].need_clip
    with pytest.raises(nb.errors.ParameterError, match="matches no array"):
        nb.jax.from_pytree(model(), attrs={"*.kernel": nb.ParamAttr()})
