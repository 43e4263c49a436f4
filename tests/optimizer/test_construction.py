"""What an optimizer takes and refuses when it is built. Numbers in ids such as O05 are of the fact sheets."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError
from tests.optimizer import RULES, expand, gradients, normed, picture, refuses, small

NAN, INF = float("nan"), float("inf")

# --- refused: numbers ------------------------------------------------------------------------------

# Where a number is asked for, none of these is one.
NO_NUMBERS = {
    "string": "0.1",
    "true": True,
    "numpy-false": np.False_,
    "list": [0.1],
    "complex": 1j,
    "two-elements": np.array([0.1, 0.2]),
    "no-elements": np.array([]),
    "boolean-array": np.array([True]),
    "object": object(),
}
NUMBERS = ("learning_rate", "momentum", "rescale_grad", "weight_decay")
OUT_OF_RANGE = {
    "O01-negative": ("learning_rate", -0.1, ">= 0 -0.1"),
    "O02-nan": ("learning_rate", NAN, "finite nan"),
    "O03-inf": ("learning_rate", INF, "finite inf"),
    "lr-minus-inf": ("learning_rate", -INF, "finite -inf"),
    "lr-too-large-for-a-float": ("learning_rate", 10**400, "finite"),
    "lr-numpy-nan": ("learning_rate", np.float32(NAN), "finite nan"),
    "lr-array-negative": ("learning_rate", np.array([-1.0]), ">= 0 -1.0"),
    "O04-momentum-1.5": ("momentum", 1.5, ">= 0 < 1 1.5"),
    "momentum-1": ("momentum", 1, ">= 0 < 1 1.0"),
    "O05-negative": ("momentum", -0.5, ">= 0 < 1 -0.5"),
    "O05n-nan": ("momentum", NAN, "finite nan"),
    "momentum-inf": ("momentum", INF, "inf"),
    "O06-negative": ("weight_decay", -0.1, ">= 0 -0.1"),
    "O06n-nan": ("weight_decay", NAN, "finite nan"),
    "O06i-inf": ("weight_decay", INF, "finite inf"),
    "rescale-nan": ("rescale_grad", NAN, "finite nan"),
    "rescale-inf": ("rescale_grad", -INF, "finite -inf"),
}


@pytest.mark.parametrize("argument", NUMBERS)
@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_a_type_error(argument, value):
    params = small()
    words = f"Momentum {argument} number {type(value).__name__}"
    refuses(lambda: nb.optimizer.Momentum(parameters=params, **{argument: value}), TypeError, words, params)


@pytest.mark.parametrize("argument", ["learning_rate", "momentum", "rescale_grad"])
def test_none_is_no_number(argument):  # O21d
    params = small()
    words = f"Momentum {argument} number None"
    refuses(lambda: nb.optimizer.Momentum(parameters=params, **{argument: None}), TypeError, words, params)


@pytest.mark.parametrize(("argument", "value", "words"), expand("", OUT_OF_RANGE))
def test_number_out_of_range(argument, value, words):
    params = small()
    words = f"Momentum {argument} {words}"
    refuses(
        lambda: nb.optimizer.Momentum(parameters=params, **{argument: value}),
        HyperparameterError,
        words,
        params,
    )


# --- refused: everything else ----------------------------------------------------------------------

ARGUMENTS = {
    "nesterov-int": ("Momentum", {"use_nesterov": 1}, TypeError, "use_nesterov True False"),
    "nesterov-none": ("Momentum", {"use_nesterov": None}, TypeError, "use_nesterov None"),
    "nesterov-string": ("Momentum", {"use_nesterov": "yes"}, TypeError, "use_nesterov 'yes'"),
    "multi-precision": ("Momentum", {"multi_precision": 1}, TypeError, "multi_precision"),
    "multi-precision-sgd": ("SGD", {"multi_precision": None}, TypeError, "SGD multi_precision"),
    "multi-tensor": ("Momentum", {"use_multi_tensor": "no"}, TypeError, "use_multi_tensor 'no'"),
    "name-int": ("SGD", {"name": 3}, TypeError, "SGD name 3"),
    "name-empty": ("SGD", {"name": ""}, ParameterError, "SGD name empty"),
    "nonfinite-unknown": ("SGD", {"nonfinite": "warn"}, HyperparameterError, "raise skip propagate 'warn'"),
    "nonfinite-none": ("SGD", {"nonfinite": None}, TypeError, "nonfinite raise skip propagate None"),
    "nonfinite-true": ("SGD", {"nonfinite": True}, TypeError, "nonfinite raise skip propagate True"),
    "nonfinite-list": ("SGD", {"nonfinite": ["raise"]}, TypeError, "nonfinite raise skip propagate"),
    "clip-number": ("SGD", {"grad_clip": 1.0}, TypeError, "grad_clip ClipGradByGlobalNorm 1.0"),
    "clip-string": ("SGD", {"grad_clip": "global"}, TypeError, "grad_clip 'global'"),
    "clip-class": ("SGD", {"grad_clip": nb.ClipGradByNorm}, TypeError, "grad_clip ClipGradByNorm"),
    "decay-class": ("SGD", {"weight_decay": nb.regularizer.L2Decay}, TypeError, "weight_decay L2Decay"),
    "misspelt": ("Momentum", {"momentun": 0.9}, TypeError, "momentun"),
    "momentum-of-sgd": ("SGD", {"momentum": 0.9}, TypeError, "momentum"),
    "nesterov-of-sgd": ("SGD", {"use_nesterov": False}, TypeError, "use_nesterov"),
}


@pytest.mark.parametrize(("rule", "arguments", "error", "words"), expand("", ARGUMENTS))
def test_argument_refused(rule, arguments, error, words):
    params = small()
    refuses(lambda: RULES[rule](parameters=params, **arguments), error, words, params)


WHAT_TO_MOVE = {
    "none": (lambda p: None, TypeError, "Momentum(..., parameters=params)"),
    "string": (lambda p: "w", TypeError, "parameters str"),
    "number": (lambda p: 3, TypeError, "parameters int"),
    "names": (lambda p: ["w", "b"], TypeError, "Parameter str"),
    "nested-list": (lambda p: [[p["w"]]], TypeError, "Parameter list"),
    "none-in-list": (lambda p: [p["w"], None], TypeError, "Parameter NoneType"),
    "array": (lambda p: np.ones(3), TypeError, "Parameter float64"),
    "O23-set": (lambda p: {p["w"], p["b"]}, TypeError, "parameters set"),
    "frozenset": (lambda p: frozenset([p["w"]]), TypeError, "parameters frozenset"),
    "one-group-without-list": (lambda p: {"params": p}, TypeError, "list [{'params':"),
    "arrays-by-name": (lambda p: {"w": np.ones(3)}, TypeError, "ParameterBuffer.from_arrays(arrays)"),
    "buffer-in-list": (lambda p: [p], TypeError, "ParameterBuffer"),
    "groups-and-parameters": (lambda p: [{"params": [p["w"]]}, p["b"]], TypeError, "mixes groups Parameter"),
    "group-without-params": (lambda p: [{"learning_rate": 1.0}], TypeError, "group 0 'params'"),
    "group-of-names": (lambda p: [{"params": ["w"]}], TypeError, "Parameter str"),
    "group-of-none": (lambda p: [{"params": None}], TypeError, "parameters NoneType"),
    "group-of-group": (lambda p: [{"params": {"params": [p["w"]]}}], TypeError, "parameters dict"),
    "O08-empty-list": (lambda p: [], ParameterError, "Momentum no parameters"),
    "empty-iterator": (lambda p: iter(()), ParameterError, "Momentum no parameters"),
    "empty-buffer": (lambda p: nb.ParameterBuffer(), ParameterError, "Momentum no parameters"),
    "empty-group": (lambda p: [{"params": p}, {"params": []}], ParameterError, "group 1 no parameters"),
    "two-buffers": (lambda p: [p["w"], small()["b"]], ParameterError, "2 buffers 'w' 'b'"),
    "two-buffers-in-groups": (
        lambda p: [{"params": p["w"]}, {"params": small()["b"]}],
        ParameterError,
        "2 buffers 'w' 'b'",
    ),
    "O10-two-groups": (
        lambda p: [{"params": [p["w"], p["b"]]}, {"params": [p["b"]]}],
        ParameterError,
        "'b' group 0 group 1",
    ),
}


@pytest.mark.parametrize(("choose", "error", "words"), expand("", WHAT_TO_MOVE))
def test_parameters_refused(choose, error, words):
    params = small()
    refuses(lambda: nb.optimizer.Momentum(parameters=choose(params)), error, words, params)


@pytest.mark.parametrize("part", ["w_v", "w_g"])
def test_a_weight_and_its_part_are_not_in_two_groups(part):
    params = normed()
    groups = [{"params": params["w"]}, {"params": params[part]}]
    refuses(lambda: nb.optimizer.Momentum(parameters=groups), ParameterError, f"'{part}' group 0 1", params)


LIMITS = {
    "N14-global-negative": (lambda: nb.ClipGradByGlobalNorm(-1), HyperparameterError, "clip_norm >= 0 -1.0"),
    "N15-global-nan": (lambda: nb.ClipGradByGlobalNorm(NAN), HyperparameterError, "clip_norm nan"),
    "N23-global-string": (lambda: nb.ClipGradByGlobalNorm("1"), TypeError, "clip_norm number '1'"),
    "global-none": (lambda: nb.ClipGradByGlobalNorm(None), TypeError, "clip_norm number None"),
    "global-true": (lambda: nb.ClipGradByGlobalNorm(True), TypeError, "clip_norm number True"),
    "global-name": (lambda: nb.ClipGradByGlobalNorm(1, 2), TypeError, "group_name string 2"),
    "global-skip": (lambda: nb.ClipGradByGlobalNorm(1, auto_skip_clip=1), TypeError, "auto_skip_clip"),
    "N14-norm-negative": (lambda: nb.ClipGradByNorm(-1.0), HyperparameterError, "ClipGradByNorm >= 0 -1.0"),
    "N15-norm-nan": (lambda: nb.ClipGradByNorm(NAN), HyperparameterError, "ClipGradByNorm nan"),
    "norm-string": (lambda: nb.ClipGradByNorm("abc"), TypeError, "ClipGradByNorm number 'abc'"),
    "V01-min-above-max": (lambda: nb.ClipGradByValue(-2, 2), HyperparameterError, "min <= max -2.0 2.0"),
    "V02-min-nan": (lambda: nb.ClipGradByValue(1, NAN), HyperparameterError, "min nan"),
    "V03-negative": (lambda: nb.ClipGradByValue(-1), HyperparameterError, "max >= 0 -1.0"),
    "V04-nan": (lambda: nb.ClipGradByValue(NAN), HyperparameterError, "max nan"),
    "value-none": (lambda: nb.ClipGradByValue(None), TypeError, "max number None"),
    "l1-negative": (lambda: nb.regularizer.L1Decay(-1), HyperparameterError, "L1Decay >= 0 -1.0"),
    "l2-nan": (lambda: nb.regularizer.L2Decay(NAN), HyperparameterError, "L2Decay nan"),
    "l2-string": (lambda: nb.regularizer.L2Decay("1"), TypeError, "L2Decay number '1'"),
    "P01-rate": (lambda: nb.ParamAttr(learning_rate=-3), HyperparameterError, "learning_rate >= 0 -3.0"),
    "P01-need-clip": (lambda: nb.ParamAttr(need_clip="no"), TypeError, "need_clip True False 'no'"),
    "attr-trainable": (lambda: nb.ParamAttr(trainable=1), TypeError, "trainable True False 1"),
    "attr-regularizer": (lambda: nb.ParamAttr(regularizer=0.1), TypeError, "regularizer L2Decay 0.1"),
    "rule": (lambda: nb.Optimizer(lambda p, g: p, parameters=small()), TypeError, "rule"),
}


@pytest.mark.parametrize(("make", "error", "words"), expand("", LIMITS))
def test_limit_or_attribute_refused(make, error, words):
    refuses(make, error, words, small())


# --- accepted --------------------------------------------------------------------------------------

HALVES = {
    "python": 0.5,
    "float32": np.float32(0.5),
    "float64": np.float64(0.5),
    "float16": np.float16(0.5),
    "array-0d": np.array(0.5),
    "array-1": np.array([0.5], np.float32),
    "array-1x1": np.array([[0.5]]),
    "fraction": Fraction(1, 2),
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_numbers_of_every_kind(half):
    def run(number):
        params = small()
        opt = nb.optimizer.Momentum(
            number,
            number,
            params,
            weight_decay=number,
            rescale_grad=number,
            grad_clip=nb.ClipGradByNorm(number),
        )
        opt.step(gradients(params))
        opt.step(gradients(params, 2))
        assert type(opt.get_lr()) is float
        return picture(params)["values"]

    assert run(half) == run(0.5)


LEGAL = {
    "int-rate": {"learning_rate": 1},
    "numpy-int-rate": {"learning_rate": np.int64(2)},
    "zero-rate": {"learning_rate": 0},
    "zero-momentum": {"momentum": 0},
    "O07-nesterov-without-momentum": {"momentum": 0.0, "use_nesterov": True},
    "numpy-flag": {"use_nesterov": np.True_},
    "zero-decay": {"weight_decay": 0},
    "zero-l1": {"weight_decay": nb.regularizer.L1Decay(0.0)},
    "zero-rescale": {"rescale_grad": 0},
    "negative-rescale": {"rescale_grad": -1.5},
    "limit-zero": {"grad_clip": nb.ClipGradByGlobalNorm(0)},
    "limit-inf": {"grad_clip": nb.ClipGradByNorm(INF)},
    "bounds-inf": {"grad_clip": nb.ClipGradByValue(INF)},
    "bounds-equal": {"grad_clip": nb.ClipGradByValue(0.5, 0.5)},
    "named": {"name": "main"},
}


@pytest.mark.parametrize("arguments", LEGAL.values(), ids=LEGAL)
def test_legal_argument_is_kept(arguments):
    params = small()
    opt = nb.optimizer.Momentum(parameters=params, **arguments)
    kept = {**opt.param_groups[0], "learning_rate": opt.get_lr(), "name": opt.name}
    assert {key: kept[key] for key in arguments} == arguments
    opt.step(gradients(params))
    assert opt.step_count == 1


def test_nesterov_with_momentum_zero_is_gradient_descent():
    one, two = small(), small()
    first = nb.optimizer.Momentum(0.3, 0.0, one, use_nesterov=True)
    second = nb.optimizer.SGD(0.3, two)
    for seed in range(3):
        first.step(gradients(one, seed))
        second.step(gradients(two, seed))
    assert one.fingerprint() == two.fingerprint()


def test_options_of_paddle_that_change_nothing():
    def run(**options):
        params = small("float32")
        nb.optimizer.Momentum(0.1, 0.9, params, **options).step(gradients(params))
        return params.fingerprint()

    plain = run()
    assert run(multi_precision=True) == run(use_multi_tensor=True) == run(name="n") == plain


def test_defaults():
    momentum = nb.optimizer.Momentum(parameters=small())
    expected = {"momentum": 0.9, "use_nesterov": False, "weight_decay": None, "grad_clip": None}
    assert {key: momentum.param_groups[0][key] for key in expected} == expected
    assert momentum.get_lr() == nb.optimizer.SGD(parameters=small()).get_lr() == 0.001


FORMS = {
    "buffer": lambda p: p,
    "list": lambda p: [p["w"], p["b"], p["k"]],
    "tuple": lambda p: (p["w"], p["b"], p["k"]),
    "generator": lambda p: (q for q in p.values()),
    "values": lambda p: p.values(),
    "select": lambda p: p.select("*"),
    "twice": lambda p: [p["w"], p["b"], p["w"], p["k"], p["b"]],  # O09
    "group-of-buffer": lambda p: [{"params": p}],
    "group-of-generator": lambda p: [{"params": (q for q in p.values())}],
    "group-twice": lambda p: [{"params": [p["w"], p["w"], p["b"], p["k"]]}],
    "groups": lambda p: [{"params": p["w"]}, {"params": [p["b"], p["k"]]}],
    "tuple-of-groups": lambda p: ({"params": p["w"]}, {"params": (p["b"], p["k"])}),
    "generator-of-groups": lambda p: ({"params": q} for q in p.values()),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_parameters_in_every_form(form):
    params, plain = small(), small()
    opt = nb.optimizer.Momentum(0.1, parameters=form(params), grad_clip=nb.ClipGradByGlobalNorm(1.0))
    reference = nb.optimizer.Momentum(0.1, parameters=plain, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    assert opt.parameters == list(params.values())
    opt.step(gradients(params))
    reference.step(gradients(plain))
    assert params.fingerprint() == plain.fingerprint()


def test_one_parameter_alone():
    params = small()
    assert nb.optimizer.SGD(parameters=params["b"]).parameters == [params["b"]]


@pytest.mark.parametrize("part", ["w_v", "w_g"])
def test_part_of_a_weight_alone(part):
    params, whole = normed(), normed()
    opt = nb.optimizer.Momentum(0.1, parameters=[params[part]])
    reference = nb.optimizer.Momentum(0.1, parameters=whole)
    other = "w_g" if part == "w_v" else "w_v"
    whole[other].trainable = whole["b"].trainable = False
    grads = gradients(params)
    opt.step({"w": grads["w"]})
    reference.step(grads)
    assert [key for key in opt.state_dict() if key.endswith("velocity")] == [f"{part}.velocity"]
    assert params.fingerprint() == whole.fingerprint() != normed().fingerprint()


def test_a_weight_and_its_part_in_one_list_count_once():
    params, plain = normed(), normed()
    opt = nb.optimizer.Momentum(0.1, parameters=[params["w"], params["w_v"], params["b"]])
    opt.step(gradients(params))
    nb.optimizer.Momentum(0.1, parameters=plain).step(gradients(plain))
    assert params.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scalars_and_empty_arrays(dtype):  # O15, O16
    params = nb.ParameterBuffer.from_arrays({"s": 1.0, "none": np.zeros((0, 3)), "v": [1.0]}, dtype=dtype)
    opt = nb.optimizer.SGD(0.5, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(100.0))
    opt.step({"s": 2.0, "none": np.zeros((0, 3)), "v": [4.0]})
    assert_array_equal(params["s"].value, 0.0)
    assert_array_equal(params["v"].value, [-1.0])
    assert params["none"].value.shape == (0, 3)
    assert opt.grad_norm == np.sqrt(20.0)


def test_float64_product_is_that_of_float64():  # O31
    params = nb.ParameterBuffer.from_arrays({"p": [0.0]})
    nb.optimizer.SGD(0.1, parameters=params).step({"p": [1.0]})
    assert params["p"].value[0] == -0.1


def test_building_lays_out_and_refusing_does_not():
    params = small()
    with pytest.raises(ParameterError, match="'w'"):
        nb.optimizer.SGD(parameters=[{"params": params["w"]}, {"params": params["w"]}])
    params.create_parameter([2], name="more")
    nb.optimizer.SGD(parameters=params)
    with pytest.raises(ParameterError, match="'late'"):
        params.create_parameter([2], name="late")
