"""Inlining: the flat code computes what the calls computed, and calls that must stay do."""

import ast
import dis
import math
import types

import pytest

from nbopt.kernels.flatten import Views, flatten
from nbopt.kernels.syntax import definition_of, has_source

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


def root_one_turn(x, y):
    total = 0
    for b in range(SIZE, SIZE + 1):
        total += b * x
        for i in range(b, b + 2):
            total += i * y
    for b in range(2, 3):
        if y > 1:
            break
        total += b
    for b in range(SIZE, SIZE):
        total += 100 * b
    for b in range(1, 2):
        total += b
    return total + b


ROOTS = [value for name, value in list(globals().items()) if name.startswith("root_")]
STAYS = {root_loop_return: {"found"}, root_operands: {"sign", "halve"}}


def meaning(function, name):
    return function.__globals__[name]


def flat(function, is_inlined=lambda _: True, **options):
    """The flat function, and the names of the functions that it still calls."""
    code, values = flatten(function, meaning, is_inlined, **options)
    called = {value.__name__ for value in values.values() if isinstance(value, types.FunctionType)}
    return types.FunctionType(code, {"__builtins__": __builtins__, **values}), called


@pytest.mark.parametrize("root", ROOTS, ids=lambda f: f.__name__)
def test_the_flat_function_computes_the_same(root):
    function, called = flat(root)
    assert called == STAYS.get(root, set())
    for x in (-2.5, -1, 0, 0.5, 1, 3, 8):
        for y in (-3, 0, 1.5, 3, 7):
            assert function(x, y) == root(x, y)


def test_one_turn_needs_no_loop():
    function, _ = flat(root_one_turn)
    loops = [i.opname for i in dis.get_instructions(function)].count("FOR_ITER")
    assert loops == 3  # of five: not the first and the last


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
    code, values = flatten(root, meaning, lambda inner: inner is other["called"])
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
    before = ast.dump(definition_of(early))
    flat(root_tuple)
    assert ast.dump(definition_of(early)) == before


# --- tuples ---------------------------------------------------------------------------------------


def root_swap(x, y):
    x, y = y, x
    x, y, z = y + 1, x, x + y
    return x, y, z


def both(x, y):
    return (x + y, x - y) if ON else (x, y)


def either(x, y):
    if x > y:
        return y, x
    return x, y


def root_returned_tuples(x, y):
    low, high = either(x, y)
    pair = either(high, low)
    values = [0, 0]
    values[0], values[1] = either(pair[1], pair[0])
    values[0], values[1] = values[1], values[0]
    return low, high, pair, values, both(x, y)


def root_tuple_kept_over_a_loop(x, y):
    total = 0
    for i in range(3):
        pair = (total, i + x)
        total = pair[0] + pair[1] * y
    return total


@pytest.mark.parametrize("root", [root_swap, root_returned_tuples, root_tuple_kept_over_a_loop])
def test_a_tuple_is_taken_apart(root):
    function, _ = flat(root)
    for x, y in ((1, 2), (2, 1), (3, 3)):
        assert function(x, y) == root(x, y)


def test_no_tuple_is_built_where_none_is_asked_for():
    function, _ = flat(root_swap)
    built = [i.opname for i in dis.get_instructions(function)].count("BUILD_TUPLE")
    assert built == 1  # what it returns


# --- views ----------------------------------------------------------------------------------------


READS = []


def look(tables, index):
    READS.append(index)
    return tables[index]


def read(array, i, j):
    return array[i][j]


def write(array, i, j, value):
    array[i][j] = value


def row_sum(i, tables):
    table = look(tables, 1)
    return table[i, 0] + table[i, 1]


def root_view(given):
    tables = given
    total = look(tables, 2)[0, 0]
    for i in range(2):
        total += row_sum(i, tables)
        look(tables, 2)[i, 1] = total
        look(tables, 2)[0, 0] += 1
    return total


def prange(count):
    return range(count)


def root_prange(tables):
    total = look(tables, 2)[0, 0]
    for i in prange(2):
        total += row_sum(i, tables)
    return total


VIEWS = Views({look}, read, write)


def is_called(function):
    return function not in (look, read, write, prange)


@pytest.mark.parametrize(("root", "expected"), [(root_view, [2, 1]), (root_prange, [2, 1, 1])])
def test_a_view_is_made_once_where_its_scope_begins(root, expected):
    function, _ = flat(root, is_called, views=VIEWS)
    READS.clear()
    total = 5 + 10 + 20 + 30 + 40
    tables = {1: [[10, 20], [30, 40]], 2: [[5, 0], [0, 0]]}
    assert function(tables) == total
    assert expected == READS
    if root is root_view:
        assert tables[2] == [[7, 5 + 10 + 20], [0, total]]


def test_literals_are_what_they_are_said_to_be():
    function, _ = flat(root_expression, literal=lambda inner, value: value * 2 if inner is early else value)
    assert function(1.0, 2.0) == root_expression(1.0, 2.0)
    doubled, _ = flat(sign, literal=lambda inner, value: value * 2)
    assert doubled(3.0) == 2.0
