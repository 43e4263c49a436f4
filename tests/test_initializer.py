"""Initializers against theory, against what Paddle 3.3.1 recorded, and at the edges."""

import copy
import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from nbopt import initializer
from nbopt.errors import HyperparameterError, NboptError, ParameterError
from nbopt.initializer import (
    Assign,
    Bilinear,
    Constant,
    Dirac,
    Initializer,
    KaimingNormal,
    KaimingUniform,
    Normal,
    Orthogonal,
    TruncatedNormal,
    Uniform,
    XavierNormal,
    XavierUniform,
    calculate_gain,
    set_global_initializer,
)
from nbopt.initializer.everywhere import global_initializer
from tests.recordings import load

TABLES = load("initializer_tables")
MATRIX, KERNEL = (300, 500), (64, 32, 3, 3)
LARGEST = float(np.finfo(np.float64).max)


def rng(seed=0):
    return np.random.default_rng(seed)


def short(value):
    return " ".join(repr(value).split())[:60]


# --- distributions --------------------------------------------------------------------------------


def uniform(low, high):
    return stats.uniform(low, high - low)


def around_zero(limit):
    return uniform(-limit, limit)


def truncated(mean, std, a, b):
    return stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std)


DISTRIBUTIONS = [
    (Normal(), MATRIX, stats.norm(0.0, 1.0)),
    (Normal(0.5, 2.0), MATRIX, stats.norm(0.5, 2.0)),
    (Uniform(), MATRIX, uniform(-1.0, 1.0)),
    (Uniform(-3.0, 1.0), MATRIX, uniform(-3.0, 1.0)),
    (TruncatedNormal(), MATRIX, truncated(0.0, 1.0, -2.0, 2.0)),
    (TruncatedNormal(1.0, 0.5), MATRIX, truncated(1.0, 0.5, -2.0, 2.0)),
    (TruncatedNormal(0.0, 2.0), MATRIX, truncated(0.0, 2.0, -2.0, 2.0)),
    (TruncatedNormal(0.0, 1.0, -40.0, 40.0), MATRIX, stats.norm(0.0, 1.0)),
    (TruncatedNormal(0.0, 1.0, 3.0, 9.0), MATRIX, truncated(0.0, 1.0, 3.0, 9.0)),
    (TruncatedNormal(0.0, 1.0, -9.0, -3.0), MATRIX, truncated(0.0, 1.0, -9.0, -3.0)),
    (TruncatedNormal(0.0, 1.0, 30.0, 31.0), MATRIX, truncated(0.0, 1.0, 30.0, 31.0)),
    (TruncatedNormal(0.0, 1.0, -31.0, -30.0), MATRIX, truncated(0.0, 1.0, -31.0, -30.0)),
    # Far out a tail is exponential, and an interval too narrow for the density to vary uniform.
    (TruncatedNormal(-1000.0, 1.0, 0.0, 1.0), MATRIX, stats.expon(0.0, 1e-3)),
    (TruncatedNormal(-1e6, 1.0, 0.0, 1.0), MATRIX, stats.expon(0.0, 1e-6)),
    (TruncatedNormal(0.0, 1e5, -2.0, 2.0), MATRIX, uniform(-2.0, 2.0)),
    (TruncatedNormal(0.0, 1e300, -2.0, 2.0), MATRIX, uniform(-2.0, 2.0)),
    (XavierUniform(), MATRIX, around_zero(math.sqrt(6 / 800))),
    (XavierUniform(), KERNEL, around_zero(math.sqrt(6 / (96 * 9)))),
    (XavierUniform(gain=-3.0), MATRIX, around_zero(3 * math.sqrt(6 / 800))),
    (XavierUniform(fan_in=100), MATRIX, around_zero(math.sqrt(6 / 600))),
    (XavierUniform(fan_out=1.5), MATRIX, around_zero(math.sqrt(6 / 301.5))),
    (XavierNormal(), MATRIX, stats.norm(0.0, math.sqrt(2 / 800))),
    (XavierNormal(100, 200, 5 / 3), KERNEL, stats.norm(0.0, 5 / 3 * math.sqrt(2 / 300))),
    (KaimingUniform(), MATRIX, around_zero(math.sqrt(6 / 300))),
    (KaimingUniform(mode="fan_out"), MATRIX, around_zero(math.sqrt(6 / 500))),
    (KaimingUniform(), KERNEL, around_zero(math.sqrt(6 / (32 * 9)))),
    (KaimingUniform(mode="fan_out"), KERNEL, around_zero(math.sqrt(6 / (64 * 9)))),
    (KaimingUniform(nonlinearity="tanh"), MATRIX, around_zero(5 / 3 * math.sqrt(3 / 300))),
    (KaimingNormal(), MATRIX, stats.norm(0.0, math.sqrt(2 / 300))),
    (KaimingNormal(fan_in=50.0), MATRIX, stats.norm(0.0, math.sqrt(2 / 50))),
    (KaimingNormal(None, 2.0, "leaky_relu"), MATRIX, stats.norm(0.0, math.sqrt(2 / 5 / 300))),
    (KaimingNormal(None, None, "leaky_relu"), MATRIX, stats.norm(0.0, math.sqrt(2 / 1.0001 / 300))),
    (KaimingNormal(None, 2.0, "relu"), MATRIX, stats.norm(0.0, math.sqrt(2 / 300))),
]


@pytest.mark.parametrize(("init", "shape", "law"), DISTRIBUTIONS, ids=short)
def test_distribution(init, shape, law):
    drawn = init.draw(shape, rng())
    low, high = law.support()
    slack = 1e-12 * law.std()
    assert low - slack <= drawn.min()
    assert drawn.max() <= high + slack
    assert abs(drawn.mean() - law.mean()) < 4 * law.std() / math.sqrt(drawn.size)
    assert_allclose(drawn.std(), law.std(), rtol=0.02)
    assert stats.kstest(drawn.ravel(), law.cdf).pvalue > 1e-3


# Limits that were measured of Paddle.
@pytest.mark.parametrize(
    ("init", "shape", "limit"),
    [
        (XavierUniform(), MATRIX, 0.0866025),
        (XavierUniform(), KERNEL, 0.083333),
        (KaimingUniform(), MATRIX, 0.141421),
        (KaimingUniform(mode="fan_out"), MATRIX, 0.109545),
    ],
    ids=short,
)
def test_measured_limit(init, shape, limit):
    drawn = np.abs(init.draw(shape, rng()))
    assert 0.999 * limit < drawn.max() <= limit + 1e-6


RECORDED = {
    "normal": Normal(),
    "uniform": Uniform(),
    "truncnormal_std2": TruncatedNormal(std=2.0),
    "truncnormal_mean1_std.5": TruncatedNormal(1.0, 0.5),
    "xavier_uniform": XavierUniform(),
    "xavier_uniform_conv": XavierUniform(),
    "xavier_normal": XavierNormal(),
    "kaiming_uniform": KaimingUniform(),
    "kaiming_normal": KaimingNormal(),
    "kaiming_normal_conv": KaimingNormal(),
}


@pytest.mark.parametrize("name", TABLES.meta["stats"])
def test_moments_and_range_are_as_recorded(name):
    recorded = TABLES.meta["stats"][name]
    drawn = RECORDED[name].draw(tuple(recorded["shape"]), rng())
    assert drawn.size >= 18_000
    # Both are draws: the difference of two means varies by sqrt(2) times the error of one.
    assert abs(drawn.mean() - recorded["mean"]) < 6 * drawn.std() / math.sqrt(drawn.size)
    assert_allclose(drawn.std(), recorded["std"], rtol=0.025)
    tail = 1.0 if "normal" in name and not name.endswith("std2") else 1e-3
    assert_allclose(drawn.max(), recorded["max"], atol=tail * recorded["std"])
    assert_allclose(drawn.min(), recorded["min"], atol=tail * recorded["std"])


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [
        ((), 1, 1),
        ((7,), 7, 7),
        ((1,), 1, 1),
        ((3, 5), 3, 5),
        ((4, 3, 5), 15, 20),
        ((4, 3, 5, 2), 30, 40),
        ((4, 3, 5, 2, 2), 60, 80),
    ],
    ids=str,
)
def test_fans_of_the_shape(shape, fan_in, fan_out):
    pairs = [
        (XavierUniform(), XavierUniform(fan_in, fan_out)),
        (XavierNormal(), XavierNormal(fan_in, fan_out)),
        (KaimingUniform(), KaimingUniform(fan_in)),
        (KaimingNormal(mode="fan_out"), KaimingNormal(fan_out)),
    ]
    for by_shape, by_hand in pairs:
        assert_array_equal(by_shape.draw(shape, rng()), by_hand.draw(shape, rng()))


@pytest.mark.parametrize("zero", [{"fan_in": 0}, {"fan_out": 0}, {"fan_in": 0, "fan_out": 0}])
@pytest.mark.parametrize("kind", [XavierUniform, XavierNormal])
def test_xavier_with_a_zero_fan_is_zero(kind, zero):
    assert_array_equal(kind(**zero).draw((2, 3), rng()), np.zeros((2, 3)))


# --- truncated normal at the edges ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "everywhere"),
    [
        (TruncatedNormal(0.3, 0.0), 0.3),
        (TruncatedNormal(5.0, 0.0), 2.0),
        (TruncatedNormal(-5.0, 0.0), -2.0),
        (TruncatedNormal(0.0, 1.0, 1.5, 1.5), 1.5),
        (TruncatedNormal(0.0, 1e-320, 1.0, 2.0), 1.0),
        (TruncatedNormal(0.0, 1e-200, -2.0, -1.0), -1.0),
        (TruncatedNormal(LARGEST, 1.0, -LARGEST, -1.0), -1.0),
    ],
    ids=short,
)
def test_truncated_normal_that_is_a_point(init, everywhere):
    assert_array_equal(init.draw((3, 4), rng()), np.full((3, 4), everywhere))


@pytest.mark.parametrize("init", [TruncatedNormal(0.5, 1e-320), TruncatedNormal(0.5, 1e-20)])
def test_truncated_normal_far_narrower_than_its_interval(init):
    assert_allclose(init.draw((50,), rng()), 0.5, rtol=1e-15)


@pytest.mark.parametrize("low", [0.5, 3.0, 10.0, 37.0, 100.0, 1e4])
def test_truncated_normal_is_the_mirror_image_in_the_other_tail(low):
    upper = TruncatedNormal(0.0, 1.0, low, low + 1.0).draw((200,), rng())
    lower = TruncatedNormal(0.0, 1.0, -low - 1.0, -low).draw((200,), rng())
    assert_array_equal(upper, -lower)
    assert len(np.unique(upper)) == 200


# --- gains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES.meta["gains"])
def test_gain_is_as_recorded(name):
    assert_allclose(calculate_gain(name), TABLES.meta["gains"][name], rtol=1e-15)


@pytest.mark.parametrize(
    ("args", "gain"),
    [
        (("leaky_relu", 0.0), math.sqrt(2.0)),
        (("leaky_relu", 0.2), 1.3867505),
        (("leaky_relu", 1), 1.0),
        (("leaky_relu", -1.0), 1.0),
        (("leaky_relu", 1e200), 0.0),
        (("relu", 0.5), math.sqrt(2.0)),
        (("tanh", np.float32(3.0)), 5.0 / 3.0),
        (("conv2d_transpose",), 1.0),
        (("conv_transpose3d",), 1.0),
    ],
    ids=short,
)
def test_gain(args, gain):
    assert_allclose(calculate_gain(*args), gain, rtol=1e-7, atol=1e-100)


# --- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key in TABLES.arrays if key.startswith("dirac::")])
def test_dirac_is_as_recorded(key):
    _, shape, groups = key.split("::")
    shape = tuple(map(int, shape.split("x")))
    drawn = Dirac(int(groups.removeprefix("g"))).draw(shape, rng())
    assert_array_equal(drawn, TABLES.arrays[key])
    assert drawn.shape == shape


def test_dirac_passes_channels_on():
    signal = rng().normal(size=(3, 20))
    kernel = Dirac().draw((3, 3, 5), rng())
    passed = [
        sum(np.convolve(row, taps[::-1], "same") for row, taps in zip(signal, window, strict=True))
        for window in kernel
    ]
    assert_allclose(passed, signal, atol=1e-15)


def bilinear_by_loops(shape, *, skewed):
    """The documented formula on the flat index; `skewed` as Paddle ships it."""
    size = shape[3]
    f = math.ceil(size / 2)
    c = (2 * f - 1 - f % 2) / (2 * f)
    kernel = np.empty(math.prod(shape))
    for i in range(kernel.size):
        x = i % size
        y = (i / size if skewed else i // size) % size
        kernel[i] = (1 - abs(x / f - c)) * (1 - abs(y / f - c))
    return kernel.reshape(shape)


@pytest.mark.parametrize("key", [key for key in TABLES.arrays if key.startswith("bilinear::")])
def test_bilinear_is_the_intended_kernel_and_not_the_recorded_one(key):
    recorded = TABLES.arrays[key]
    drawn = Bilinear().draw(recorded.shape, rng())
    assert_allclose(drawn, bilinear_by_loops(recorded.shape, skewed=False), rtol=0, atol=1e-15)
    shipped = bilinear_by_loops(recorded.shape, skewed=True)
    assert_allclose(recorded, shipped, rtol=0, atol=1e-6)
    # Of sizes 1 and 2 the skew moves no element that is not zero anyway.
    assert np.allclose(drawn, recorded, atol=1e-6) == (recorded.shape[3] <= 2)


def test_bilinear_rows():
    row = [0.25, 0.75, 0.75, 0.25]
    drawn = Bilinear().draw((2, 3, 4, 4), rng())
    assert_array_equal(drawn, np.tile(np.outer(row, row), (2, 3, 1, 1)))


@pytest.mark.parametrize("factor", range(1, 9))
def test_bilinear_upsamples_a_plane_exactly(factor):
    size = 2 * factor - factor % 2
    kernel = Bilinear().draw((1, 1, size, size), rng())[0, 0]
    assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-15)
    # A transposed convolution with stride `factor` maps a plane to a plane of the slope / factor.
    plane = np.add.outer(np.arange(8.0), 2.0 * np.arange(8.0))
    out = np.zeros((7 * factor + size, 7 * factor + size))
    for i, j in itertools.product(range(8), repeat=2):
        out[i * factor :, j * factor :][:size, :size] += plane[i, j] * kernel
    inner = out[size:-size, size:-size]
    assert_allclose(np.diff(inner, axis=0), 1.0 / factor, rtol=1e-12)
    assert_allclose(np.diff(inner, axis=1), 2.0 / factor, rtol=1e-12)


# --- orthogonal -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, -1.5, math.sqrt(2.0)])
@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5), (1, 4), (6, 2, 4), (2, 3, 3, 2)])
def test_orthogonal(shape, gain):
    matrix = Orthogonal(gain).draw(shape, rng()).reshape(shape[0], -1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-14)


def test_orthogonal_with_gain_zero_is_zero():
    assert_array_equal(Orthogonal(0.0).draw((3, 2), rng()), np.zeros((3, 2)))


def test_orthogonal_is_uniform():
    """The first column is uniform on the sphere; without the sign of diag R it would not be."""
    generator = rng()
    drawn = np.array([Orthogonal().draw((3, 3), generator) for _ in range(4000)])
    for i, j in itertools.product(range(3), repeat=2):
        assert stats.kstest(drawn[:, i, j], uniform(-1.0, 1.0).cdf).pvalue > 1e-3


# --- every initializer ----------------------------------------------------------------------------

ANY_SHAPE = [
    Constant(0.5),
    Normal(),
    Uniform(),
    TruncatedNormal(),
    TruncatedNormal(std=0.0),
    TruncatedNormal(std=1e12),
    TruncatedNormal(a=5.0, b=6.0),
    XavierUniform(),
    XavierNormal(),
    KaimingUniform(),
    KaimingNormal(),
    KaimingNormal(mode="fan_out"),
]
SHAPES = [(), (0,), (1,), (5,), (0, 3), (3, 0), (0, 0), (4, 3), (2, 0, 3), (2, 3, 0), (4, 3, 2, 2)]
FILLS = [
    *itertools.product(ANY_SHAPE, SHAPES),
    *((KaimingUniform(fan_in=0), shape) for shape in SHAPES if 0 in shape),
    *((Assign(np.ones(shape)), shape) for shape in SHAPES),
    *((Orthogonal(), shape) for shape in SHAPES if len(shape) >= 2),
    *((Dirac(), shape) for shape in [(2, 0, 3), (0, 2, 3), (2, 3, 0), (4, 3, 2, 2)]),
    *((Dirac(2), shape) for shape in [(0, 2, 3), (4, 1, 3), (2, 5, 4, 4, 4)]),
    *((Bilinear(), shape) for shape in [(0, 1, 4, 4), (2, 0, 3, 3), (1, 1, 0, 0), (2, 3, 1, 1)]),
]


@pytest.mark.parametrize(("init", "shape"), FILLS, ids=short)
def test_draw_is_a_new_float64_array_of_the_shape(init, shape):
    generator = rng()
    first, second = init.draw(shape, generator), init.draw(shape, generator)
    for drawn in (first, second):
        assert type(drawn) is np.ndarray
        assert drawn.dtype == np.float64
        assert drawn.shape == shape
        assert drawn.flags.writeable
        assert drawn.flags.c_contiguous
        assert np.isfinite(drawn).all()
    assert not np.shares_memory(first, second)


RANDOM = [*(init for init in ANY_SHAPE if init not in (Constant(0.5), TruncatedNormal(std=0.0)))]


@pytest.mark.parametrize("init", [*RANDOM, Orthogonal()], ids=short)
def test_draw_depends_on_the_generator_alone(init):
    drawn = init.draw((4, 3, 2), rng(7))
    assert_array_equal(init.draw((4, 3, 2), rng(7)), drawn)
    assert_array_equal(copy.deepcopy(init).draw((4, 3, 2), rng(7)), drawn)
    assert not np.array_equal(init.draw((4, 3, 2), rng(8)), drawn)
    generator = rng(7)
    init.draw((4, 3, 2), generator)
    assert not np.array_equal(init.draw((4, 3, 2), generator), drawn)


DISTINCT = [
    *ANY_SHAPE,
    Constant(),
    Normal(1.0, 0.5),
    Uniform(0.0, 1.0),
    XavierUniform(3, 4, 2.0),
    XavierUniform(fan_out=3),
    XavierNormal(fan_in=3),
    KaimingUniform(8, 0.1, "leaky_relu"),
    KaimingUniform(None, None, "tanh", "fan_out"),
    Assign([1.0, 2.0]),
    Assign([[1.0, 2.0]]),
    Assign([1.0, math.nan]),
    Assign([1.0, math.inf]),
    Assign([]),
    Bilinear(),
    Dirac(),
    Dirac(2),
    Orthogonal(),
    Orthogonal(2.0),
]
NAMES = {"array": np.array, "float64": np.float64, "nan": math.nan, "inf": math.inf}


@pytest.mark.parametrize("init", DISTINCT, ids=short)
def test_an_initializer_is_a_value(init):
    names = NAMES | {name: getattr(initializer, name) for name in initializer.__all__}
    twins = [eval(repr(init), names), copy.deepcopy(init), pickle.loads(pickle.dumps(init))]
    for twin in twins:
        assert twin == init
        assert hash(twin) == hash(init)
        assert repr(twin) == repr(init)
    assert [other == init for other in DISTINCT].count(True) == 1
    assert init != "init"
    with pytest.raises(dataclasses.FrozenInstanceError):
        init.anything = 1.0


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (Constant(1), Constant(1.0)),
        (Constant(np.float32(0.5)), Constant(0.5)),
        (Constant(np.array([2])), Constant(2.0)),
        (Normal(np.int64(1), np.array(2.0)), Normal(1.0, 2.0)),
        (XavierUniform(np.int32(3), 4), XavierUniform(3.0, 4.0)),
        (KaimingNormal(8, 0), KaimingNormal(8.0)),
        (Dirac(np.int64(2)), Dirac(2)),
        (Orthogonal(1), Orthogonal()),
    ],
    ids=short,
)
def test_numbers_of_any_kind_are_the_same_number(given, plain):
    assert given == plain
    assert hash(given) == hash(plain)
    assert repr(given) == repr(plain)


# --- assign ---------------------------------------------------------------------------------------


def test_assign_keeps_a_read_only_copy():
    source = np.array([[1.0, 2.0]])
    init = Assign(source)
    source[:] = 9.0
    for kept in (init, copy.deepcopy(init), pickle.loads(pickle.dumps(init, protocol=5))):
        assert_array_equal(kept.value, [[1.0, 2.0]])
        with pytest.raises(ValueError, match="read-only"):
            kept.value[0, 0] = 9.0
    init.draw((1, 2), rng())[:] = 9.0
    assert_array_equal(init.value, [[1.0, 2.0]])


@pytest.mark.parametrize(
    "value",
    [[1, 2], (1.0, 2.0), np.array([1, 2], np.int8), np.array([1, 2], ">f4"), np.arange(1.0, 4)[:2]],
    ids=short,
)
def test_assign_takes_any_real_array(value):
    assert Assign(value) == Assign(np.array([1.0, 2.0]))
    assert_array_equal(Assign(value).draw((2,), rng()), [1.0, 2.0])


def test_assign_takes_an_array_of_rank_0():
    assert Assign(np.array(3.0)).draw((), rng()) == 3.0


def test_assign_compares_values_not_bits():
    plus, minus = Assign([0.0, math.nan]), Assign([-0.0, -math.nan])
    assert plus == minus
    assert hash(plus) == hash(minus)
    assert Assign(np.zeros((0, 2))) != Assign(np.zeros((2, 0)))


# --- global ---------------------------------------------------------------------------------------


@pytest.fixture
def _no_global():
    yield
    set_global_initializer(None)


@pytest.mark.usefixtures("_no_global")
def test_every_call_sets_both_globals():
    def both():
        return global_initializer(is_bias=False), global_initializer(is_bias=True)

    assert both() == (None, None)
    set_global_initializer(Normal(), Constant(0.1))
    assert both() == (Normal(), Constant(0.1))
    with pytest.raises(TypeError):
        set_global_initializer(Uniform(), 0.1)
    assert both() == (Normal(), Constant(0.1))
    set_global_initializer(Uniform())
    assert both() == (Uniform(), None)
    set_global_initializer(None, Constant(1.0))
    assert both() == (None, Constant(1.0))
    set_global_initializer(None)
    assert both() == (None, None)


@pytest.mark.usefixtures("_no_global")
def test_a_subclass_is_an_initializer():
    class Ramp(Initializer):
        def draw(self, shape, generator):
            return np.arange(float(math.prod(shape))).reshape(shape)

    set_global_initializer(Ramp())
    assert isinstance(global_initializer(is_bias=False), Ramp)


# --- errors ---------------------------------------------------------------------------------------


def draws(init, *shape):
    return lambda: init.draw(shape, rng())


ERRORS = [
    (lambda: Constant("1"), TypeError, "value must be a number, got str '1'"),
    (lambda: Constant(None), TypeError, "value must be a number, got NoneType"),
    (lambda: Constant(True), TypeError, "value must be a number, got bool"),
    (lambda: Constant(1j), TypeError, "value must be a number, got complex"),
    (lambda: Constant([1.0, 2.0]), TypeError, "value must be a number, got list"),
    (lambda: Constant(math.nan), HyperparameterError, "value must be a finite number, got nan"),
    (lambda: Constant(math.inf), HyperparameterError, "value must be a finite number, got inf"),
    (lambda: Normal(None), TypeError, "mean must be a number"),
    (lambda: Normal(math.inf), HyperparameterError, "mean must be a finite number"),
    (lambda: Normal(std="x"), TypeError, "std must be a number, got str 'x'"),
    (lambda: Normal(std=-0.1), HyperparameterError, "std must be a finite number >= 0, got -0.1"),
    (lambda: Normal(std=math.nan), HyperparameterError, "std must be a finite number >= 0"),
    (lambda: Normal(std=LARGEST), HyperparameterError, "mean and std must draw finite numbers"),
    (lambda: Uniform(1.0, -1.0), HyperparameterError, "high must be >= low"),
    (lambda: Uniform(-LARGEST, LARGEST), HyperparameterError, "high - low finite, got Uniform"),
    (lambda: Uniform(low=None), TypeError, "low must be a number"),
    (lambda: Uniform(high=math.inf), HyperparameterError, "high must be a finite number, got inf"),
    (lambda: TruncatedNormal(a=2.0, b=-2.0), HyperparameterError, "b must be >= a, got Truncated"),
    (lambda: TruncatedNormal(std=-1.0), HyperparameterError, "std must be a finite number >= 0"),
    (lambda: TruncatedNormal(mean=None), TypeError, "mean must be a number"),
    (lambda: TruncatedNormal(a=-math.inf), HyperparameterError, "a must be a finite number"),
    (lambda: TruncatedNormal(b="2"), TypeError, "b must be a number, got str '2'"),
    (lambda: XavierUniform(-1), HyperparameterError, "fan_in must be a finite number >= 0, got -1"),
    (lambda: XavierUniform(fan_out="9"), TypeError, "fan_out must be a number"),
    (lambda: XavierUniform(gain=None), TypeError, "gain must be a number"),
    (lambda: XavierNormal(gain=math.nan), HyperparameterError, "gain must be a finite number"),
    (lambda: XavierNormal(math.inf), HyperparameterError, "fan_in must be a finite number >= 0"),
    (lambda: XavierNormal(fan_out=-2.0), HyperparameterError, "fan_out must be a finite number"),
    (lambda: KaimingUniform(mode="fan"), HyperparameterError, "mode 'fan' is unknown; did you"),
    (lambda: KaimingUniform(mode="fan"), HyperparameterError, "fan_in, fan_out"),
    (lambda: KaimingUniform(mode=1), TypeError, "mode must be a string, got 1; legal keys: fan_in"),
    (lambda: KaimingUniform(3, mode="fan_out"), HyperparameterError, "fan_in must be None with"),
    (lambda: KaimingUniform(-3), HyperparameterError, "fan_in must be a finite number >= 0"),
    (lambda: KaimingUniform(True), TypeError, "fan_in must be a number, got bool"),
    (lambda: KaimingNormal(nonlinearity="gelu"), HyperparameterError, "nonlinearity 'gelu' is"),
    (lambda: KaimingNormal(nonlinearity=None), TypeError, "nonlinearity must be a string"),
    (lambda: KaimingNormal(None, "a"), TypeError, "negative_slope must be a number"),
    (lambda: KaimingNormal(None, math.inf), HyperparameterError, "negative_slope must be a finite"),
    (draws(KaimingUniform(0), 2, 3), ParameterError, "to fill shape (2, 3), got 0.0"),
    (draws(KaimingNormal(0.0)), ParameterError, "fan_in must be > 0 or None to fill shape ()"),
    (draws(XavierNormal(1e-9, 1e-9, LARGEST), 2), ParameterError, "draws infinities; use a small"),
    (lambda: Assign(3.0), TypeError, "value must be an array, got 3.0; use Constant(3.0)"),
    (lambda: Assign(np.float32(3.0)), TypeError, "use Constant("),
    (lambda: Assign("abc"), TypeError, "value must hold real numbers"),
    (lambda: Assign(["a", "b"]), TypeError, "value must hold real numbers"),
    (lambda: Assign(None), TypeError, "value must hold real numbers, got dtype object"),
    (lambda: Assign([1j, 2.0]), TypeError, "value must hold real numbers, got dtype complex128"),
    (lambda: Assign([True, False]), TypeError, "value must hold real numbers, got dtype bool"),
    (lambda: Assign([[1.0], [1.0, 2.0]]), ParameterError, "value is no array of numbers"),
    (draws(Assign([1.0, 2.0]), 3), ParameterError, "value of Assign has shape (2,), not (3,)"),
    (draws(Assign([1.0, 2.0]), 2, 1), ParameterError, "value of Assign has shape (2,), not (2, 1)"),
    (draws(Assign([1.0])), ParameterError, "value of Assign has shape (1,), not ()"),
    (draws(Bilinear(), 4, 4), ParameterError, "Bilinear needs a shape [a, b, k, k], got (4, 4)"),
    (draws(Bilinear(), 1, 1, 4, 3), ParameterError, "got (1, 1, 4, 3)"),
    (draws(Bilinear(), 1, 1, 1, 4, 4), ParameterError, "got (1, 1, 1, 4, 4)"),
    (lambda: Dirac(0), HyperparameterError, "groups must be >= 1, got 0"),
    (lambda: Dirac(-2), HyperparameterError, "groups must be >= 1, got -2"),
    (lambda: Dirac(2.0), TypeError, "groups must be an integer, got float 2.0"),
    (lambda: Dirac(True), TypeError, "groups must be an integer, got bool"),
    (draws(Dirac(), 3, 3), ParameterError, "rank 3, 4 or 5, got (3, 3)"),
    (draws(Dirac(), 1, 1, 1, 1, 1, 1), ParameterError, "rank 3, 4 or 5"),
    (draws(Dirac(2), 3, 2, 3), ParameterError, "groups=2 of Dirac must divide shape[0], got (3,"),
    (draws(Orthogonal(), 3), ParameterError, "Orthogonal needs a shape of rank >= 2, got (3,)"),
    (draws(Orthogonal()), ParameterError, "Orthogonal needs a shape of rank >= 2, got ()"),
    (lambda: Orthogonal(None), TypeError, "gain must be a number"),
    (lambda: Orthogonal(math.inf), HyperparameterError, "gain must be a finite number"),
    (lambda: calculate_gain("reluu"), HyperparameterError, "did you mean 'relu'?"),
    (lambda: calculate_gain("conv4d"), HyperparameterError, "nonlinearity 'conv4d' is unknown"),
    (lambda: calculate_gain(3), TypeError, "nonlinearity must be a string, got 3"),
    (lambda: calculate_gain("leaky_relu", "x"), TypeError, "param must be a number, got str 'x'"),
    (lambda: calculate_gain("leaky_relu", True), TypeError, "param must be a number, got bool"),
    (lambda: calculate_gain("relu", math.nan), HyperparameterError, "param must be a finite"),
    (lambda: set_global_initializer(0.1), TypeError, "weight_init must be an Initializer"),
    (lambda: set_global_initializer(Constant), TypeError, "weight_init must be an Initializer"),
    (lambda: set_global_initializer(None, "zeros"), TypeError, "bias_init must be an Initializer"),
    (lambda: Initializer(), TypeError, "abstract"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), ERRORS, ids=[f"{i}-{row[2]}" for i, row in enumerate(ERRORS)]
)
def test_error(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
    assert caught.type is error
    assert issubclass(error, NboptError) or error is TypeError


# --- documentation --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", initializer.__all__)
def test_every_public_object_has_an_example(name):
    assert ">>>" in getattr(initializer, name).__doc__
