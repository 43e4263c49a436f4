"""Inlining: the flat code computes what the calls computed, and calls that must stay do."""

import math
import types

import pytest

from nbopt.kernels import flatten as flattening
from nbopt.kernels.flatten import flatten, has_source

ON, OFF, SIZE = True, False, 4


def double(x):
    """A single expression."""
    return x + x


def sign(x):
    """Returns in every branch."""
    if x > 0:
        return 1.0
    elif x < 0:
        return -1.0
    return 0.0


def early(x, y):
    """A return before the end."""
    if x > y:
        y = x - y
        return y, x
    x = y - x
    y = double(y)
    return x, y


def halve(x):
    """Changes its argument."""
    while x > 1:
        x = x / 2
    return x


def add(values, x):
    """Has an effect and no value."""
    values.append(x)
    for i in range(SIZE):
        values[0] += i * x


def found(values, x):
    """Returns from a loop."""
    for value in values:
        if value == x:
            return value
    return None


def root_expression(x, y):
    return double(double(x) + y) * math.floor(double(y))


def root_branches(x, y):
    return sign(x) * 3 + sign(x - y)


def root_tuple(x, y):
    a, b = early(x, y)
    b, a = early(a, b)
    return a, b, x, y


def root_argument_kept(x, y):
    z = halve(x) + x
    for _ in range(3):
        z += halve(z) + double(y)
    return x, z


def root_effects(x, y):
    values = [x]
    add(values, y)
    add(values, double(y))
    return values


def root_loop_return(x, y):
    return found([1, x, 3], y), found((x,), x)


def root_operands(x, y):
    if (x > y and sign(x) > 0) or double(y) > 3:
        return halve(x) if x > 2 else sign(y)
    while double(x) < y and sign(x) < 2:
        x += 1
    return x


def root_constants(x, y):
    z = 0
    if OFF or (ON and SIZE == 5):
        z = undefined  # noqa: F821
    elif not OFF:
        z = double(x) if SIZE - 2 == 2 else undefined  # noqa: F821
    if ON or sign(x) > 0:
        z += y
    return z


ROOTS = [value for name, value in list(globals().items()) if name.startswith("root_")]
STAYS = {root_loop_return: {"found"}, root_operands: {"sign", "halve"}}


def flat(function, is_inlined=lambda _: True):
    """The flat function, and the names of the functions that it still calls."""
    values = {}

    def resolve(inner, name):
        values[f"{name}_global"] = inner.__globals__[name]
        return inner.__globals__[name], f"{name}_global"

    code = flatten(function, resolve, is_inlined)
    called = {values[n].__name__ for n in code.co_names if isinstance(values.get(n), types.FunctionType)}
    return types.FunctionType(code, {"__builtins__": __builtins__, **values}), called


@pytest.mark.parametrize("root", ROOTS, ids=lambda f: f.__name__)
def test_the_flat_function_computes_the_same(root):
    function, called = flat(root)
    assert called == STAYS.get(root, set())
    for x in (-2.5, -1, 0, 0.5, 1, 3, 8):
        for y in (-3, 0, 1.5, 3, 7):
            assert function(x, y) == root(x, y)


def test_only_what_may_be_is_inlined():
    function, called = flat(root_expression, lambda inner: inner is not double)
    assert called == {"double"}
    assert function(1.0, 2.0) == root_expression(1.0, 2.0)


def test_a_name_means_what_its_own_module_says():
    other = {"double": lambda x: x * 100, "SIZE": 2}
    text = "def called(x):\n    return double(x) + SIZE"
    exec(text, other)
    other["called"].source = text

    def root(x):
        return called(x) + double(x) + SIZE  # noqa: F821

    root = types.FunctionType(root.__code__, {**globals(), "called": other["called"]}, "root")
    values = {}

    def resolve(inner, name):
        value = inner.__globals__[name]
        unique = f"{name}_{id(value)}"
        values[unique] = value
        return value, unique

    code = flatten(root, resolve, lambda inner: inner is other["called"])
    assert types.FunctionType(code, values)(1.0) == 100 + 2 + 2 + 4


def test_a_function_without_source_is_known():
    space = {}
    exec("def hidden(x):\n    return x", space)
    assert not has_source(space["hidden"])
    assert has_source(double)


def loop_with_else(x):
    for _ in range(3):
        x += 1
    else:
        x = 0
    return x


def keyword(x):
    return double(x=x)


@pytest.mark.parametrize("function", [loop_with_else, keyword], ids=lambda f: f.__name__)
def test_forms_that_would_go_wrong_are_refused(function):
    with pytest.raises(AssertionError, match="not flattened"):
        flat(function)


def test_nothing_of_a_tree_is_changed():
    before = flattening.ast.dump(flattening._definition(early))
    flat(root_tuple)
    assert flattening.ast.dump(flattening._definition(early)) == before
