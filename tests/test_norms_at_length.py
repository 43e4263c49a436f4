"""Norms, weight norm and clips of 20,000 random arrays against exact sums; of a million with ``-m slow``.

::

    pytest -m slow tests/test_norms_at_length.py

The summary of the run has the worst error beside its bound. Arrays have up to 100,000 elements, most of them
few. A sum of squares is exact here: squares of scaled numbers without error (Dekker), added without error
(`math.fsum`). What lies 2**-1000 below the largest element is left out.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.kernels import tables as t
from tests import distributions
from tests.distributions import constant, log_uniform, normal, sparse, stepped
from tests.kernels import bits

KINDS = [*distributions.KINDS, stepped]
UNIT = 2.0**-53
LARGEST = float(np.finfo(np.float64).max)
# Arrays per kind and dtype, of which there are 14: 20,020 in all, and 50 times as many.
WHOLE, AXES, WEIGHTS, CLIPS = 780, 400, 120, 130
MOST = 100_000

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
lengths = pytest.mark.parametrize("length", [1, pytest.param(50, marks=pytest.mark.slow)])


def draws(kind, dtype, number, seed):
    """Generator and arrays: one of the largest size, then sizes of which 1 in 100 is above 10,000."""
    rng = np.random.default_rng([seed, KINDS.index(kind), dtype == "float64"])
    for index in range(number):
        size = MOST if index == 0 else int((MOST + 1.0) ** rng.beta(1, 3)) - 1
        x = kind(rng, size, dtype)
        if kind in (normal, constant):  # the others have every exponent already
            far = int(0.9 * math.log2(float(np.finfo(dtype).max)))
            x = np.ldexp(x, int(rng.integers(-far, far)))
        yield rng, x


# --- exact sums -----------------------------------------------------------------------------------


def squares(y):
    """Terms that add up to the sum of squares without error; |y| is at most 2**500."""
    y = np.asarray(y, np.float64)
    product = y * y
    big = (2.0**27 + 1.0) * y
    high = big - (big - y)
    low = y - high
    return [*product.tolist(), *(((high * high - product) + 2.0 * high * low) + low * low).tolist()]


def power_of(x):
    """The power of two that brings the largest element near 2**500."""
    return 500 - int(np.frexp(np.max(np.abs(x), initial=0.0))[1])


def error_of(found, x):
    """Relative error of a norm of `x`, and half a unit in its last place where it is subnormal."""
    power = power_of(x)
    y, norm = np.ldexp(np.ravel(x).astype(np.float64), power), math.ldexp(found, power)
    rest = math.fsum(squares(y) + [-term for term in squares([norm])])
    exact = math.sqrt(norm * norm + rest)
    return abs(rest) / (norm + exact) / exact, math.ldexp(1.0, power - 1075) / exact


def check_norm(found, x, additions):
    """|found - norm| <= (additions/2 + 1) 2**-53 norm; infinite only above the range. Return error, bound."""
    bound = (additions / 2 + 1) * UNIT
    if not np.any(x):
        assert found == 0.0
        return 0.0, bound
    if math.isinf(found):
        power = power_of(x) - 600
        total = math.fsum(squares(np.ldexp(np.ravel(x).astype(np.float64), power)))
        assert math.sqrt(total) >= math.ldexp(LARGEST, power) * (1 - bound)
        return 0.0, bound
    error, rounding = error_of(found, x)
    if found >= 2.0**-1021:  # of a smaller one the last place is worth more
        rounding = 0.0
    assert error <= bound + rounding
    return (0.0 if rounding else error), bound


def log2(n):
    return math.ceil(math.log2(max(1, n)))


def additions_of(shape, dim):
    """How many additions a square meets: in lanes, or down a column (contract N3)."""
    outer, inner = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    if outer == 1 or inner >= t.RUN_FROM:
        return 39 + log2(outer * -(-inner // t.BLOCK))
    return 66 + log2(-(-outer // t.ROW_BLOCK)) + log2(inner)


def nearest(found, error):
    """The one of two (error, bound) that is nearer to its bound."""
    return max(found, error, key=lambda e: e[0] / e[1])


# --- norms ----------------------------------------------------------------------------------------


@lengths
@every_dtype
@every_kind
def test_of_the_whole(kind, dtype, length, counted, worst):
    found = 0.0, 1.0
    for _, x in draws(kind, dtype, WHOLE * length, 0):
        found = nearest(found, check_norm(nb.norm(x), x, 39 + log2(-(-x.size // t.BLOCK))))
    counted("norm arrays", WHOLE * length)
    worst("error of a norm", *found)


def shaped(rng, x):
    """The array with two or three axes, the kept one short, and that axis: first, last or between."""
    kept, dim = int(rng.integers(1, 9)), int(rng.integers(0, 3))
    rest = x.size // kept
    inner = int(rng.integers(1, 40))
    if dim == 1:
        rest = rest // inner * inner
    shape = [(kept, rest), (rest // inner, kept, inner), (rest, kept)][dim]
    return x[: rest * kept].reshape(shape), min(dim, 1)


@lengths
@every_dtype
@every_kind
def test_along_an_axis(kind, dtype, length, counted, worst):
    found = 0.0, 1.0
    for rng, flat in draws(kind, dtype, AXES * length, 1):
        x, dim = shaped(rng, flat)
        norms, additions = nb.norm(x, dim), additions_of(x.shape, dim)
        assert norms.shape == (x.shape[dim],)
        for norm, part in zip(norms.tolist(), np.moveaxis(x, dim, 0), strict=True):
            found = nearest(found, check_norm(norm, part, additions))
    counted("norm arrays", AXES * length)
    worst("error of a norm along an axis", *found)


# --- weight norm ----------------------------------------------------------------------------------


@lengths
@every_dtype
@every_kind
def test_a_weight_is_recomposed(kind, dtype, length, counted, worst):
    """w = (g/|v|) v errs by (2u + e) |w| (contract N6); of each slice the first, middle, last element."""
    unit = Fraction(1, 2 ** {"float32": 24, "float64": 53}[dtype])
    info = np.finfo(dtype)
    half = Fraction(float(info.smallest_subnormal)) / 2
    nearly = 0.0, 1.0
    for rng, flat in draws(kind, dtype, WEIGHTS * length, 2):
        v, dim = shaped(rng, flat[:20_000])
        norms = nb.norm(v, dim)
        g = np.where(norms < float(info.max) / 2, norms, 1.0).astype(dtype)  # so that w is finite
        w = nb.weight_norm(v, g, dim)
        bound = 2 * unit + (2 * additions_of(v.shape, dim) + 8) * Fraction(1, 2**53)
        rows = (np.moveaxis(a, dim, 0).reshape(v.shape[dim], -1) for a in (v, w))
        for magnitude, before, after in zip(g.tolist(), *rows, strict=True):
            if not before.any():
                assert_array_equal(after, 0.0)
                continue
            power = power_of(before)
            total = math.fsum(squares(np.ldexp(before.astype(np.float64), power)))
            square = Fraction(total) / 4**power if power >= 0 else Fraction(total) * 4**-power
            for i in {0, before.size // 2, before.size - 1}:
                assert np.sign(after[i]) in (0.0, np.sign(before[i]) * np.sign(magnitude))
                exact = (Fraction(magnitude) * Fraction(float(before[i]))) ** 2  # times 1/|v|^2
                size = abs(Fraction(float(after[i])))
                # The reference's own rounding of |v|^2, 2**-53 of it.
                above = square * (1 + Fraction(1, 2**53))
                below = square * (1 - Fraction(1, 2**53))
                assert (size + half) ** 2 * above >= exact * (1 - bound) ** 2
                assert max(Fraction(0), size - half) ** 2 * below <= exact * (1 + bound) ** 2
                if size > float(info.smallest_normal):
                    error = abs(float(size * size * square / exact) - 1.0) / 2
                    nearly = nearest(nearly, (error, float(bound)))
    counted("norm arrays", WEIGHTS * length)
    worst(f"error of a recomposed {dtype} weight", *nearly)


# --- clips ----------------------------------------------------------------------------------------


def clip(grads, limit):
    """By global norm where there are two arrays, by norm where there is one."""
    kind = nb.ClipGradByGlobalNorm if len(grads) > 1 else nb.ClipGradByNorm
    return kind(limit)(grads)


def joined(grads):
    return np.concatenate([grads[name] for name in sorted(grads)])


def times(grads, power):
    return {name: np.ldexp(grad, power) for name, grad in grads.items()}


@lengths
@every_dtype
@every_kind
def test_laws_of_clips(kind, dtype, length, counted):
    """Contract N5: identity at the limit, never above it, idempotent, and equivariant by powers of two."""
    info = np.finfo(dtype)
    clipped_below, turned = 0, 0
    for rng, x in draws(kind, dtype, CLIPS * length, 3):
        cut = int(rng.integers(0, x.size + 1)) if rng.integers(2) else x.size
        grads = {"a": x} if cut == x.size else {"a": x[:cut], "b": x[cut:]}
        norms = [nb.norm(x)] if len(grads) == 1 else [nb.norm(x) * (1 + 60 * UNIT)]  # summed in other blocks
        if 0.0 < norms[0] < math.inf:
            assert bits(joined(clip(grads, norms[0]))) == bits(x)
        # From far below the norm to a little below.
        top = min(nb.norm(x), LARGEST)
        limit = top * float(rng.choice([1e-30, 1e-3, 0.3, 0.999, 1 - 1e-9]))
        limit = max(limit, 1e3 * float(info.smallest_normal))
        once = clip(grads, limit)
        assert bits(joined(clip(once, limit))) == bits(joined(once))
        y = joined(once)
        least = np.min(np.abs(y), initial=np.inf, where=x != 0)
        if least < info.smallest_normal or not x.any():
            continue
        power = power_of(y)
        z, bound = np.ldexp(y.astype(np.float64), power), math.ldexp(limit, power)
        if bound < 2.0**520:
            assert math.fsum(squares(z) + [-term for term in squares([bound])]) <= 0.0
            clipped_below += bits(y) != bits(x)
        shift = int(rng.integers(-12, 13))
        if 2.0**13 * info.smallest_normal <= least and np.max(np.abs(x)) < info.max / 2.0**13:
            assert bits(joined(clip(times(grads, shift), limit * 2.0**shift))) == bits(np.ldexp(y, shift))
            turned += 1
    counted("norm arrays", CLIPS * length)
    if kind in (normal, constant, log_uniform, sparse):  # the laws were put to use
        assert clipped_below > 0.2 * CLIPS * length
        assert turned > 0.05 * CLIPS * length
