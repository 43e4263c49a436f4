"""A user's rule: what it may be, what is refused and when, and what `prepare` hands it."""

import copy
import math
import pickle
import random
import textwrap

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.errors import HyperparameterError
from nbopt.kernels import rules
from nbopt.kernels.check import check_rule
from nbopt.kernels.cpu import compile_step
from nbopt.kernels.rule import Rule
from tests.kernels import bits, python
from tests.optimizer import expand, gradients, picture, refuses, small

FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
TENTH = 0.1
WIDE, SINGLE = np.float64(0.1), np.float32(0.1)
TABLE = np.ones(3)


@nb.rule
def heavy_ball(param, velocity, grad, lr, mu=0.9):
    """Of a module, so that it can be pickled."""
    velocity = mu * velocity + grad
    return param - lr * velocity, velocity


def halved(x):
    return TENTH * x / (2 * TENTH)


def unbiased(step, lr, beta=0.5):
    return lr / (1 - beta**step), beta


@nb.rule(prepare=unbiased)
def mean(param, moment, grad, lr, beta):
    moment = beta * moment + (1 - beta) * grad
    return param - lr * moment, moment


# --- accepted -------------------------------------------------------------------------------------


def alone(param, grad, lr):
    return param - lr * grad


def in_tuple(param, grad, lr):
    return (param - lr * grad,)


@nb.rule
def by_a_rule(param, grad, lr):
    return alone_rule(param, grad, lr)


alone_rule = nb.rule(alone)

DESCENT = {
    "function": alone,
    "tuple": in_tuple,
    "rule": alone_rule,
    "called-decorator": nb.rule()(alone),
    "lambda": lambda param, grad, lr: param - lr * grad,
    "numba": numba.njit(alone),
    "rule-that-calls-a-rule": by_a_rule,
    "type-of-the-rule": Rule(alone),
}


FORMS = [
    # Each form is compiled; one form tells of float64 what all of float32 tell.
    pytest.param(form, dtype, marks=[pytest.mark.slow] if dtype == "float64" and form != "function" else [])
    for form in DESCENT
    for dtype in ("float32", "float64")
]


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_every_form_of_one_rule(form, dtype):
    params, plain = small(dtype), small(dtype)
    nb.Optimizer(DESCENT[form], 0.3, params).step(gradients(params))
    nb.optimizer.SGD(0.3, plain).step(gradients(plain))
    assert params.fingerprint() == plain.fingerprint()


def test_a_rule_says_what_it_takes():
    assert (heavy_ball.accumulators, heavy_ball.hyper) == (("velocity",), ("mu",))
    assert heavy_ball.defaults == {"mu": 0.9}
    assert (mean.hyper, mean.reads, mean.defaults) == (("beta",), ("beta",), {"beta": 0.5})
    assert repr(heavy_ball) == "Rule(heavy_ball(param, velocity, grad, lr, mu))"
    assert heavy_ball.__doc__ == "Of a module, so that it can be pickled."
    assert heavy_ball(1.0, 2.0, 3.0, 0.5, 0.5) == (-1.0, 4.0)
    assert Rule(alone) == Rule(alone) != Rule(in_tuple)


def test_defaults_and_groups():
    params = small()
    groups = [{"params": params["w"]}, {"params": params["b"], "mu": 0.25}]
    opt = nb.Optimizer(heavy_ball, parameters=groups)
    assert [group["mu"] for group in opt.param_groups] == [0.9, 0.25]
    opt.param_groups[0]["mu"] = 0.5
    for _ in range(2):
        opt.step({"w": np.ones((2, 3)), "b": np.ones(3)})
    state = opt.state_dict()
    assert_array_equal(state["w.velocity"], np.full((2, 3), 1.5))
    assert_array_equal(state["b.velocity"], np.full(3, 1.25))


def test_a_rule_is_copied_and_pickled_by_its_name():
    params = small()
    opt = nb.Optimizer(heavy_ball, 0.1, params, mu=0.5)
    opt.step(gradients(params))
    for again in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert again._rule is heavy_ball
        assert picture(again._buffer, again)["states"] == picture(params, opt)["states"]
    assert pickle.loads(pickle.dumps(Rule(alone))) == Rule(alone)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(Rule(DESCENT["lambda"]))


def test_numbers_are_those_of_the_dtype_wherever_they_stand():
    """In the rule, a function it calls, a global, a closure; float32 all the way, as NumPy rounds it."""
    third = 1 / 3

    def odd(param, grad, lr):
        return param - lr * (0.7 * grad + third) * halved(grad + 2) ** 2

    params = nb.ParameterBuffer.from_arrays({"w": np.linspace(-1, 1, 50)}, dtype="float32")
    value, grad = params["w"].numpy(), np.linspace(2, 3, 50, dtype=np.float32)
    nb.Optimizer(odd, 0.3, params).step({"w": grad})
    assert_array_equal(params["w"].value, odd(value, grad, np.float32(0.3)), strict=True)


# --- prepare --------------------------------------------------------------------------------------


def test_prepare_runs_once_per_parameter_and_step_in_float64():
    """Each parameter has its own count of steps; what comes out is rounded once."""
    params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [1.0]}, dtype="float32")
    opt = nb.Optimizer(mean, 0.3, params, beta=0.3)
    value, moment, counts = {"w": np.float32(1), "b": np.float32(1)}, dict.fromkeys("wb", np.float32(0)), {}
    for step in range(6):
        grads = {"w": [0.7], "b": None if step in (1, 2) else [0.1]}
        opt.step(grads)
        for name in (name for name in grads if grads[name]):
            counts[name] = counts.get(name, 0) + 1
            lr, beta = unbiased(float(counts[name]), 0.3, float(np.float32(0.3)))
            given = [np.float32(x) for x in (grads[name][0], lr, beta)]
            value[name], moment[name] = mean(value[name], moment[name], *given)
        assert {name: bits(params[name].value[0]) for name in value} == {n: bits(v) for n, v in value.items()}
    assert (opt.state_dict()["w.step"], opt.state_dict()["b.step"]) == (6, 4)


def test_prepare_adds_what_further_arguments_name():
    def both(step, lr, mu):
        return lr, mu, lr + mu + step

    @nb.rule(prepare=both)
    def rule(param, kept, grad, lr, mu, extra):
        return param - extra, kept + mu + lr

    params = nb.ParameterBuffer.from_arrays({"w": [0.0]})
    opt = nb.Optimizer(rule, 0.25, params, mu=0.5)
    assert sorted(set(opt.param_groups[0]) - {"params"}) == [
        *("grad_clip", "learning_rate", "mu", "rescale_grad", "weight_decay")
    ]
    opt.step()
    opt.step()
    assert params["w"].value == -(0.25 + 0.5 + 1) - (0.25 + 0.5 + 2)
    assert opt.state_dict()["w.kept"] == 2 * 0.75


def test_prepare_of_the_rate_alone():
    for returned in ("lr / step", "(lr / step,)"):
        space = {}
        exec(f"def f(step, lr): return {returned}", space)
        params = nb.ParameterBuffer.from_arrays({"w": [0.0]})
        opt = nb.Optimizer(nb.rule(prepare=space["f"])(alone), 1.0, params)
        for _ in range(3):
            opt.step({"w": [1.0]})
        assert params["w"].value == -1 - 1 / 2 - 1 / 3


def test_numbers_of_prepare_stay_float64():
    def shifted(step, lr):
        return lr * (1 + 2.0**-40) - lr

    params = nb.ParameterBuffer.from_arrays({"w": [0.0]}, dtype="float32")
    nb.Optimizer(nb.rule(prepare=shifted)(alone), 1.0, params).step({"w": [1.0]})
    assert params["w"].value == np.float32(-(2.0**-40))


PREPARES = """
    import math
    BASE = 2.0
    def helper(x):
        return x * BASE
    def prepare(step, lr, mu=0.5):
        return lr * math.sqrt(step) / 3.0, helper(mu)
"""


def test_an_edit_of_prepare_changes_the_fingerprint():
    def fingerprint(source):
        space = {}
        exec(textwrap.dedent(source), space)
        rule = Rule(heavy_ball.function, space["prepare"]) if "prepare" in space else heavy_ball
        return compile_step(rule, FLOAT32, False, False).py_func.__name__

    edits = [
        *(("BASE = 2.0", "BASE = 4.0"), ("x * BASE", "x + BASE"), ("math.sqrt", "math.exp")),
        *(("/ 3.0", "/ 5.0"), ("helper(mu)", "mu"), ("prepare", "unused")),
    ]
    names = [fingerprint(PREPARES)]
    for old, new in edits:
        assert old in PREPARES
        names.append(fingerprint(PREPARES.replace(old, new)))
    assert len(set(names)) == len(names)
    assert fingerprint(PREPARES) == names[0]


LONELY = """
import warnings; warnings.simplefilter("error")
import nbopt as nb
space = {"__name__": "no.such.module"}
exec("def helper(x): return 2.0 * x", space)
exec("def rule(param, m, grad, lr): return param - lr * helper(grad), m", space)
params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
nb.Optimizer(space["rule"], 0.25, params).step({"w": [1.0]})
print(params["w"].value)
"""


def test_a_rule_of_no_module_is_loaded_from_disk(tmp_path):
    """As those of a notebook or of a module that has moved; a failure to load would warn."""
    results = [python("-c", LONELY, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert results == ["[0.5]\n"] * 2
    kept = {path.name for path in tmp_path.rglob("*.nbc")}
    assert len(kept) == 1


# --- decay of its own -----------------------------------------------------------------------------


@nb.rule
def decaying(param, grad, lr, weight_decay=0.25):
    return param - lr * weight_decay * param - lr * grad


def test_a_rule_that_takes_weight_decay_decays_itself():
    """Nothing goes into the gradient, but for the regularizer of a parameter, which comes on top."""
    attrs = {"c": nb.ParamAttr(regularizer=nb.regularizer.L2Decay(1.0))}
    params = nb.ParameterBuffer.from_arrays({n: [1.0] for n in "abc"}, attrs=attrs)
    groups = [
        {"params": params["a"]},
        {"params": params["b"], "weight_decay": None},
        {"params": params["c"]},
    ]
    opt = nb.Optimizer(decaying, 0.5, groups)
    assert [group["weight_decay"] for group in opt.param_groups] == [0.25, 0.0, 0.25]
    opt.step()
    assert params.to_vector().tolist() == [1 - 0.125, 1.0, 1 - 0.125 - 0.5]
    opt.param_groups[0]["weight_decay"] = 0.5
    assert nb.Optimizer(decaying, 0.5, params, weight_decay=0.75).param_groups[0]["weight_decay"] == 0.75
    with pytest.raises(TypeError, match="weight_decay must be a number"):
        opt.param_groups[0]["weight_decay"] = nb.regularizer.L2Decay(0.5)
    with pytest.raises(HyperparameterError, match="weight_decay must be a finite number >= 0"):
        nb.Optimizer(decaying, 0.5, params, weight_decay=-1.0)


# --- refused at decoration ------------------------------------------------------------------------

FORM = "def rule(param, <accumulators>, grad, lr, <hyper-parameters>)"
SIGNATURES = {
    "positional": ("def f(param, grad, lr, *rest): ...", f"*rest {FORM}"),
    "keywords": ("def f(param, grad, lr, **rest): ...", f"**rest {FORM}"),
    "keyword-only": ("def f(param, grad, lr, *, mu): ...", f"mu keyword {FORM}"),
    "order": ("def f(param, lr, grad): ...", f"f(param, lr, grad) {FORM}"),
    "arguments-between": ("def f(param, m, grad, mu, lr): ...", FORM),
    "no-rate": ("def f(param, grad): ...", FORM),
    "step-as-an-accumulator": ("def f(param, step, grad, lr): ...", "'step' rename"),
    "class": ("class f: ...", FORM),
}


@pytest.mark.parametrize(("source", "words"), expand("", SIGNATURES))
def test_signature_refused_at_decoration(source, words):
    space = {}
    exec(source, space)
    for decorate in (nb.rule, lambda f: nb.Optimizer(f, parameters=small())):
        with pytest.raises(TypeError) as caught:
            decorate(space["f"])
        assert not [word for word in words.split() if word not in str(caught.value)], caught.value


@pytest.mark.parametrize("value", [0.1, None, "sgd", math.sqrt, np.add, str.upper, [].append])
def test_what_is_no_function_is_no_rule(value):
    with pytest.raises(TypeError, match="function"):
        nb.Optimizer(value, parameters=small())


PREPARED = {
    "order": ("def p(lr, step, mu): ...", "p(lr, step, mu) def p(step, lr, <hyper-parameters>)"),
    "no-step": ("def p(lr, mu): ...", "def p(step, lr,"),
    "other-names": ("def p(step, lr, beta): ...", "def p(step, lr, mu, more) same"),
    "other-order": ("def p(step, lr, more, mu): ...", "def p(step, lr, mu, more)"),
    "positional": ("def p(step, lr, *hyper): ...", "*hyper def p(step, lr, <hyper-parameters>)"),
    "number": ("p = 3.0", "prepare function 3.0"),
}


@pytest.mark.parametrize(("source", "words"), expand("", PREPARED))
def test_prepare_refused_at_decoration(source, words):
    space = {}
    exec(source, space)
    with pytest.raises(TypeError) as caught:

        @nb.rule(prepare=space["p"])
        def rule(param, grad, lr, mu, more): ...

    assert not [word for word in words.split() if word not in str(caught.value)], caught.value


# --- refused when an optimizer is built -----------------------------------------------------------

BODIES = {
    "numpy": ("return param - lr * np.sqrt(grad), m", "np.sqrt write math.sqrt"),
    "numpy-without-a-namesake": ("return np.where(grad > 0, param, m), m", "np.where a if condition else b"),
    "numpy-by-name": ("return param - lr * root(grad), m", "root write math.sqrt"),
    "array": ("return param - lr * TABLE, m", "TABLE ndarray single numbers"),
    "subscript": ("return param - lr * grad[0], m[0]", "single numbers param[i]"),
    "another-module": ("return param - lr * numba.uint8(1), m", "numba.uint8 math"),
    "function-of-a-module": ("return param - draw(), m", "draw neither math"),
    "random-numbers": ("return param - lr * np.random.rand(), m", "f uses np.random same numbers"),
    "print": ("print(grad)\n    return param, m", "f uses print built in abs"),
    "one-result": ("return param - lr * grad", "f must return param, m; it returns float32"),
    "three-results": ("return param, m, grad", "f must return param, m; float32 x 3"),
    "list": ("return [param, m]", "f must return param, m; list"),
    "nothing": ("m = grad", "f must return param, m; nothing"),
    "one-or-two": ("return (param, m) if grad > 0 else param", "f cannot be compiled float32"),
    "text": ("return 'param', m", "new param of f no number"),
    "raise": ("raise ValueError", "f may not raise"),
    "assert": ("assert grad > 0\n    return param, m", "f may not raise"),
    "unknown-name": ("return param - lr * grade, m", "f cannot be compiled 'grade' not defined"),
    "in-a-callee": ("return param - helper(grad), m", "f calls np.exp write math.exp"),
}
WIDENING = {
    "numpy-scalar": "return param - lr * WIDE * grad, m",
    "constant-of-math": "return param - lr * math.pi * grad, m",
    "integer": "return param - lr * math.floor(grad), m",
    "difference-of-comparisons": "return param - lr * ((grad > 0) - (grad < 0)), m",
    "accumulator": "return param, m * WIDE",
}


def made(body, names="param, m, grad, lr"):
    space = {**globals(), "helper": lambda x: np.exp(x), "root": np.sqrt, "draw": random.random}
    exec(f"def f({names}):\n    {body}", space)
    return space["f"]


@pytest.mark.parametrize(("body", "words"), expand("", BODIES))
def test_body_refused_at_construction(body, words):
    params = small("float32")
    refuses(lambda: nb.Optimizer(nb.rule(made(body)), parameters=params), TypeError, words, params)


@pytest.mark.parametrize("body", WIDENING.values(), ids=WIDENING)
def test_what_widens_float32_is_refused(body):
    params = small("float32")
    words = "comes out as float64 where parameters are float32 math.pi 1.0 if a > b else 0.0"
    refuses(lambda: nb.Optimizer(made(body), parameters=params), TypeError, words, params)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize(
    "body",
    [
        "return param - lr * SINGLE * grad, m",
        "return param - lr * (1 if grad > 0 else 0), max(m, 0)",
        "return param - lr * math.copysign(1, grad) * abs(grad) ** 0.5, m",
        "return param - lr * (grad > 0) * grad, m",
        "return (param, m) if grad > 0 else (m, param)",
        "return param, min(m, abs(grad), 2)",
    ],
)
def test_what_does_not_widen_is_accepted(body, dtype):
    check_rule(Rule(made(body)), dtype)


PREPARE_BODIES = {
    "numpy": ("return np.sqrt(lr), mu", "p calls np.sqrt write math.sqrt"),
    "one-result": ("return lr", "p must return lr, mu; it returns float64"),
    "three-results": ("return lr, mu, mu", "p must return lr, mu;"),
    "text": ("return lr, 'mu'", "mu that p returns no number"),
    "raise": ("raise ValueError", "p may not raise"),
    "unknown-name": ("return lr, nu", "p cannot be compiled 'nu' not defined"),
}


@pytest.mark.parametrize(("body", "words"), expand("", PREPARE_BODIES))
def test_body_of_prepare_refused_at_construction(body, words):
    space = {"np": np}
    exec(f"def p(step, lr, mu):\n    {body}", space)
    rule, params = nb.rule(prepare=space["p"])(heavy_ball.function), small()
    refuses(lambda: nb.Optimizer(rule, parameters=params), TypeError, words, params)


def test_a_closure_without_a_value_is_refused():
    def rule(param, grad, lr):
        return param - lr * later

    with pytest.raises(TypeError, match="rule uses later before it has a value"):
        nb.Optimizer(rule, parameters=small())
    later = 1.0


@pytest.mark.parametrize("name", ["learning_rate", "grad_clip", "parameters", "name", "nonfinite"])
def test_a_name_that_the_optimizer_has_is_refused(name):
    rule, params = made("return param", f"param, grad, lr, {name}"), small()
    refuses(lambda: nb.Optimizer(rule, parameters=params), TypeError, f"Optimizer '{name}' rename", params)


def test_hyper_parameters_are_asked_for_by_name():
    params = small()
    rule = made("return param - mu * grad", "param, grad, lr, mu")
    refuses(
        lambda: nb.Optimizer(rule, parameters=params),
        TypeError,
        "Optimizer needs mu=... rule default",
        params,
    )
    unknown, infinite = {"nu": 1.0}, {"mu": math.inf}
    refuses(lambda: nb.Optimizer(heavy_ball, parameters=params, **unknown), TypeError, "'nu' 'mu'", params)
    refuses(
        lambda: nb.Optimizer(heavy_ball, parameters=params, **infinite), HyperparameterError, "mu inf", params
    )


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("name", rules.__all__)
def test_the_rules_of_the_package_pass(name, dtype):
    check_rule(getattr(rules, name), dtype)
