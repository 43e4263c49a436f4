"""Weight norm against float64 autograd of ``g v / |v|`` in torch: on plain arrays, and of a parameter."""

import numpy as np
import pytest

import nbopt as nb
from tests.conformance.configurations import DIMS

torch = pytest.importorskip("torch", minversion="2.6")
pytestmark = pytest.mark.conformance

# Sizes of an axis: 1, a few, and more than a block of rows.
LENGTHS = {1: (1, 7, 5000), 2: (1, 5, 300), 3: (1, 4, 40), 4: (1, 3, 11)}
SEEDS = range(200)
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # relative to the terms of a sum


class Case:
    """A random shape, dim and dtype; v and g over many orders of magnitude; g of any sign and either form."""

    def __init__(self, seed):
        rng = np.random.default_rng([seed, *b"weight norm"])
        rank, self.dim = DIMS[seed % len(DIMS)]
        self.dtype = rng.choice(list(TOLERANCE))
        self.shape = tuple(int(n) for n in rng.choice(LENGTHS[rank], rank))
        full = tuple(n if axis == self.dim else 1 for axis, n in enumerate(self.shape))
        self.v, self.g, self.dw = (
            (rng.normal(size=shape) * np.exp(rng.uniform(-20, 20))).astype(self.dtype)
            for shape in (self.shape, full, self.shape)
        )
        self.vector = bool(rng.random() < 0.5)
        self.where = f"of seed {seed}: {self.shape}, dim {self.dim}, {self.dtype}, vector {self.vector}"

    def expected(self):
        """w, dv and dg in float64 autograd, and the sizes of the terms that they are sums of."""
        v, g, dw = (torch.from_numpy(a.astype(np.float64)) for a in (self.v, self.g, self.dw))
        v.requires_grad_(), g.requires_grad_()
        axes = [axis for axis in range(v.ndim) if axis != self.dim]

        def total(terms):
            return terms.sum(axes, keepdim=True) if axes else terms

        w = g * v / total(v.square()).sqrt()
        w.backward(dw)
        values = w, v.grad, g.grad
        with torch.no_grad():
            norm, along = total(v.square()).sqrt(), total((v * dw).abs())
            terms = w.abs(), (g / norm).abs() * (dw.abs() + along / norm**2 * v.abs()), along / norm
        return [[tensor.detach().numpy() for tensor in tensors] for tensors in (values, terms)]

    def check(self, *arrays):
        """w, dv and dg against autograd."""
        for array, value, terms in zip(arrays, *self.expected(), strict=True):
            assert (array.shape, array.dtype) == (value.shape, self.dtype), self.where
            assert np.all(np.abs(array - value) <= TOLERANCE[self.dtype] * terms), self.where


@pytest.mark.parametrize("seed", SEEDS)
def test_plain_arrays(seed):
    case = Case(seed)
    g = case.g.reshape(-1) if case.vector else case.g
    dv, dg = nb.weight_norm_backward(case.v, g, case.dw, case.dim)
    assert dg.shape == g.shape
    case.check(nb.weight_norm(case.v, g, case.dim), dv, dg.reshape(case.g.shape))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_parameter(seed):
    case = Case(seed)
    params = nb.ParameterBuffer(case.dtype)
    attr = nb.WeightNormParamAttr(case.dim, initializer=nb.initializer.Assign(case.v))
    w = params.create_parameter(case.shape, "w", attr)
    w.weight_g.set_value(case.g)
    w.grad = case.dw
    case.check(w.value, w.weight_v.grad, w.weight_g.grad)
