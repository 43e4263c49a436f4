"""How far a step of weight norm is from exact arithmetic, at every scale of v and of its gradient.

With u = 2**-24 (float32) or 2**-53 (float64), d = dL/dw, alpha = g/|v| and beta = v.d/|v|^2, a step forms

    w = alpha v,    dL/dg = v.d/|v|,    dL/dv = alpha (d - beta v).

v, g and d are exact. Sums of v*v and v*d in float64 err by k 2**-53 times the sum of the |terms|, where k
is how many roundings a term meets (`depth`), so |v| by (k/2 + 1) 2**-53, and alpha by (k/2 + 3) 2**-53 of
itself, v.d/|v| by (3k/2 + 3) 2**-53 |d| and beta v_i by (2k + 6) 2**-53 t_i with t_i = |d| |v_i|/|v|. Alpha
and beta are rounded to the storage dtype once, and every operation on an element once. To first order, with
e = (2k + 8) 2**-53,

    w       errs by  (2u + e) |w|
    dL/dg            u |dL/dg| + e |d|
    dL/dv            (3u + e) |dL/dv| + (2u + e) |alpha| t_i

and by half a subnormal more where a product underflows. A learning rate of 0 makes a step show its
gradients: they are the velocities.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.kernels import tables as t
from nbopt.kernels.cpu import run
from nbopt.layout import as_slices, sums_of

UNIT = {"float32": Fraction(1, 2**24), "float64": Fraction(1, 2**53)}
LIMIT = {name: Fraction(float(np.finfo(name).smallest_subnormal)) / 2 for name in UNIT}
SECOND_ORDER = 1 + Fraction(1, 2**20)
SCALES = {"float32": [1.0, 1e30, 1e-30], "float64": [1.0, 1e300, 1e-300, 1e-200]}
RATIOS = [1.0, -2.5, 0.125]  # of g to |v|, slice by slice

# At least as many slices as scales, in every form of sums.
CUTS = {
    **{"rows": ((4, 50), 0), "one element": ((5,), 0), "blocks": ((4, 5000), 0)},
    **{"pieces": ((2, 4, 1030), 1), "tile": ((70, 5), 1), "tall tile": ((300, 4, 7), 1)},
}
MILLION = {"piece": ((1_000_000,), None), "pieces": ((100, 2, 5000), 1), "tile": ((5000, 2, 100), 1)}
dtypes = pytest.mark.parametrize("dtype", UNIT)


@pytest.fixture(autouse=True)
def serial(monkeypatch):
    """Large arrays, too, take the serial twin: the parallel one has the same bits."""
    monkeypatch.setattr(run, "PARALLEL_FROM", 2**62)


# --- exact arithmetic -----------------------------------------------------------------------------------


def near_one(x):
    """(y, p): float64 values around 1 and a power of two, x = y 2**p exactly."""
    x = np.asarray(x, np.float64)
    power = int(np.frexp(np.max(np.abs(x)))[1])
    return np.ldexp(x, -power), power


def split(x):
    """Two halves of at most 26 bits that add up to x (Veltkamp)."""
    big = (2.0**27 + 1.0) * x
    high = big - (big - x)
    return high, x - high


def dot(a, b):
    """The sum of products to 106 bits: products without error (Dekker), added without error (fsum)."""
    (a, p), (b, q) = near_one(a), near_one(b)
    (a1, a2), (b1, b2) = split(a), split(b)
    product = a * b
    terms = [*product.tolist(), *(((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2).tolist()]
    first = math.fsum(terms)
    return (Fraction(first) + Fraction(math.fsum([*terms, -first]))) * Fraction(2) ** (p + q)


def root(square):
    """The square root of a fraction, to 120 bits."""
    if not square:
        return Fraction(0)
    shift = 240 - square.numerator.bit_length() + square.denominator.bit_length()
    shift += shift % 2
    return math.isqrt(int(square * Fraction(2) ** shift)) / Fraction(2) ** (shift // 2)


class Slice(NamedTuple):
    """What the elements of one slice have in common."""

    alpha: Fraction
    beta: Fraction
    slope: Fraction  # dL/dg
    d: Fraction  # |d|
    v: Fraction  # |v|


def of_slice(v, g, d):
    square, product = dot(v, v), dot(v, d)
    norm = root(square)
    return Slice(Fraction(g) / norm, product / square, product / norm, root(dot(d, d)), norm)


def test_exact_arithmetic_is_exact():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 40)) * 1e-200
    assert abs(dot(a, b) / sum(Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)) - 1) < 2.0**-90
    for square in (Fraction(2), Fraction(3e-300) ** 2, Fraction(7e299) ** 3):
        assert abs(root(square) ** 2 / square - 1) < 2.0**-110


# --- a step that shows its gradients ----------------------------------------------------------------------


def depth(shape, dim):
    """How many roundings a term of the sums of a slice meets, its product's included: k above."""
    outer, slices, inner = as_slices(shape, dim)
    if sums_of(outer, slices, inner).span == t.SPAN_TILE:
        return 66 + math.ceil(math.log2(math.ceil(outer / t.ROW_BLOCK))) + math.ceil(math.log2(inner))
    return 39 + math.ceil(math.log2(outer * math.ceil(inner / t.BLOCK)))


def columns(array, dim):
    """One row per slice, in float64."""
    array = np.asarray(array, np.float64)
    return array.reshape(1, -1) if dim is None else np.moveaxis(array, dim, 0).reshape(array.shape[dim], -1)


def scaled(array, dim, scales, turn=0):
    """The slices times powers of two near the scales, taken in turn from one of them on."""
    count = 1 if dim is None else array.shape[dim]
    powers = np.exp2(np.round(np.log2(np.resize(np.roll(scales, -turn), count))))
    return array * powers.reshape([-1 if axis == dim else 1 for axis in range(array.ndim)])


def values(shape, seed):
    rng = np.random.default_rng(seed)
    return rng.choice([-1, 1], shape) * rng.uniform(0.5, 2.0, shape)


class Step:
    """One step of a weight v with a gradient d = dL/dw, and what it formed."""

    def __init__(self, v, d, dim, dtype, ratios=RATIOS, clip=None):
        self.dim, self.shape = dim, v.shape
        attr = nb.WeightNormParamAttr(dim=dim, initializer=nb.initializer.Assign(v))
        self.params = nb.ParameterBuffer(dtype)
        self.w = self.params.create_parameter(v.shape, "w", attr)
        g = self.w.weight_g.numpy()
        self.w.weight_g.set_value(g * np.resize(ratios, g.size).reshape(g.shape))
        self.opt = nb.optimizer.Momentum(0.0, 0.9, self.params, grad_clip=clip)
        self.opt.step({"w": d})
        state = self.opt.state_dict()
        self.dv, self.dg = state["w_v.velocity"], state["w_g.velocity"]

    def slices(self):
        """For each slice: v, g, d, w, dv, dg; of g and dg the one element."""
        w, dim = self.w, self.dim
        v, d, w_, dv = (columns(a, dim) for a in (w.weight_v.value, w.grad, w.value, self.dv))
        g, dg = (np.float64(a).ravel() for a in (w.weight_g.value, self.dg))
        return zip(v, g, d, w_, dv, dg, strict=True)


def error(shape, dim):
    """e above."""
    return (2 * depth(shape, dim) + 8) * UNIT["float64"]


def sample(size):
    """Indices of some elements, the first and the last among them."""
    return {0, size - 1, *np.random.default_rng(0).integers(0, size, 40).tolist()}


def check(step, dtype):
    """Hold a sample of elements of every slice to the bounds."""
    u, e, small = UNIT[dtype], error(step.shape, step.dim), LIMIT[dtype]
    for v, g, d, w, dv, dg in step.slices():
        exact = of_slice(v, g, d)
        bound = u * abs(exact.slope) + e * exact.d
        assert abs(Fraction(dg) - exact.slope) <= bound * SECOND_ORDER + small, "dL/dg"
        for i in sample(v.size):
            vi, di = Fraction(v[i]), Fraction(d[i])
            expected = exact.alpha * vi
            bound = (2 * u + e) * abs(expected)
            assert abs(Fraction(w[i]) - expected) <= bound * SECOND_ORDER + small, f"w of element {i}"
            expected = exact.alpha * (di - exact.beta * vi)
            bound = (3 * u + e) * abs(expected) + (2 * u + e) * abs(exact.alpha) * exact.d * abs(vi) / exact.v
            bound = bound * SECOND_ORDER + (1 + abs(exact.alpha)) * small
            assert abs(Fraction(dv[i]) - expected) <= bound, f"dL/dv of element {i}"


TURNS = [(dtype, turn) for dtype, scales in SCALES.items() for turn in range(len(scales))]


@pytest.mark.parametrize(("dtype", "turn"), TURNS)
@pytest.mark.parametrize(("shape", "dim"), CUTS.values(), ids=CUTS)
def test_every_scale(shape, dim, dtype, turn):
    """Each slice has a scale of its own, and its gradient one; by `turn` every pair of scales meets."""
    v, d = scaled(values(shape, 1), dim, SCALES[dtype]), scaled(values(shape, 2), dim, SCALES[dtype], turn)
    check(Step(v, d, dim, dtype), dtype)


@dtypes
@pytest.mark.parametrize(("shape", "dim"), CUTS.values(), ids=CUTS)
def test_one_scale(shape, dim, dtype):
    """Here a step works in the storage dtype."""
    check(Step(values(shape, 1), values(shape, 2), dim, dtype), dtype)


@dtypes
@pytest.mark.parametrize(("shape", "dim"), MILLION.values(), ids=MILLION)
def test_a_million_elements(shape, dim, dtype):
    check(Step(values(shape, 1), values(shape, 2), dim, dtype), dtype)


@pytest.mark.parametrize(("shape", "dim"), CUTS.values(), ids=CUTS)
def test_elements_far_below_a_large_norm_are_kept(shape, dim):
    """What brings the norm into range would take them below every float64."""
    v = np.where(np.random.default_rng(3).random(shape) < 0.5, 1e300, 1e-150) * values(shape, 1)
    for v_, g, _, w, _, _ in Step(v, np.zeros(shape), dim, "float64").slices():
        exact = of_slice(v_, g, v_)
        for i in sample(v_.size):
            expected = exact.alpha * Fraction(v_[i])
            assert abs(Fraction(w[i]) - expected) <= (2 * UNIT["float64"] + error(shape, dim)) * abs(expected)


def test_every_form_is_here():
    spans = {name: sums_of(*as_slices(*cut)).span for name, cut in CUTS.items()}
    assert set(spans.values()) == {t.SPAN_ROWS, t.SPAN_PIECE, t.SPAN_TILE}
    assert spans["pieces"] == sums_of(*as_slices(*MILLION["piece"])).span == t.SPAN_PIECE


# --- gradients parallel to v ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "turn"), TURNS)
@pytest.mark.parametrize("factor", [1.0, -3.0])
@pytest.mark.parametrize(("shape", "dim"), CUTS.values(), ids=CUTS)
def test_of_a_parallel_gradient_only_rounding_is_left(shape, dim, factor, dtype, turn):
    """d = c v exactly, since v has few digits: dL/dv is 0, and errs by (2u + e) |alpha d_i|."""
    few = np.round(64 * values(shape, 1)) / 64
    step = Step(
        scaled(few, dim, SCALES[dtype], turn), factor * scaled(few, dim, SCALES[dtype], turn), dim, dtype
    )
    for v, g, d, _, dv, dg in step.slices():
        exact = of_slice(v, g, d)
        assert exact.beta == factor
        relative = 2 * UNIT[dtype] + error(shape, dim)
        for i in sample(v.size):
            bound = relative * abs(exact.alpha * Fraction(d[i]))
            assert abs(Fraction(dv[i])) <= bound * SECOND_ORDER + (1 + abs(exact.alpha)) * LIMIT[dtype]
        bound = UNIT[dtype] * exact.d + error(shape, dim) * exact.d
        assert abs(Fraction(dg) - Fraction(factor) * exact.v) <= bound * SECOND_ORDER


@dtypes
@pytest.mark.parametrize("far", [1e-3, 1e-6])
@pytest.mark.parametrize(("shape", "dim"), CUTS.values(), ids=CUTS)
def test_a_gradient_almost_parallel_or_orthogonal(shape, dim, far, dtype):
    """Of one, dL/dv is far below d, of the other dL/dg; the same bounds hold."""
    v, other = values(shape, 1), values(shape, 2)
    axes = tuple(axis for axis in range(v.ndim) if axis != dim)
    slope = np.sum(v * other, axes, keepdims=True) / np.sum(v * v, axes, keepdims=True)
    for d in (v + far * other, other - slope * v + far * v):
        check(Step(v, d, dim, dtype), dtype)


# --- clips (contract N5) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "turn"), TURNS)
@pytest.mark.parametrize("far", [1e-7, 1e-3, 1.0])
@pytest.mark.parametrize(("shape", "dim"), CUTS.values(), ids=CUTS)
def test_a_clipped_norm_is_below_its_limit(shape, dim, far, dtype, turn):
    """Of dL/dg strictly; of dL/dv, a difference that may cancel, to 2**-22 |alpha d|."""
    v = scaled(values(shape, 1), dim, SCALES[dtype])
    d = scaled(values(shape, 1) + far * values(shape, 2), dim, SCALES[dtype], turn)
    free = Step(v, d, dim, dtype)
    for part in (free.dv, free.dg):
        limit = float(nb.norm(part)) / 3
        if not limit:
            continue
        step = Step(v, d, dim, dtype, clip=nb.ClipGradByNorm(limit))
        terms = sum((exact.alpha * exact.d) ** 2 for exact in (of_slice(*row[:3]) for row in step.slices()))
        assert dot(step.dv.ravel(), step.dv.ravel()) <= (Fraction(limit) + root(terms) / 2**22) ** 2
        assert dot(step.dg.ravel(), step.dg.ravel()) <= Fraction(limit) ** 2
        wide = Step(v, d, dim, dtype, clip=nb.ClipGradByNorm(1e308))
        assert_array_equal(wide.dv, free.dv, strict=True)
        assert_array_equal(wide.dg, free.dg, strict=True)


# --- zero slices (contract N6) ----------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize(("shape", "dim"), CUTS.values(), ids=CUTS)
def test_zero_slices_stand_still_and_are_counted(shape, dim, dtype):
    attr = nb.WeightNormParamAttr(dim=dim, initializer=nb.initializer.Assign(values(shape, 1)))
    params = nb.ParameterBuffer(dtype)
    w = params.create_parameter(shape, "w", attr)
    kept = (np.arange(w.weight_g.size) % 2).reshape(w.weight_g.shape)
    w.weight_v.set_value(kept * w.weight_v.numpy())  # zeros of either sign
    v, g = w.weight_v.numpy(), w.weight_g.numpy()
    opt = nb.optimizer.Momentum(0.1, 0.9, params)
    for seed in range(2):
        opt.step({"w": values(shape, seed)})
        assert opt._tables.counters[t.ZERO_SLICES] == np.sum(kept == 0)
    state, still = opt.state_dict(), kept.ravel() == 0
    moved = [w.weight_v.value - v, w.weight_g.value - g, state["w_v.velocity"], state["w_g.velocity"]]
    for array in (w.value, *moved):
        assert_array_equal(columns(array, dim)[still], 0.0)
    for array in (w.value, moved[1], moved[3]):
        assert np.all(columns(array, dim)[~still])
