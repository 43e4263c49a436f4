"""SGD, Adam, clips and weight norm of torch."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nbopt as nb
from tests.conformance.comparison import TOLERANCE, NbOpt, clip_in_place, compare, follow
from tests.conformance.configurations import (
    DIMS,
    TORCH,
    TORCH_ADAM,
    TORCH_ADAM_WEIGHT_NORM,
    TORCH_WEIGHT_NORM,
    Spec,
    table,
)
from tests.conformance.torch_peer import Torch, torch

pytestmark = pytest.mark.conformance

STEPS = table(TORCH, 240)
WEIGHT_NORM = table(TORCH_WEIGHT_NORM, 15 * len(DIMS))
ADAM = table(TORCH_ADAM, 240)
ADAM_WEIGHT_NORM = table(TORCH_ADAM_WEIGHT_NORM, 5 * len(DIMS))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The arrays are small; starting threads for them costs more than all else."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("conf", STEPS, ids=lambda conf: conf.label)
def test_sgd(conf):
    follow(conf, NbOpt(conf), Torch(conf))


@pytest.mark.parametrize("conf", WEIGHT_NORM, ids=lambda conf: conf.label)
def test_sgd_of_weight_norm(conf):
    follow(conf, NbOpt(conf), Torch(conf))


@pytest.mark.parametrize("conf", ADAM, ids=lambda conf: conf.label)
def test_adam(conf):
    follow(conf, NbOpt(conf), Torch(conf))


@pytest.mark.parametrize("conf", ADAM_WEIGHT_NORM, ids=lambda conf: conf.label)
def test_adam_of_weight_norm(conf):
    follow(conf, NbOpt(conf), Torch(conf))


def test_every_axis_of_every_rank_is_there():
    seen = {(len(s.shape), s.dim) for conf in WEIGHT_NORM for s in conf.params.values() if s.normed}
    assert seen == {(rank, dim) for rank in range(1, 5) for dim in (*range(rank), None)}


# --- functions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rank", "dim"), DIMS)
def test_weight_norm_forward_and_backward(rank, dim, dtype):
    rng = np.random.default_rng(rank)
    shape = (3, 4, 2, 5)[:rank]
    value, grad = (rng.normal(size=shape).astype(dtype) for _ in "vd")
    attr = nb.WeightNormParamAttr(dim=dim, initializer=nb.initializer.Assign(value))
    params = nb.ParameterBuffer(dtype=dtype)
    w = params.create_parameter(shape, "w", attr=attr)
    magnitude = rng.normal(size=w.weight_g.shape).astype(dtype)  # of either sign
    w.weight_g.set_value(magnitude)
    w.grad = grad

    v = torch.from_numpy(value.copy()).requires_grad_()
    g = torch.from_numpy(magnitude if dim is not None else magnitude.reshape(())).requires_grad_()
    composed = torch._weight_norm(v, g, -1 if dim is None else dim)
    composed.backward(torch.from_numpy(grad))
    got = {"w": w.value, "v": w.weight_v.grad, "g": w.weight_g.grad}
    expected = {"w": composed.detach(), "v": v.grad, "g": g.grad.reshape(w.weight_g.shape)}
    arrays = {key: tensor.numpy() for key, tensor in expected.items()}
    compare(got, arrays, TOLERANCE[dtype], f"of shape {shape}")


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, math.inf])
def test_clip_grad_norm(norm_type):
    for conf in STEPS:
        tensors = [torch.zeros(spec.shape, dtype=getattr(torch, conf.dtype)) for spec in conf.params.values()]

        def theirs(grads, limit, tensors=tensors):
            for tensor, grad in zip(tensors, grads, strict=True):
                tensor.grad = torch.from_numpy(grad)
            total = torch.nn.utils.clip_grad_norm_(tensors, limit, norm_type)
            return float(total), [tensor.grad.numpy() for tensor in tensors]

        clip_in_place(conf, norm_type, theirs)


def test_clip_grad_value():
    for conf in STEPS:
        params = nb.ParameterBuffer.from_arrays(conf.values())
        grads, bound = conf.grads(0), conf.grad_scale / 2
        tensors = {name: torch.from_numpy(value) for name, value in conf.values().items()}
        for name, tensor in tensors.items():
            grads[name] = np.zeros_like(tensor) if grads[name] is None else grads[name]
            tensor.grad = torch.from_numpy(grads[name].copy())
        params.set_grads(grads)
        nb.clip_grad_value_(params, bound)
        torch.nn.utils.clip_grad_value_(tensors.values(), bound)
        for name, tensor in tensors.items():
            assert_allclose(params[name].grad, tensor.grad, rtol=0, err_msg=f"{name} of {conf}")


# --- what the table covers ------------------------------------------------------------------------


def test_the_table_has_every_policy():
    confs = [*STEPS, *WEIGHT_NORM]
    specs = [spec for conf in confs for spec in conf.params.values()]
    for key in ("learning_rate", "regularizer", "need_clip", "trainable"):
        assert sum(getattr(spec, key) != getattr(Spec, key) for spec in specs) > 50, key
    for key in ("absent", "zero", "rates", "edits", "groups"):
        assert sum(bool(getattr(conf, key)) for conf in confs) > 50, key
    kinds = [conf.options["grad_clip"].kind for conf in confs if "grad_clip" in conf.options]
    assert all(kinds.count(kind) > 30 for kind in ("value", "norm", "global"))
