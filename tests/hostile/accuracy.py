"""Errors of norms: at any length, in every form, against exact sums of squares."""

import math
from fractions import Fraction

import numpy as np

import nbopt as nb
from nbopt.kernels.tables import BLOCK
from tests.hostile import F32, F64, buffer, same
from tests.hostile.norms import many_clips
from tests.kernels import UNIT, exact_square, exact_squares


def within(norm, square, count, parameters=1):
    """The norm is within the bound of the contract of the root of `square`, an exact Fraction."""
    d = 32 + 7 + math.ceil(math.log2(max(1, -(-count // BLOCK)))) + math.ceil(math.log2(parameters))
    bound = Fraction(d + 2, 2) / 2**53
    assert square * (1 - bound) ** 2 <= Fraction(norm) ** 2 <= square * (1 + bound) ** 2


def rounds_to(norm, square):
    """As a float32, the norm is the one nearest to the root of `square`, or a tie to 3e-7."""
    nearest = float(F32(norm))
    half = Fraction(float(np.spacing(F32(norm)))) * (Fraction(1, 2) + Fraction(3, 10**7))
    assert (Fraction(nearest) - half) ** 2 <= square <= (Fraction(nearest) + half) ** 2


def square_of_equals(value, count):
    return Fraction(value) ** 2 * count


def square_of(array):
    return Fraction(exact_squares([array]), UNIT)


def equal_elements():
    count, value = 10**8, F32(0.1)
    norm = nb.norm(np.full(count, value))
    square = square_of_equals(float(value), count)
    within(norm, square, count)
    rounds_to(norm, square)


def equal_elements_by_every_road():
    count = 10**6
    params = buffer(w=np.zeros(count))
    params["w"].grad.fill(0.1)
    opt = nb.optimizer.SGD(0.0, params)
    opt.step()
    grad = params["w"].grad
    found = {
        nb.norm(grad),
        nb.norm(grad.reshape(1000, 1000)),
        nb.norm(grad[np.newaxis], dim=0)[0],
        nb.clip_grad_norm_(params, math.inf),
        opt.grad_norm,
    }
    assert len(found) == 1
    within(*found, square_of_equals(float(F32(0.1)), count), count)


def normals():
    array = np.random.default_rng(0).standard_normal(10**6, F32)
    square = square_of(array)
    within(nb.norm(array), square, array.size)
    rounds_to(nb.norm(array), square)


def large_before_small():
    array = np.full(10**7, 1e-2, F32)
    array[0] = 1e3
    square = square_of_equals(1e3, 1) + square_of_equals(float(F32(1e-2)), 10**7 - 1)
    within(nb.norm(array), square, array.size)
    rounds_to(nb.norm(array), square)


def any_length():
    rng = np.random.default_rng(0)
    for power in range(8):
        count = 10**power
        value = F32(rng.uniform(0.1, 1))
        norm = nb.norm(np.full(count, value))
        within(norm, square_of_equals(float(value), count), count)
        if power < 6:
            array = rng.standard_normal(count, F32)
            within(nb.norm(array), square_of(array), count)


def clip_of_equal_elements():
    count = 3 * 10**7
    params = nb.ParameterBuffer()
    weight = params.create_parameter([count], "w", nb.initializer.Constant(0.0))
    weight.grad.fill(0.1)
    norm = nb.clip_grad_norm_(params, 1.0)
    within(norm, square_of_equals(float(F32(0.1)), count), count)
    clipped = weight.grad[0]
    assert clipped == weight.grad.min() == weight.grad.max()
    assert 1 - 2.0**-20 < square_of_equals(float(clipped), count) <= 1


def magnitude_of_a_whole_matrix():
    value = F32(0.1)
    params = buffer(w=np.full((4096, 4096), value), attrs={"w": nb.WeightNormParamAttr(dim=None)})
    same(params["w"].weight_g.numpy(), np.full((1, 1), 4096 * float(value), F32))


def half_precision():
    array = np.random.default_rng(0).standard_normal(10**6).astype(np.float16)
    within(nb.norm(array), square_of(array.astype(F32)), array.size)
    widened = (array.astype(F32).view(np.uint32) & 0xFFFF0000).view(F32)  # what bfloat16 can hold
    within(nb.norm(widened), square_of(widened), array.size)


def many_small_parameters():
    count = 10_000
    params = buffer(**{f"p{i}": np.zeros(10) for i in range(count)})
    for piece in params.slices.values():
        params.flat_grad[piece] = 0.1
    opt = nb.optimizer.SGD(1.0, params, grad_clip=nb.ClipGradByGlobalNorm(math.inf))
    opt.step()  # one call of compiled code
    square = square_of_equals(float(F32(0.1)), 10 * count)
    within(opt.grad_norm, square, 10, count)
    rounds_to(opt.grad_norm, square)
    assert (params.to_vector() == -F32(0.1)).all()


def property_run(dtype, count):
    """Arrays of any length, over exponents from subnormal to the largest, against exact sums."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    for _ in range(count):
        size = int(rng.integers(1, 9000))
        exponents = rng.integers(info.minexp - info.nmant, info.maxexp - 8, 2)
        spread = rng.integers(exponents.min(), exponents.max() + 1, size)
        array = np.ldexp(rng.uniform(0.5, 1, size), spread).astype(dtype)
        square = square_of(array)
        if square:
            within(nb.norm(array), square, size)


def property_run_float32():
    property_run(F32, 60)


def property_run_float64():
    property_run(F64, 60)


def clip_law_float32():
    many_clips(F32, 300)


def clip_law_float64():
    many_clips(F64, 300)


def the_shrink_is_needed():
    """The textbook coefficient exceeds the limit about every other time."""
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(200):
        grad = rng.standard_normal(50).astype(F32)
        limit = nb.norm(grad) * rng.uniform(0, 1)
        above += exact_squares([F32(limit / nb.norm(grad)) * grad]) > exact_square(limit)
        assert exact_squares(nb.ClipGradByNorm(limit)({"w": grad}).values()) <= exact_square(limit)
    assert above > 50
