"""One parameter: its name, how it is shared, and what goes into its value and gradient."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import ParameterError
from nbopt.initializer import Assign, Constant, Initializer, Normal
from nbopt.regularizer import L1Decay, L2Decay

PLAIN, NORMED = nb.ParamAttr, nb.WeightNormParamAttr
DTYPES = ["float32", "float64"]


def refused(call, error, words):
    """Check that `call` raises exactly `error`, and that the message holds all `words`."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def of(values, dtype="float32", sealed=False):
    """Return a parameter `w` that holds `values`."""
    params = nb.ParameterBuffer.from_arrays({"w": values}, dtype=dtype)
    if sealed:
        _ = params.flat  # lays the storage out
    return params["w"]


def create(*args, **kwargs):
    return nb.ParameterBuffer(seed=0).create_parameter(*args, **kwargs)


# --- creation --------------------------------------------------------------------------------------

SHAPES = [
    ((), ()),
    ([], ()),
    (3, (3,)),
    (np.int64(3), (3,)),
    ([2, 3], (2, 3)),
    (np.array([2, 3]), (2, 3)),
    (range(2, 4), (2, 3)),
    ([0], (0,)),
    ([0, 3], (0, 3)),
    ([3, 0], (3, 0)),
    ([2, 0, 2], (2, 0, 2)),
    ([2, 3, 2, 1, 2, 3], (2, 3, 2, 1, 2, 3)),
]


@pytest.mark.parametrize(("given", "shape"), SHAPES, ids=[f"{i} {s}" for i, (_, s) in enumerate(SHAPES)])
@pytest.mark.parametrize("is_bias", [False, True], ids=["weight", "bias"])
def test_shapes(given, shape, is_bias):
    w = create(given, "w", is_bias=is_bias)
    size = int(np.prod(shape))
    assert (w.name, w.shape, w.size, w.device) == ("w", shape, size, "cpu")
    assert w.numpy().shape == w.value.shape == w.grad.shape == shape
    assert w.value.dtype == w.grad.dtype == w.dtype == np.float32
    assert_array_equal(w.grad, np.zeros(shape))
    assert w.has_grad
    assert (w.weight_g, w.weight_v) == (None, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scalar_is_written_in_place(dtype):
    w = of(2.0, dtype)
    view = w.value
    w.value += 1
    w.value[...] *= 2
    w.set_value(w.numpy() + 1)
    assert (view, w.numpy(), w.numpy().ndim) == (7.0, 7.0, 0)


def test_the_repr_names_the_parameter():
    assert repr(of([[1.0, 2.0]])) == "Parameter('w', shape=(1, 2), float32)"


CREATION_ERRORS = {
    "shape is a string": (lambda: create("3", "w"), TypeError, ["'w'", "shape", "'3'"]),
    "shape is None": (lambda: create(None, "w"), TypeError, ["'w'", "shape", "None"]),
    "shape is a bool": (lambda: create(True, "w"), TypeError, ["'w'", "shape", "True"]),
    "shape of floats": (lambda: create([2.0], "w"), TypeError, ["'w'", "shape", "2.0"]),
    "shape of bools": (lambda: create([True], "w"), TypeError, ["'w'", "shape", "True"]),
    "shape is a 0-d array": (lambda: create(np.array(3), "w"), TypeError, ["'w'", "shape"]),
    "shape is a set": (lambda: create({3, 2}, "w"), TypeError, ["'w'", "shape", "set"]),
    "negative size": (lambda: create([2, -1], "w"), ParameterError, ["'w'", "shape", "-1"]),
    "too many elements": (lambda: create([2**62, 4], "w", Constant()), ParameterError, ["'w'", "shape"]),
    "too high a rank": (lambda: create([1] * 65, "w"), ParameterError, ["'w'", "shape", "64"]),
    "name is a number": (lambda: create([2], 3), TypeError, ["name", "string", "3"]),
    "empty name": (lambda: create([2], ""), ParameterError, ["name", "empty"]),
    "empty attr name": (lambda: create([2], "w", attr=""), ParameterError, ["name", "empty"]),
    "attr is a number": (lambda: create([2], "w", attr=3), TypeError, ["attr", "'w'", "3", "ParamAttr"]),
    "attr is a class": (lambda: create([2], "w", attr=PLAIN), TypeError, ["attr", "'w'", "ParamAttr"]),
    "is_bias is 1": (lambda: create([2], "w", is_bias=1), TypeError, ["is_bias", "'w'", "True or False"]),
    "default is a number": (
        lambda: create([2], "w", default_initializer=0.0),
        TypeError,
        ["default_initializer", "'w'", "0.0"],
    ),
    "Assign of another shape": (
        lambda: create([2], "w", Assign([1.0, 2.0, 3.0])),
        ParameterError,
        ["'w'", "(3,)", "(2,)"],
    ),
    "does not fit": (lambda: create([2], "w", Constant(1e39)), ParameterError, ["'w'", "float32", "(0,)"]),
    "initializer of a wrong shape": (lambda: create([2], "w", Flat()), ParameterError, ["'w'", "(2,)"]),
    "initializer of complex": (lambda: create([3], "w", Flat(1j)), TypeError, ["'w'", "complex"]),
}


class Flat(Initializer):
    """An initializer of a user who forgot the shape."""

    def __init__(self, value=1.0):
        self.value = value

    def draw(self, shape, generator):
        return np.full(3, self.value)


@pytest.mark.parametrize(("call", "error", "words"), CREATION_ERRORS.values(), ids=CREATION_ERRORS)
def test_errors_of_creation(call, error, words):
    refused(call, error, words)


# --- names and sharing -----------------------------------------------------------------------------


def test_automatic_names_count_on_and_pass_by_what_is_taken():
    params = nb.ParameterBuffer(seed=0)
    with pytest.raises(ParameterError):
        params.create_parameter([-1])
    for name in (None, "param_2", None, "other", None):
        params.create_parameter([1], name=name)
    assert list(params) == ["param_0", "param_2", "param_1", "other", "param_3"]


@pytest.mark.parametrize("taken", ["param_0_v", "param_0_g", "param_0_v.velocity"])
def test_automatic_names_pass_by_what_would_collide(taken):
    params = nb.ParameterBuffer(seed=0)
    params.create_parameter([1], taken)
    assert params.create_parameter([3], attr=NORMED()).name == "param_1"


FULL = PLAIN(initializer=Normal(), regularizer=L2Decay(0.1), need_clip=False)
SHARED = {
    "nothing": (None, None),
    "nothing, then a default record": (FULL, PLAIN()),
    "True": (FULL, True),
    "only a name": (FULL, "w"),
    "a record of only a name": (FULL, PLAIN(name="w")),
    "equal records": (FULL, PLAIN(initializer=Normal(), regularizer=L2Decay(0.1), need_clip=False)),
    "equal records, one named": (FULL, FULL.renamed("w")),
    "equal initializers": (Constant(1.0), Constant(1)),
    "equal arrays": (Assign([1.0, 2.0]), Assign(np.array([1, 2]))),
    "equal regularizers": (L1Decay(0.5), L1Decay(0.5)),
    "weight norm, then nothing": (NORMED(dim=0), None),
    "equal weight norms": (NORMED(dim=0), NORMED(dim=0)),
}


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize(("first", "second"), SHARED.values(), ids=SHARED)
def test_a_name_used_before_gives_the_same_parameter(first, second, sealed):
    params = nb.ParameterBuffer(seed=0)
    w = params.create_parameter([2], "w", first)
    values = w.numpy()
    if sealed:
        _ = params.flat
    assert params.create_parameter(np.int64(2), "w", second, True, Constant(9.0)) is w
    assert len(params) == 1
    assert_array_equal(w.numpy(), values)


CONFLICTS = {
    "another shape": (None, [3], None, ["(2,)", "(3,)"]),
    "another rank": (None, [2, 1], None, ["(2,)", "(2, 1)"]),
    "a scalar": (None, [], None, ["(2,)", "()"]),
    "a rate": (None, [2], PLAIN(learning_rate=2.0), ["learning_rate=1.0", "learning_rate=2.0"]),
    "regularizers": (L1Decay(0.1), [2], L2Decay(0.1), ["L1Decay(coeff=0.1)", "L2Decay(coeff=0.1)"]),
    "initializers": (Constant(1.0), [2], Constant(2.0), ["value=1.0", "value=2.0"]),
    "arrays": (Assign([1.0, 2.0]), [2], Assign([1.0, 3.0]), ["Assign"]),
    "dims": (NORMED(dim=0), [2], NORMED(), ["dim=0", "dim=None"]),
    "weight norm and plain": (NORMED(), [2], PLAIN(do_model_average=False), ["WeightNormParamAttr"]),
    "plain and weight norm": (None, [2], NORMED(), ["WeightNormParamAttr"]),
}


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize(("first", "shape", "second", "words"), CONFLICTS.values(), ids=CONFLICTS)
def test_conflicts_name_both(first, shape, second, words, sealed):
    params = nb.ParameterBuffer(seed=0)
    w = params.create_parameter([2], "w", first)
    if sealed:
        _ = params.flat
    refused(lambda: params.create_parameter(shape, "w", second), ParameterError, ["'w'", *words])
    assert params["w"] is w
    assert w.shape == (2,)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            NORMED(dim=0),
            NORMED(dim=1),
            r"WeightNormParamAttr\(dim=0\), .* with WeightNormParamAttr\(dim=1\);",
        ),
        (PLAIN(), NORMED(), r"ParamAttr\(do_model_average=True\), .*\(do_model_average=False, dim=None\);"),
    ],
    ids=["dims", "plain and weight norm"],
)
def test_conflicts_show_what_differs_alone(first, second, words):
    params = nb.ParameterBuffer(seed=0)
    params.create_parameter([2, 2], "w", first)
    with pytest.raises(ParameterError, match=f"'w' exists with {words} share it"):
        params.create_parameter([2, 2], "w", second)


# Each pair cannot live together, in any order of creation.
COLLISIONS = [
    (("w", NORMED()), ("w_v", None)),
    (("w", NORMED()), ("w_g", None)),
    (("w", NORMED()), ("w_v", NORMED())),
    *((("w", None), (f"w.{key}", None)) for key in ("velocity", "moment1", "moment2", "moment2_max", "step")),
    (("w", NORMED()), ("w_v.velocity", None)),
    (("w", NORMED()), ("w_g.step", NORMED())),
    (("a.b", None), ("a.b.step", None)),
]


@pytest.mark.parametrize("swap", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("pair", COLLISIONS, ids=lambda pair: f"{pair[0][0]} {pair[1][0]}")
def test_names_that_collide(pair, swap):
    (first, attr), (second, other) = pair[::-1] if swap else pair
    params = nb.ParameterBuffer(seed=0)
    params.create_parameter([2], first, attr)
    refused(lambda: params.create_parameter([2], second, other), ParameterError, [f"'{second}'", "name"])
    assert list(params) == [first]
    params.create_parameter([2], "free", NORMED())  # the refusal left nothing behind


# Each pair can: no key of a state dictionary is meant twice.
FRIENDS = [
    (("w", None), ("w_v", None)),
    (("w", NORMED()), ("w_v_g", None)),
    (("w", None), ("w.velocities", None)),
    (("w", NORMED()), ("w.velocity", None)),  # the keys are w_v.velocity and w_g.velocity
]


@pytest.mark.parametrize("swap", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("pair", FRIENDS, ids=lambda pair: f"{pair[0][0]} {pair[1][0]}")
def test_names_that_only_look_alike(pair, swap):
    params = nb.ParameterBuffer(seed=0)
    for name, attr in pair[::-1] if swap else pair:
        params.create_parameter([2], name, attr)
    opt = nb.optimizer.Momentum(parameters=params)
    assert len(params) == 2
    assert len([key for key in opt.state_dict() if key.endswith(".velocity")]) == 2 + sum(
        p.weight_v is not None for p in params.values()
    )


# --- values and gradients --------------------------------------------------------------------------

SETTERS = {
    "value": lambda p, a: setattr(p, "value", a),
    "set_value": lambda p, a: p.set_value(a),
    "grad": lambda p, a: setattr(p, "grad", a),
}
EXACT = np.array([[0.5, -2.0, 0.0], [3.0, 96.0, 7.0]])


def read_only(array):
    array.flags.writeable = False
    return array


SOURCES = {
    "list": EXACT.tolist(),
    "tuple of ints": ((1, 2, 3), (4, 5, 6)),
    "int64": EXACT.astype(np.int64),
    "uint8": EXACT.astype(np.int64).astype(np.uint8),
    "float16": EXACT.astype(np.float16),
    "float32": EXACT.astype(np.float32),
    "float64": EXACT * np.pi,
    "longdouble": EXACT.astype(np.longdouble),
    "big-endian": EXACT.astype(">f8"),
    "big-endian single": EXACT.astype(">f4"),
    "Fortran": np.asfortranarray(EXACT),
    "transposed": EXACT.T.copy().T,
    "reversed": EXACT[::-1, ::-1],
    "every other": np.repeat(EXACT, 2, axis=1)[:, ::2],
    "broadcast": np.broadcast_to(EXACT[0], (2, 3)),
    "read-only": read_only(EXACT.copy()),
    "non-finite": np.array([[np.inf, -np.inf, np.nan], [0.0, -0.0, 1.0]]),
    "tiny": EXACT * 1e-45,
    "largest single": np.full((2, 3), np.finfo(np.float32).max),
    "parameter": of(EXACT),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_arrays_are_copied_in(source, setter, sealed, dtype):
    w = of(np.zeros((2, 3)), dtype, sealed)
    expected = np.array(source).astype(dtype)
    with np.errstate(all="raise"):  # a user who hunts floating-point errors gets none from a cast
        SETTERS[setter](w, source)
    assert_array_equal(w.grad if setter == "grad" else w.value, expected)
    assert w.value.dtype == w.grad.dtype == w.dtype == dtype


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize("setter", SETTERS)
def test_sources_are_not_kept(setter, sealed):
    w = of(np.zeros(3), sealed=sealed)
    source = np.ones(3, np.float32)
    SETTERS[setter](w, source)
    source[:] = 5.0
    assert_array_equal(w.grad if setter == "grad" else w.numpy(), np.ones(3))


def test_initial_arrays_are_not_kept():
    source = np.ones(3, np.float32)
    w = of(source)
    source[:] = 5.0
    assert_array_equal(w.numpy(), np.ones(3))


@pytest.mark.parametrize("part", ["value", "grad"])
@pytest.mark.parametrize(
    "source", [lambda a: a[::-1], lambda a: a.T, lambda a: a[:, ::-1], lambda a: a], ids=range(4)
)
def test_sources_may_overlap(source, part):
    w = of(np.zeros((20, 20)), sealed=True)
    start = np.arange(400.0, dtype=np.float32).reshape(20, 20)
    setattr(w, part, start)
    setattr(w, part, source(getattr(w, part)))
    assert_array_equal(getattr(w, part), source(start))


def test_operations_in_place_write_the_views():
    w = of([1.0, 2.0])
    value, grad = w.value, w.grad
    w.value += 1
    w.value *= 2
    w.value[0] = -1
    w.grad[:] = 3
    w.grad -= 1
    np.add(w.grad, 1, out=w.grad)
    assert_array_equal(value, [-1, 6])
    assert_array_equal(grad, [3, 3])
    assert w.value is value
    assert w.grad is grad


REFUSED = {
    "shape": (np.ones((3, 2)), ParameterError, ["(3, 2)", "(2, 3)"]),
    "rank": (np.ones(6), ParameterError, ["(6,)", "(2, 3)"]),
    "a scalar": (1.0, ParameterError, ["()", "(2, 3)"]),
    "broadcastable": (np.ones((1, 3)), ParameterError, ["(1, 3)", "(2, 3)"]),
    "complex": (np.ones((2, 3), complex), TypeError, ["real", "complex128"]),
    "bool": (np.ones((2, 3), bool), TypeError, ["real", "bool"]),
    "string": (np.full((2, 3), "1"), TypeError, ["real", "<U1"]),
    "datetime": (np.zeros((2, 3), "M8[s]"), TypeError, ["real", "datetime64"]),
    "object": (np.full((2, 3), None), TypeError, ["real", "object"]),
    "huge integers": ([[10**400] * 3] * 2, TypeError, ["real", "object"]),
    "ragged": ([[1.0, 2.0, 3.0], [4.0]], ParameterError, ["inhomogeneous"]),
    "a dictionary": ({"w": 1.0}, TypeError, ["real", "mapping"]),
    "overflow": ([[0, 0, 0], [0, 1e39, 0]], ParameterError, ["float32", "(1, 1)", "1e+39", "float64"]),
    "negative overflow": ([[0, 0, -1e40]] * 2, ParameterError, ["float32", "(0, 2)", "-1e+40"]),
}


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize(("source", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_do_not_fit_change_nothing(source, error, words, setter, sealed):
    w = of(EXACT, sealed=sealed)
    w.clear_grad(set_to_zero=False)
    what = "gradient" if setter == "grad" else "value"
    refused(lambda: SETTERS[setter](w, source), error, [what, "'w'", *words])
    assert_array_equal(w.numpy(), EXACT)
    assert_array_equal(w.grad, np.zeros((2, 3)))
    assert not w.has_grad


def test_a_message_shows_the_number_itself():
    refused(lambda: of(1.0).set_value(1e39), ParameterError, ["is 1e+39"])


def test_gradients_are_absent_until_written():
    w = of([1.0, 2.0])
    for absent in (lambda: w.clear_grad(set_to_zero=False), lambda: setattr(w, "grad", None)):
        w.grad = [3.0, 4.0]
        w.clear_grad()
        assert w.has_grad
        absent()
        assert_array_equal(w.grad, [0.0, 0.0])  # reading it does not make it present
        assert_array_equal(np.asarray(w.grad), [0.0, 0.0])
        assert not w.has_grad
        w.clear_grad()
        assert not w.has_grad
        w.grad = [0.0, 0.0]
        assert w.has_grad
    with pytest.raises(TypeError, match="set_to_zero"):
        w.clear_grad(set_to_zero=0)
