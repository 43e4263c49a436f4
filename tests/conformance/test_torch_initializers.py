"""What torch.nn.init draws."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from tests.conformance import initializers
from tests.conformance.initializers import GAINS, Draw, assert_same_distribution, gram
from tests.conformance.torch_peer import torch

pytestmark = pytest.mark.conformance

# Their names, and their names of our arguments.
FUNCTIONS = {
    "Normal": ("normal_", {}),
    "Uniform": ("uniform_", {"low": "a", "high": "b"}),
    "TruncatedNormal": ("trunc_normal_", {}),
    "XavierUniform": ("xavier_uniform_", {}),
    "XavierNormal": ("xavier_normal_", {}),
    "KaimingUniform": ("kaiming_uniform_", {"negative_slope": "a"}),
    "KaimingNormal": ("kaiming_normal_", {"negative_slope": "a"}),
    "Orthogonal": ("orthogonal_", {}),
}


def theirs(draw):
    """A matrix is [out, in] in torch: it is drawn transposed."""
    name, renamed = FUNCTIONS[draw.kind]
    arguments = {renamed.get(key, key): value for key, value in draw.arguments.items()}
    matrix = len(draw.shape) == 2 and draw.kind != "Orthogonal"
    tensor = torch.empty(draw.shape[::-1] if matrix else draw.shape, dtype=getattr(torch, draw.dtype))
    getattr(torch.nn.init, name)(tensor, generator=torch.Generator().manual_seed(draw.seed), **arguments)
    return tensor.numpy().T if matrix else tensor.numpy()


@pytest.mark.parametrize(
    "draw", initializers.random_draws(84, fans=False, min_rank=2), ids=lambda draw: draw.label
)
def test_distribution(draw):
    assert_same_distribution(draw.ours(), theirs(draw))


@pytest.mark.parametrize("draw", initializers.random_diracs(40), ids=lambda draw: draw.label)
def test_dirac(draw):
    expected = torch.nn.init.dirac_(torch.empty(draw.shape), **draw.arguments).numpy()
    assert_array_equal(draw.ours(), expected, strict=True)


@pytest.mark.parametrize("draw", initializers.random_orthogonals(40), ids=lambda draw: draw.label)
def test_orthogonal(draw):
    assert_allclose(gram(draw.ours()), gram(theirs(draw)), atol=1e-12)


@pytest.mark.parametrize("shape", [(150, 150), (60, 400), (400, 60)])
def test_elements_of_an_orthogonal_matrix(shape):
    draw = Draw("Orthogonal", {"gain": 1.5}, shape)
    assert_same_distribution(draw.ours(), theirs(draw))


def test_gain():
    gain, peer = nb.initializer.calculate_gain, torch.nn.init.calculate_gain
    for name in GAINS:
        assert gain(name) == pytest.approx(peer(name), rel=1e-15), name
    for slope in [0.0, 0.01, 1.0, *np.random.default_rng(0).uniform(-5, 5, size=50).tolist()]:
        assert gain("leaky_relu", slope) == pytest.approx(peer("leaky_relu", slope), rel=1e-14), slope


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_bilinear_is_the_kernel_of_interpolation(factor):
    size = 2 * factor - factor % 2
    kernel = torch.from_numpy(Draw("Bilinear", {}, (1, 1, size, size), dtype="float64").ours())
    image = torch.from_numpy(np.random.default_rng(factor).normal(size=(1, 1, 6, 7)))
    got = torch.nn.functional.conv_transpose2d(image, kernel, stride=factor, padding=(size - factor) // 2)
    expected = torch.nn.functional.interpolate(image, scale_factor=factor, mode="bilinear")
    inner = slice(factor, -factor)
    assert got.shape == expected.shape
    assert_allclose(got[..., inner, inner], expected[..., inner, inner], atol=1e-12)
