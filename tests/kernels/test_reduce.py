"""The shape of every sum, written here once more in plain NumPy: the compiled sums must have its bits."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nbopt import norms
from nbopt.kernels import trees
from nbopt.kernels.cpu import reduce
from tests.kernels import bits

by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

EDGES = [*range(0, 18), 31, 32, 33, 64, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097, 8191, 8192, 8193]
SAMPLE = [int(n) for n in np.random.default_rng(0).integers(0, 10_001, 30)]


def wild(rng, shape, dtype):
    """Numbers of many magnitudes, so that another order of additions gives other bits."""
    spread = np.exp2(rng.uniform(-3, 3, shape))
    return (rng.standard_normal(shape) * spread).astype(dtype)


# --- the shape ------------------------------------------------------------------------------------


def tree(sums):
    """Neighbours in pairs, level by level; an odd one at the end goes up as it is."""
    sums = list(sums)
    while len(sums) > 1:
        pairs = [a + b for a, b in zip(sums[::2], sums[1::2], strict=False)]
        sums = pairs + sums[len(pairs) * 2 :]
    return sums[0] if sums else 0.0


def lane_sum(products):
    """At most 4096 products: 128 lanes, quads inside out, then halves."""
    lanes = np.zeros(128)
    for start in range(0, len(products), 128):
        row = products[start : start + 128]
        lanes[: len(row)] += row
    quads = (lanes[0::4] + lanes[2::4]) + (lanes[1::4] + lanes[3::4])
    for half in (16, 8, 4, 2, 1):
        quads = quads[:half] + quads[half : 2 * half]
    return float(quads[0])


def block_sums(products):
    return [lane_sum(products[at : at + 4096]) for at in range(0, len(products), 4096)]


def run_sum(a, b):
    return tree(block_sums(a.astype(np.float64) * b.astype(np.float64)))


def column_sums(a, b):
    """Down the columns of a matrix: row blocks of 256, in each the rows in quads, then a tree."""
    products = a.astype(np.float64) * b.astype(np.float64)
    sums = []
    for start in range(0, len(products), 256):
        block = products[start : start + 256]
        block = np.concatenate([block, np.zeros((-len(block) % 4, block.shape[1]))])
        total = np.zeros(block.shape[1])
        for r in range(0, len(block), 4):
            total += (block[r] + block[r + 2]) + (block[r + 1] + block[r + 3])
        sums.append(total)
    return tree(sums)


def bins(x):
    """A float64 block whose sum leaves [1e-280, 1e300] is summed again over x times a power of two."""
    partials = np.zeros((3, max(1, -(-len(x) // 4096))))
    for block in range(-(-len(x) // 4096)):
        values = x[block * 4096 : (block + 1) * 4096]
        with np.errstate(over="ignore", under="ignore"):
            middle = lane_sum(values * values)
            if 1e-280 <= middle <= 1e300:
                partials[1, block] = middle
            elif middle < 1e-280:
                partials[0, block] = lane_sum((values * 2.0**600) ** 2)
            else:
                partials[2, block] = lane_sum((values * 2.0**-600) ** 2)
    return [tree(row) for row in partials]


# --- runs -----------------------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("size", sorted({*EDGES, *SAMPLE}))
def test_square_sums_have_the_fixed_shape(size, dtype):
    x = wild(np.random.default_rng(size), size, dtype)
    assert bits(norms.square_bins(x)) == bits([0.0, run_sum(x, x), 0.0])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda p: float(np.sum(p)), id="numpy"),
        pytest.param(math.fsum, id="exact"),
        pytest.param(lambda p: tree(block_sums(p[::-1])), id="backwards"),
        pytest.param(lambda p: sum(block_sums(p)[1:], block_sums(p)[0]), id="blocks-in-a-row"),
        pytest.param(lambda p: tree(block_sums(np.concatenate([p[1:], p[:1]]))), id="shifted"),
    ],
)
def test_another_order_gives_other_bits(other):
    """The tests above can fail: of 50 arrays some tell each other order apart."""
    rng = np.random.default_rng(0)
    arrays = [wild(rng, 20_000, "float64") for _ in range(50)]
    assert any(norms.square_bins(x)[1] != other(x * x) for x in arrays)


@pytest.mark.parametrize("size", [1, 129, 4096, 4097, 9000, 30_000])
def test_bins_have_the_fixed_shape(size):
    rng = np.random.default_rng(size)
    for _ in range(20):
        blocks = np.repeat(np.exp2(rng.choice([-900, -480, 0, 490, 900], size // 4096 + 1)), 4096)[:size]
        x = wild(rng, size, "float64") * blocks * (rng.random(size) < rng.random())
        assert bits(norms.square_bins(x)) == bits(bins(x))


@pytest.mark.parametrize("size", [1, 4096, 4097])
def test_zeros_stay_in_no_bin(size):
    assert_array_equal(norms.square_bins(np.zeros(size)), 0.0)
    assert_array_equal(norms.square_bins(np.full(size, -0.0)), 0.0)


# --- slices of weight norm ------------------------------------------------------------------------


def products(v, d, dim):
    """Sums of v*v, v*d, d*d of each slice; none of these needs a power of two."""
    found = norms.slice_sums(v, d, dim)
    assert_array_equal(found[3:], 1.0)
    return found[:3]


@by_dtype
@pytest.mark.parametrize("size", [0, 1, 100, 129, 4096, 4097, 8192, 12_289, 100_000, 820_000])
def test_slice_sums_have_the_fixed_shape(size, dtype):
    """One slice of any size: streamed blocks join as in the tree, level by level."""
    rng = np.random.default_rng(size)
    v, d = wild(rng, size, dtype), wild(rng, size, dtype)
    expected = [[run_sum(v, v)], [run_sum(v, d)], [run_sum(d, d)]]
    assert bits(products(v, d, None)) == bits(expected)


@by_dtype
@pytest.mark.parametrize(("slices", "inner"), [(1, 7), (5, 1), (9, 130), (3, 5000)])
def test_rows_have_the_fixed_shape(slices, inner, dtype):
    rng = np.random.default_rng(inner)
    v, d = wild(rng, (slices, inner), dtype), wild(rng, (slices, inner), dtype)
    pairs = ((v, v), (v, d), (d, d))
    expected = [[run_sum(a[j], b[j]) for j in range(slices)] for a, b in pairs]
    assert bits(products(v, d, 0)) == bits(expected)


@by_dtype
@pytest.mark.parametrize(
    ("outer", "slices", "inner"),
    [
        (2, 3, 1),
        (3, 5, 4),
        (7, 2, 9),
        (255, 3, 2),
        (256, 3, 1),
        (257, 2, 3),
        (1000, 4, 1),
        (5, 600, 1),
        (3, 4, 700),
    ],
)
def test_columns_have_the_fixed_shape(outer, slices, inner, dtype):
    """Columns first, over row blocks; then the columns of one slice by a tree."""
    rng = np.random.default_rng(outer)
    shape = outer, slices, inner
    v, d = wild(rng, shape, dtype), wild(rng, shape, dtype)
    expected = []
    for a, b in ((v, v), (v, d), (d, d)):
        columns = column_sums(a.reshape(outer, -1), b.reshape(outer, -1)).reshape(slices, inner)
        expected.append([tree(list(row)) for row in columns])
    assert bits(products(v, d, 1)) == bits(expected)


@by_dtype
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((50, 60), 0), ((50, 60), 1), ((50, 60), None), ((600, 3, 5), 1), ((8, 4, 3, 3), 0), ((8, 4, 3, 3), 1)],
)
def test_slice_sums_against_float64(shape, dim, dtype):
    rng = np.random.default_rng(9)
    v, d = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    axes = tuple(axis for axis in range(len(shape)) if axis != dim)
    wide = v.astype(np.longdouble), d.astype(np.longdouble)
    expected = (wide[0] ** 2, wide[0] * wide[1], wide[1] ** 2)
    for sums, product in zip(products(v, d, dim), expected, strict=True):
        atol = 1e-14 * float(np.abs(product).sum(axes).max())
        assert_allclose(sums, np.atleast_1d(product.sum(axes)), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("dim", "shape"), [(0, (3, 9000)), (1, (9000, 3)), (1, (60, 3, 150)), (None, (9000,))]
)
@pytest.mark.parametrize("v_scale", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("d_scale", [1e-200, 1.0, 1e200])
def test_rescued_slices_are_as_exact_as_others(d_scale, v_scale, shape, dim):
    """float64: sums over v and d times exact powers of two. Equal elements make every other shape drift."""
    v, d = 1.1 * v_scale, 1.3 * d_scale
    vv, vd, dd, power_v, power_d = norms.slice_sums(np.full(shape, v), np.full(shape, d), dim)
    count = math.prod(shape) // len(vv)
    error = Fraction(39 + 66 + 14, 2**53)
    pairs = ((vv, v, v, power_v, power_v), (vd, v, d, power_v, power_d), (dd, d, d, power_d, power_d))
    for found, a, b, power_a, power_b in pairs:
        for j, value in enumerate(found):
            exact = count * Fraction(a) * Fraction(power_a[j]) * Fraction(b) * Fraction(power_b[j])
            assert abs(Fraction(value) / exact - 1) <= error


# --- joining blocks on the fly --------------------------------------------------------------------


def test_streamed_subtrees_equal_the_tree():
    """1 to 200 blocks, joined as they come with a short stack, against the tree of all of them."""
    rng = np.random.default_rng(4)
    for count in range(1, 201):
        values = wild(rng, count, "float64")
        stack, depth = [0.0] * reduce.LEVELS, 0
        for block, value in enumerate(values):
            stack[depth] = value
            depth = reduce.close_subtrees(stack, depth + 1, block + 1, block + 1 == count)
            assert depth <= 1 + math.log2(count)
        assert depth == 1
        assert stack[0] == tree(values)
        assert trees.pairwise(values[None].copy(), 0, 0, 1, count) == tree(values)
