"""Attribute records, what `attr=` stands for, and the attributes of a parameter."""

import dataclasses
import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from nbopt.initializer import Constant, XavierUniform, set_global_initializer
from nbopt.regularizer import L1Decay, L2Decay

PLAIN, NORMED = nb.ParamAttr, nb.WeightNormParamAttr
FIELDS = ("learning_rate", "regularizer", "trainable", "do_model_average", "need_clip")
TABLE = ("kept", "reduced", "None", "-1", "Paddle", "torch", "Jittor")  # of what dim means elsewhere


def refused(call, error, words):
    """Check that `call` raises exactly `error`, and that the message holds all `words`."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def parameter(attr=None, name="fc.bias", sealed=False):
    params = nb.ParameterBuffer(seed=0)
    made = params.create_parameter([2, 3], name=name, attr=attr)
    if sealed:
        _ = params.flat  # lays the storage out
    return made


# --- records ---------------------------------------------------------------------------------------

DEFAULTS = {
    "name": None,
    "initializer": None,
    "learning_rate": 1.0,
    "regularizer": None,
    "trainable": True,
    "do_model_average": True,
    "need_clip": True,
}


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [(PLAIN, DEFAULTS), (NORMED, {"dim": None, **DEFAULTS, "do_model_average": False})],
    ids=["plain", "weight_norm"],
)
def test_defaults_and_order_of_arguments(kind, defaults):
    record = kind()
    assert {name: getattr(record, name) for name in defaults} == defaults
    given = {
        "dim": 1,
        "name": "u",
        "initializer": Constant(2.0),
        "learning_rate": 0.5,
        "regularizer": L1Decay(0.1),
        "trainable": False,
        "do_model_average": not defaults["do_model_average"],
        "need_clip": False,
    }
    given = {name: given[name] for name in defaults}
    record = kind(*given.values())
    assert {name: getattr(record, name) for name in given} == given
    assert record == kind(**given)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (PLAIN(), PLAIN(), True),
        (PLAIN(initializer=Constant(1.0)), PLAIN(initializer=Constant(1)), True),
        (PLAIN(regularizer=L2Decay(0.1)), PLAIN(regularizer=L2Decay(0.1)), True),
        (PLAIN(regularizer=L2Decay(0.1)), PLAIN(regularizer=L1Decay(0.1)), False),
        (PLAIN(learning_rate=2.0), PLAIN(learning_rate=2), True),
        (PLAIN(need_clip=False), PLAIN(), False),
        (NORMED(dim=0), NORMED(dim=np.int64(0)), True),
        (NORMED(dim=0), NORMED(dim=1), False),
        (NORMED(do_model_average=True), PLAIN(), False),
    ],
    ids=range(9),
)
def test_records_compare_by_value(one, other, equal):
    assert (one == other) is equal
    assert (hash(one) == hash(other)) or not equal


def test_records_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN().learning_rate = 2.0
    record = NORMED(dim=1, learning_rate=2.0)
    renamed = record.renamed("w")
    assert (record.name, renamed.name, renamed.dim, renamed.learning_rate) == (None, "w", 1, 2.0)


@pytest.mark.parametrize("number", [2, np.float32(2), np.int8(2), np.array([2.0]), np.array(2)])
def test_numbers_become_floats(number):
    assert type(PLAIN(learning_rate=number).learning_rate) is float
    assert PLAIN(learning_rate=number).learning_rate == 2.0
    assert L2Decay(number) == L2Decay(2.0)


def test_regularizers():
    assert L1Decay() == L1Decay(0.0)
    assert L2Decay() == L2Decay(0.0)
    assert L1Decay(0.1) != L2Decay(0.1)
    assert L1Decay(coeff=0.25).coeff == 0.25
    with pytest.raises(TypeError, match="abstract"):
        nb.regularizer.Regularizer(0.1)  # the base class is no penalty


RECORD_ERRORS = {
    "name of a wrong type": (lambda: PLAIN(name=3), TypeError, ["name", "string", "3"]),
    "empty name": (lambda: PLAIN(name=""), ParameterError, ["name", "empty"]),
    "initializer is a number": (lambda: PLAIN(initializer=0.5), TypeError, ["initializer", "0.5"]),
    "initializer is a class": (lambda: PLAIN(initializer=Constant), TypeError, ["initializer"]),
    "initializer is a list": (lambda: PLAIN(initializer=[1.0]), TypeError, ["initializer", "Assign(values)"]),
    "negative rate": (lambda: PLAIN(learning_rate=-1), HyperparameterError, ["learning_rate", ">= 0"]),
    "rate nan": (lambda: PLAIN(learning_rate=math.nan), HyperparameterError, ["learning_rate", "nan"]),
    "rate inf": (lambda: PLAIN(learning_rate=math.inf), HyperparameterError, ["learning_rate", "inf"]),
    "rate is a string": (lambda: PLAIN(learning_rate="fast"), TypeError, ["learning_rate", "fast"]),
    "rate is a bool": (lambda: PLAIN(learning_rate=True), TypeError, ["learning_rate", "True"]),
    "rate is a list": (lambda: PLAIN(learning_rate=[1.0]), TypeError, ["learning_rate"]),
    "rate of two": (lambda: PLAIN(learning_rate=np.ones(2)), TypeError, ["learning_rate"]),
    "regularizer is a number": (lambda: PLAIN(regularizer=0.1), TypeError, ["regularizer", "L2Decay"]),
    "trainable is 1": (lambda: PLAIN(trainable=1), TypeError, ["trainable", "True or False", "1"]),
    "need_clip is None": (lambda: PLAIN(need_clip=None), TypeError, ["need_clip", "True or False"]),
    "average is a string": (lambda: PLAIN(do_model_average="no"), TypeError, ["do_model_average"]),
    "gradient_clip": (lambda: PLAIN(gradient_clip=1), TypeError, ["gradient_clip", "grad_clip", "need_clip"]),
    "misspelled": (lambda: PLAIN(learning_rte=1.0), TypeError, ["learning_rte", "'learning_rate'?"]),
    "dim of a plain one": (lambda: PLAIN(dim=0), TypeError, ["dim", "WeightNormParamAttr"]),
    "unknown to weight norm": (lambda: NORMED(axis=0), TypeError, ["argument 'axis'; legal keys: ", "dim"]),
    "weight norm misspelled": (lambda: NORMED(dims=0), TypeError, ["dims", "'dim'?"]),
    "dim -1": (lambda: NORMED(dim=-1), ParameterError, ["dim=-1", *TABLE]),
    "dim is a float": (lambda: NORMED(dim=1.0), TypeError, ["dim", "integer", "1.0"]),
    "dim is a bool": (lambda: NORMED(dim=True), TypeError, ["dim", "integer", "True"]),
    "negative coefficient": (lambda: L2Decay(-0.1), HyperparameterError, ["L2Decay", "coeff", "-0.1"]),
    "coefficient nan": (lambda: L1Decay(math.nan), HyperparameterError, ["L1Decay", "coeff", "nan"]),
    "coefficient is a string": (lambda: L1Decay("x"), TypeError, ["L1Decay", "coeff", "'x'"]),
    "coefficient is a bool": (lambda: L2Decay(True), TypeError, ["L2Decay", "coeff"]),
}


@pytest.mark.parametrize(("call", "error", "words"), RECORD_ERRORS.values(), ids=RECORD_ERRORS)
def test_errors_of_records(call, error, words):
    refused(call, error, words)


# --- attr= of create_parameter ---------------------------------------------------------------------

COERCED = {
    "None": (None, PLAIN()),
    "True": (True, PLAIN()),
    "name": ("u", PLAIN(name="u")),
    "initializer": (Constant(2.0), PLAIN(initializer=Constant(2.0))),
    "regularizer": (L1Decay(0.5), PLAIN(regularizer=L1Decay(0.5))),
    "record": (PLAIN(learning_rate=3.0), PLAIN(learning_rate=3.0)),
    "record with a name": (PLAIN(name="u", need_clip=False), PLAIN(name="u", need_clip=False)),
    "weight norm": (NORMED(dim=1, name="u"), NORMED(dim=1, name="u")),
}


@pytest.mark.parametrize(("attr", "meaning"), COERCED.values(), ids=COERCED)
def test_attr_stands_for_a_record_and_its_name_wins(attr, meaning):
    made = parameter(attr)
    assert made.name == (meaning.name or "fc.bias")
    assert made.attr == meaning.renamed(made.name)
    assert (made.weight_v is not None) is (made.weight_g is not None) is isinstance(meaning, NORMED)
    for part in (made, made.weight_g, made.weight_v):
        if part is not None:
            assert [getattr(part, f) for f in FIELDS] == [getattr(meaning, f) for f in FIELDS]


def test_attr_false_makes_no_parameter():
    params = nb.ParameterBuffer()
    assert params.create_parameter([2], name="b", attr=False) is None
    assert len(params) == 0
    assert params.create_parameter([2]).name == "param_0"


# --- attrs= of from_arrays --------------------------------------------------------------------------

ARRAYS = {"a.weight": [[1.0, 2.0]], "a.bias": [3.0], "b.weight": [[4.0]], "B": 5.0}
NO_CLIP, SLOW = PLAIN(need_clip=False), PLAIN(learning_rate=0.5)
# attrs, and the record of each array (None: no such parameter)
PATTERNS = {
    "none": (None, [PLAIN()] * 4),
    "a name": ({"a.bias": NO_CLIP}, [PLAIN(), NO_CLIP, PLAIN(), PLAIN()]),
    "a star": ({"*.weight": NORMED(dim=0)}, [NORMED(dim=0), PLAIN(), NORMED(dim=0), PLAIN()]),
    "the last wins whole": ({"*": NO_CLIP, "a.*": SLOW}, [SLOW, SLOW, NO_CLIP, NO_CLIP]),
    "the order counts": ({"a.*": SLOW, "*": NO_CLIP}, [NO_CLIP] * 4),
    "case and sets": ({"[a-b].*": SLOW}, [SLOW, SLOW, SLOW, PLAIN()]),
    "False leaves out": ({"*.weight": False}, [None, PLAIN(), None, PLAIN()]),
    "False, then True": ({"*": False, "a.*": True}, [PLAIN(), PLAIN(), None, None]),
    "a regularizer": ({"?": L2Decay(0.1)}, [PLAIN()] * 3 + [PLAIN(regularizer=L2Decay(0.1))]),
}


@pytest.mark.parametrize(("attrs", "records"), PATTERNS.values(), ids=PATTERNS)
def test_patterns_of_from_arrays(attrs, records):
    params = nb.ParameterBuffer.from_arrays(ARRAYS, attrs=attrs)
    expected = {n: r.renamed(n) for n, r in zip(ARRAYS, records, strict=True) if r is not None}
    assert {name: p.attr for name, p in params.items()} == expected
    assert list(params) == list(expected)
    for name, p in params.items():
        assert_array_equal(p.numpy(), ARRAYS[name])
        assert p.shape == np.shape(ARRAYS[name])


FROM_ERRORS = {
    "bool": (lambda: make({"w": [True]}), TypeError, ["'w'", "real", "bool"]),
    "complex": (lambda: make({"v": [1.0], "w": 1j}), TypeError, ["'w'", "real", "complex128"]),
    "None": (lambda: make({"w": None}), TypeError, ["'w'", "real"]),
    "ragged": (lambda: make({"w": [[1.0], [1.0, 2.0]]}), ParameterError, ["'w'", "inhomogeneous"]),
    "overflow": (lambda: make({"w": [0, 1e39]}, dtype="float32"), ParameterError, ["'w'", "(1,)", "float32"]),
    "name": (lambda: make({3: [1.0]}), TypeError, ["name", "string", "3"]),
    "empty name": (lambda: make({"": [1.0]}), ParameterError, ["name", "empty"]),
    "collision": (lambda: make({"w": 1.0, "w.step": 1.0}), ParameterError, ["'w.step'", "state"]),
    "no match": (lambda: make({"w": 1.0}, {"v*": None}), ParameterError, ["'v*'", "w"]),
    "pattern": (lambda: make({"w": 1.0}, {0: None}), TypeError, ["pattern", "string", "0"]),
    "attr": (lambda: make({"w": 1.0}, {"w*": 0.1}), TypeError, ["attr", "'w*'", "0.1", "ParamAttr"]),
    "arrays": (lambda: make([1.0, 2.0]), TypeError, ["arrays", "mapping", "list"]),
    "attrs": (lambda: make({"w": 1.0}, NO_CLIP), TypeError, ["attrs", "mapping", "ParamAttr", "{'*': attr}"]),
    "dtype": (lambda: make({"w": 1.0}, dtype="int8"), TypeError, ["dtype", "int8"]),
    "device": (lambda: make({"w": 1.0}, device="tpu"), ParameterError, ["device", "'tpu'"]),
}
make = nb.ParameterBuffer.from_arrays


@pytest.mark.parametrize(("call", "error", "words"), FROM_ERRORS.values(), ids=FROM_ERRORS)
def test_errors_of_from_arrays(call, error, words):
    refused(call, error, words)


DTYPES = [
    ({"a": np.float32(1)}, None, "float32"),
    ({"a": np.float16(1), "b": np.int16(2), "c": np.array([1.0], ">f4")}, None, "float32"),
    ({"a": np.float32(1), "b": np.float64(1)}, None, "float64"),
    ({"a": np.int32(1)}, None, "float64"),
    ({"a": [1.5, 2]}, None, "float64"),
    ({"a": [1, 2]}, None, "float64"),
    ({"a": [1.5]}, "float32", "float32"),
    ({"a": np.float32(1.5)}, np.float64, "float64"),
    ({}, None, "float64"),
]


@pytest.mark.parametrize(("arrays", "dtype", "expected"), DTYPES, ids=range(len(DTYPES)))
def test_dtypes_of_from_arrays(arrays, dtype, expected):
    params = make(arrays, dtype=dtype)
    assert params.dtype == np.dtype(expected)
    for name, array in arrays.items():
        assert_array_equal(params[name].numpy(), array)


# --- precedence of initializers ---------------------------------------------------------------------

ONE, TWO, THREE = Constant(1.0), Constant(2.0), Constant(3.0)


@pytest.mark.parametrize(
    ("attr", "weight_init", "bias_init", "default", "weight", "bias"),
    [
        (ONE, TWO, TWO, THREE, 1.0, 1.0),
        (PLAIN(initializer=ONE), TWO, TWO, THREE, 1.0, 1.0),
        (None, TWO, THREE, ONE, 2.0, 3.0),
        (L2Decay(0.1), TWO, None, THREE, 2.0, 3.0),
        (None, None, None, THREE, 3.0, 3.0),
        (None, None, None, None, None, 0.0),
    ],
    ids=["attr", "record", "global", "global weight", "default", "none"],
)
def test_precedence_of_initializers(attr, weight_init, bias_init, default, weight, bias):
    params = nb.ParameterBuffer(seed=1)
    try:
        set_global_initializer(weight_init, bias_init)
        made = [
            params.create_parameter([4, 5], name, attr, is_bias, default)
            for name, is_bias in (("w", False), ("b", True))
        ]
    finally:
        set_global_initializer(None)
    xavier = nb.ParameterBuffer(seed=1).create_parameter([4, 5], "w", XavierUniform())
    assert_array_equal(made[0].numpy(), xavier.numpy() if weight is None else np.full((4, 5), weight))
    assert_array_equal(made[1].numpy(), np.full((4, 5), bias))


# --- attributes of a parameter ---------------------------------------------------------------------

# name, a value to set, another one
SETTINGS = [
    ("learning_rate", 0.0, 2.5),
    ("learning_rate", np.float32(0.5), np.array([3])),
    ("regularizer", L1Decay(0.1), L2Decay(0.2)),
    ("regularizer", L2Decay(0.0), None),
    ("regularizer", L1Decay(0.0), L2Decay(0.0)),
    ("need_clip", False, True),
    ("need_clip", np.False_, np.True_),
    ("do_model_average", True, False),
    ("trainable", False, True),
    ("stop_gradient", True, False),
]
SETTING_IDS = [f"{name} {first!r}" for name, first, _ in SETTINGS]


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize(("name", "first", "second"), SETTINGS, ids=SETTING_IDS)
def test_attributes_can_be_set_at_any_time(name, first, second, sealed):
    made = parameter(sealed=sealed)
    for value in (first, second, first):
        setattr(made, name, value)
        assert getattr(made, name) == value
        assert isinstance(getattr(made, name), (float, bool, nb.regularizer.Regularizer, type(None)))
    _ = made.value  # lays the storage out
    assert getattr(made, name) == first


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize(("name", "first", "second"), SETTINGS, ids=SETTING_IDS)
@pytest.mark.parametrize("one", ["weight_g", "weight_v"])
def test_attributes_of_a_normed_parameter_go_to_both(name, first, second, one, sealed):
    made = parameter(NORMED(dim=0), sealed=sealed)
    setattr(made, name, first)
    assert getattr(made, name) == getattr(made.weight_g, name) == getattr(made.weight_v, name) == first
    setattr(getattr(made, one), name, second)
    other = made.weight_v if one == "weight_g" else made.weight_g
    assert getattr(getattr(made, one), name) == second
    assert getattr(other, name) == first


@pytest.mark.parametrize("attr", [None, NORMED()], ids=["plain", "weight norm"])
def test_trainable_and_stop_gradient_are_opposites(attr):
    made = parameter(attr)
    for trainable in (False, True):
        made.trainable = trainable
        assert (made.trainable, made.stop_gradient) == (trainable, not trainable)
        made.stop_gradient = trainable
        assert (made.trainable, made.stop_gradient) == (not trainable, trainable)


def test_a_normed_parameter_trains_while_g_or_v_does():
    made = parameter(NORMED())
    made.weight_g.trainable = False
    assert made.trainable
    made.weight_v.stop_gradient = True
    assert not made.trainable


BAD_SETTINGS = {
    "negative rate": ("learning_rate", -0.5, HyperparameterError, ["-0.5"]),
    "rate nan": ("learning_rate", math.nan, HyperparameterError, ["finite"]),
    "rate inf": ("learning_rate", math.inf, HyperparameterError, ["finite"]),
    "rate is a string": ("learning_rate", "1", TypeError, ["'1'"]),
    "rate is a bool": ("learning_rate", True, TypeError, ["True"]),
    "rate is complex": ("learning_rate", 1j, TypeError, ["1j"]),
    "rate is None": ("learning_rate", None, TypeError, ["None"]),
    "regularizer is a number": ("regularizer", 0.1, TypeError, ["L2Decay", "0.1"]),
    "regularizer is a class": ("regularizer", L2Decay, TypeError, ["L2Decay"]),
    "need_clip is 1": ("need_clip", 1, TypeError, ["True or False"]),
    "trainable is 0": ("trainable", 0, TypeError, ["True or False"]),
    "stop_gradient is None": ("stop_gradient", None, TypeError, ["True or False"]),
    "average is a string": ("do_model_average", "yes", TypeError, ["'yes'"]),
}


@pytest.mark.parametrize("attr", [None, NORMED()], ids=["plain", "weight norm"])
@pytest.mark.parametrize(("name", "value", "error", "words"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_errors_of_setters(name, value, error, words, attr):
    made = parameter(attr)
    before = [getattr(made, field) for field in FIELDS]
    refused(lambda: setattr(made, name, value), error, ["'fc.bias'", name, *words])
    assert [getattr(made, field) for field in FIELDS] == before


@pytest.mark.parametrize("part", ["weight_g", "weight_v"])
def test_a_part_of_weight_norm_is_not_replaced(part):
    made = parameter(NORMED())
    before = getattr(made, part)
    with pytest.raises(AttributeError, match=f"{part} of 'fc.bias' is a Parameter .*assign to {part}.value"):
        setattr(made, part, np.ones(3))
    assert getattr(made, part) is before
    with pytest.raises(AttributeError, match=f"'fc.bias' has no weight norm, and so no {part}"):
        setattr(parameter(), part, np.ones(3))


@pytest.mark.parametrize("name", ["name", "shape", "dtype", "size", "device", "attr", "weight_v"])
def test_what_a_parameter_is_cannot_be_set(name):
    made = parameter()
    before = getattr(made, name)
    with pytest.raises(AttributeError):
        setattr(made, name, "other")
    assert getattr(made, name) == before
