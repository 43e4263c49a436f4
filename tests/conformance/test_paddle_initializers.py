"""What Paddle's initializers draw, and which of several it takes."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from tests.conformance import initializers
from tests.conformance.initializers import GAINS, Draw, assert_same_distribution, gram
from tests.conformance.paddle_peer import paddle

pytestmark = pytest.mark.conformance


def theirs(draw):
    paddle.seed(draw.seed)
    initializer = getattr(paddle.nn.initializer, draw.kind)(**draw.arguments)
    attr = paddle.ParamAttr(initializer=initializer)
    return paddle.create_parameter(list(draw.shape), draw.dtype, attr=attr).numpy()


@pytest.mark.parametrize(
    "draw", initializers.random_draws(105, fans=True, min_rank=1), ids=lambda draw: draw.label
)
def test_distribution(draw):
    assert_same_distribution(draw.ours(), theirs(draw))


@pytest.mark.parametrize("draw", initializers.random_diracs(40), ids=lambda draw: draw.label)
def test_dirac(draw):
    assert_array_equal(draw.ours(), theirs(draw), strict=True)


@pytest.mark.parametrize("draw", initializers.random_orthogonals(40), ids=lambda draw: draw.label)
def test_orthogonal(draw):
    assert_allclose(gram(draw.ours()), gram(theirs(draw)), atol=1e-12)


@pytest.mark.parametrize("shape", [(150, 150), (60, 400), (400, 60)])
def test_elements_of_an_orthogonal_matrix(shape):
    draw = Draw("Orthogonal", {"gain": 1.5}, shape)
    assert_same_distribution(draw.ours(), theirs(draw))


def test_gain():
    gain, peer = nb.initializer.calculate_gain, paddle.nn.initializer.calculate_gain
    for name in [*GAINS, "conv1d_transpose", "conv2d_transpose", "conv3d_transpose"]:
        assert gain(name) == pytest.approx(peer(name), rel=1e-15), name
    for slope in [0.0, 0.01, 1.0, *np.random.default_rng(0).uniform(-5, 5, size=50).tolist()]:
        assert gain("leaky_relu", slope) == pytest.approx(peer("leaky_relu", slope), rel=1e-14), slope


def test_bilinear_is_another_kernel():  # D9
    draw = Draw("Bilinear", {}, (1, 1, 4, 4))
    ours, skewed = draw.ours()[0, 0], theirs(draw)[0, 0]
    assert_allclose(ours, np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25]))
    assert_allclose(skewed[0], [0.0625, 0.28125, 0.375, 0.15625])


def test_assign_of_another_shape():  # D9
    draw = Draw("Assign", {"value": [1.0, 2.0]}, (3,))
    assert theirs(draw).shape == (2,)
    with pytest.raises(nb.errors.ParameterError, match="shape"):
        draw.ours()


@pytest.mark.parametrize("is_bias", [False, True])
def test_which_initializer_is_taken(is_bias):
    for own, default, everywhere in itertools.product([None, 1.0], [None, 2.0], [None, 3.0]):
        got = []
        for initializer, create in (
            (nb.initializer, lambda **options: nb.ParameterBuffer().create_parameter([2], **options)),
            (paddle.nn.initializer, lambda **options: paddle.create_parameter([2], "float32", **options)),
        ):
            constants = [None if x is None else initializer.Constant(x) for x in (own, default, everywhere)]
            initializer.set_global_initializer(*([constants[2]] if not is_bias else [None, constants[2]]))
            try:
                created = create(attr=constants[0], is_bias=is_bias, default_initializer=constants[1])
            finally:
                initializer.set_global_initializer(None)
            got.append(created.numpy())
        ours, peer = got
        if (own, default, everywhere) == (None, None, None) and not is_bias:
            assert np.abs(got).max() <= np.sqrt(6 / 4)  # both draw XavierUniform
        else:
            assert_array_equal(ours, peer, f"{own} {default} {everywhere}", strict=True)
