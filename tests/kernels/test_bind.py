"""Rules of any form through the loops, literals in the storage dtype, and fingerprints of every edit."""

import ast
import inspect
import math
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.kernels import intrinsics, normed
from nbopt.kernels.adaptors import adaptors
from nbopt.kernels.bind import Binder, storage_literals
from nbopt.kernels.cpu import compile_step, late, reduce, step
from nbopt.kernels.rule import Rule
from nbopt.kernels.rules import momentum, sgd
from tests.kernels import bits, python

KERNELS = Path(normed.__file__).parent
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
THIRD = 0.3  # a global of a rule


# --- rules of every form --------------------------------------------------------------------------


def shrink(x, by):
    """A function that a rule calls; its literals are literals of the rule."""
    return x - 0.7 * by * x


def signed(param, grad, lr):
    """No accumulator, no hyper-parameter; literals, a global, a branch."""
    if grad > 0.25:
        return (param - lr * THIRD,)
    return (param + 0.1 * lr * grad,)


def averaged(param, mean, grad, lr, rate):
    """One accumulator, one hyper-parameter, and a call."""
    mean = shrink(mean, rate) + rate * grad
    return shrink(param, 0.01) - lr * mean, mean


def three(param, first, second, count, grad, lr, rate, floor):
    """Three accumulators, two hyper-parameters, and math."""
    count = count + 1.0
    first = first + rate * (grad - first)
    second = max(second, abs(grad))
    return param - lr * first / (math.sqrt(second) + floor), first, second, count


def bounded(param, grad, lr, low, high, power=2.0):
    """No accumulator, three hyper-parameters, one with a default."""
    step = min(max(lr * grad, low), high)
    return (param - step * power,)


def whole(param, grad, lr, rate):
    """Whole numbers among the literals: they take the storage dtype like all others."""
    return (param - lr * (1 - rate) * grad / 3 + 2 * grad**2,)


def paired(param, grad, lr):
    """Literals that Python keeps as one tuple."""
    a, b = 0.1, 0.7
    return (param * a - lr * grad * b,)


LARGEST = 5.0  # a name that the kernels have too
TWO = 2


def borrowed(param, grad, lr):
    """Names of the rule's own module, one of which the kernels use."""
    return (param - lr * grad * TWO / LARGEST,)


HYPER = {
    borrowed: {},
    signed: {},
    averaged: {"rate": 0.1},
    three: {"rate": 0.3, "floor": 1e-3},
    bounded: {"low": -0.01, "high": 0.02},
    whole: {"rate": 0.1},
    paired: {},
}


def in_numpy(function, arguments):
    """A rule in plain Python on NumPy scalars, one rounding per operation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(math, "sqrt", np.sqrt)
        return function(*arguments)


@pytest.mark.parametrize("function", HYPER, ids=lambda f: f.__name__)
def test_rules_have_the_bits_of_numpy(function):
    """Five steps in float32; Python numbers are weak in NumPy, so its result is what the rule says."""
    rng = np.random.default_rng(0)
    params = nb.ParameterBuffer.from_arrays({"a": rng.standard_normal(37), "b": [0.5]}, dtype="float32")
    rule = Rule(function)
    opt = nb.Optimizer(rule, 0.1, params, **HYPER[function])
    hyper = [np.float32(HYPER[function].get(name, rule.defaults.get(name))) for name in rule.hyper]
    values = params.numpy()
    held = {n: [np.zeros_like(v) for _ in rule.accumulators] for n, v in values.items()}
    for _ in range(5):
        grads = {n: rng.standard_normal(v.shape).astype(np.float32) for n, v in values.items()}
        opt.step(grads)
        for n, value in values.items():
            for i in range(value.size):
                old = [value[i], *(h[i] for h in held[n]), grads[n][i], np.float32(0.1), *hyper]
                new = in_numpy(function, old)
                assert {x.dtype for x in new} == {FLOAT32}
                for array, x in zip((value, *held[n]), new, strict=True):
                    array[i] = x
    state = opt.state_dict()
    for n, value in values.items():
        assert_array_equal(params[n].value, value)
        for name, array in zip(rule.accumulators, held[n], strict=True):
            assert_array_equal(state[f"{n}.{name}"], array)


def test_a_hyper_parameter_of_a_group_is_its_own():
    params = nb.ParameterBuffer.from_arrays({"a": [1.0], "b": [1.0]}, dtype="float32")
    groups = [{"params": [params["a"]], "high": 0.5}, {"params": [params["b"]], "power": 4.0}]
    opt = nb.Optimizer(Rule(bounded), 1.0, groups, low=-1.0, high=1.0)
    opt.step({"a": [9.0], "b": [9.0]})
    assert_array_equal(params.to_vector(), [0.0, -3.0])


def stand_ins():
    """The arguments of what the loops of every device leave to the rule, by name; read from the source."""
    nodes = (node for p in KERNELS.rglob("*.py") for node in ast.walk(ast.parse(p.read_text("utf-8"))))
    return {
        node.name: [argument.arg for argument in node.args.args]
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        and "Replaced at binding by the rule's" in (ast.get_docstring(node) or "")
    }


@pytest.mark.parametrize("rule", [sgd, momentum, *map(Rule, HYPER)], ids=lambda r: r.name)
def test_adaptors_are_written_for_the_rule(rule):
    found = adaptors(rule)
    assert {name: list(inspect.signature(f).parameters) for name, f in found.items()} == stand_ins()
    held = np.arange(40.0).reshape(4, 10)
    space = found["accumulator_rows"].__globals__
    space.update(element_rows=lambda *_: held, reals=lambda *_: held, storage=float)
    rows = found["accumulator_rows"](None, 2, 5)
    assert [row.tolist() for row in rows] == [held[a, 2:5].tolist() for a in range(len(rule.accumulators))]


@pytest.mark.parametrize(
    "source",
    [
        "def rule(param, velocity, lr, grad): ...",
        "def rule(velocity, param, grad, lr): ...",
        "def rule(param, grad): ...",
        "def rule(param, lr): ...",
        "def rule(): ...",
        "def rule(param, grad, velocity, lr): ...",
    ],
)
def test_other_signatures_are_no_rule(source):
    space = {}
    exec(source, space)
    with pytest.raises(TypeError, match=r"def rule\(param, <accumulators>, grad, lr"):
        Rule(space["rule"])


# --- literals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_storage_literals(dtype):
    def formula(x, flag=True):
        pair = (0.1, (0.2, 7))
        return (0.3 * x if flag else (1 - 0.4 * x) ** 2), pair, "0.5", None

    code = storage_literals(formula.__code__, dtype)
    bound = type(formula)(code, globals(), "formula", (True,))
    (product, pair, text, nothing), power = bound(np.float32(1.0)), bound(np.float32(2.0), False)[0]
    assert bits(product) == bits(dtype.type(0.3) * np.float32(1.0))
    assert bits(power) == bits((dtype.type(1) - dtype.type(0.4) * np.float32(2.0)) ** 2)
    assert [bits(x) for x in (pair[0], *pair[1])] == [bits(dtype.type(x)) for x in (0.1, 0.2, 7)]
    assert (text, nothing) == ("0.5", None)
    assert formula(1.0)[0] == 0.3  # the original keeps its own


# --- fingerprints ---------------------------------------------------------------------------------

ORIGINAL = """
    import math
    A, B = 1.5, 2.5
    def helper(x, y=0.5):
        return x - y
    def other(x, y=0.5):
        return y - x
    def rule(param, velocity, grad, lr, mu=0.9):
        velocity = mu * velocity + math.sqrt(abs(grad)) * A - B
        return param - lr * max(helper(velocity), other(grad)), velocity
"""

EDITS = {
    "literal-of-a-callee": ("return x - y", "return x - y * 2.0"),
    "operator": ("mu * velocity + math", "mu * velocity - math"),
    "function-of-a-module": ("math.sqrt", "math.exp"),
    "builtin": ("max(helper", "min(helper"),
    "globals-exchanged": ("* A - B", "* B - A"),
    "callees-exchanged": ("max(helper(velocity), other(grad))", "max(other(velocity), helper(grad))"),
    "value-of-a-global": ("B = 1.5, 2.5", "B = 1.5, 2.25"),
    "default-of-a-callee": ("def other(x, y=0.5)", "def other(x, y=0.25)"),
    "arguments-exchanged": (
        "rule(param, velocity, grad, lr, mu=0.9)",
        "rule(param, mu, grad, lr, velocity=0.9)",
    ),
}

SAME = {
    "comment": ("return x - y", "return x - y  # the rest"),
    "blank-line": ("    def rule", "\n    def rule"),
    "unused-global": ("A, B = 1.5, 2.5", "A, B, C = 1.5, 2.5, 3.5"),
}


def fingerprint(source, dtype=FLOAT32, normed=False, parallel=False):
    space = {}
    exec(textwrap.dedent(source), space)
    return compile_step(Rule(space["rule"]), dtype, normed, parallel).py_func.__name__


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_the_fingerprint(edit):
    old, new = EDITS[edit]
    assert ORIGINAL.count(old) == 1
    assert fingerprint(ORIGINAL.replace(old, new)) != fingerprint(ORIGINAL)


@pytest.mark.parametrize("edit", SAME)
def test_what_changes_no_code_changes_no_fingerprint(edit):
    old, new = SAME[edit]
    assert ORIGINAL.count(old) == 1
    assert fingerprint(ORIGINAL.replace(old, new)) == fingerprint(ORIGINAL)


def test_every_option_has_its_own_fingerprint():
    options = [
        (rule, dtype, normed, parallel)
        for rule in (sgd, momentum)
        for dtype in (FLOAT32, FLOAT64)
        for normed in (False, True)
        for parallel in (False, True)
    ]
    names = {compile_step(*option).py_func.__name__ for option in options}
    assert len(names) == len(options)
    assert compile_step(*options[0]) is compile_step(*options[0])


def test_a_closure_is_part_of_the_fingerprint():
    def made(by):
        def rule(param, grad, lr):
            return (param - by * lr * grad,)

        return compile_step(Rule(rule), FLOAT32, False, False).py_func.__name__

    assert made(0.5) == made(0.5) != made(0.25)


@pytest.mark.parametrize("rule", [sgd, momentum], ids=lambda r: r.name)
def test_every_function_of_a_kernel_carries_its_fingerprint(rule):
    """Else the linker takes functions of one name, in two kernels that the disk cache holds, for one."""
    lifted = []

    def lift(function, template):
        lifted.append(function)
        return function

    kept = {normed.update_magnitudes, reduce.square_sum, late.update_tile}
    root = Binder(lift, {**adaptors(rule), "NORMED": True}, FLOAT32, "test", kept).bind(step.step)
    digest = root.__name__.removeprefix("step_")
    assert {function.__name__ for function in lifted} >= {function.__name__ for function in kept}
    assert {function.__qualname__ for function in lifted} == {f"{f.__name__}_{digest}" for f in lifted}


def test_a_string_is_part_of_the_fingerprint():
    """A rule may compare with one."""
    source = """
        def rule(param, grad, lr):
            return (param - lr * grad if MODE == "a" else param,)
        MODE = "a"
    """
    assert fingerprint(source) != fingerprint(source.replace('MODE == "a"', 'MODE == "b"'))


def test_what_an_intrinsic_generates_is_part_of_the_fingerprint(monkeypatch):
    before = Binder(lambda f, _: f, {}, FLOAT32).bind(shrink).__name__
    monkeypatch.setattr(intrinsics, "_view", intrinsics._element)
    assert Binder(lambda f, _: f, {}, FLOAT32).bind(shrink).__name__ != before


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_fingerprint_is_the_same_in_another_process(seed):
    script = "from tests.kernels.test_bind import ORIGINAL, fingerprint; print(fingerprint(ORIGINAL))"
    assert python("-c", script, PYTHONHASHSEED=seed).strip() == fingerprint(ORIGINAL)


def test_a_tree_is_copied_once_and_its_names_replaced():
    lifted = []

    def lift(function, template):
        lifted.append(template.__name__)
        return function

    def bound(module="nbopt.kernels.test", **replacements):
        root = type(averaged)(averaged.__code__, averaged.__globals__, "averaged")
        root.__module__ = module
        return Binder(lift, replacements, FLOAT32, "test").bind(root)

    plain = bound()
    assert lifted == ["shrink"]
    assert plain is not averaged
    assert plain.__name__.startswith("averaged_")
    assert plain(1.0, 0.0, 1.0, 0.1, 0.5) == pytest.approx(averaged(1.0, 0.0, 1.0, 0.1, 0.5), rel=1e-6)
    replaced = bound(shrink=lambda x, by: x)
    assert replaced(1.0, 0.0, 1.0, 0.0, 0.5) == (1.0, 0.5)
    assert replaced.__name__ != plain.__name__ == bound().__name__
    assert averaged.__globals__["shrink"] is shrink
    # A name of the user's own is not replaced.
    kept = bound("user", shrink=lambda x, by: x)
    assert kept(1.0, 0.0, 1.0, 0.0, 0.5) == plain(1.0, 0.0, 1.0, 0.0, 0.5)
