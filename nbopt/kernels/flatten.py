"""Inlining of plain functions at the level of their source.

Numba infers, lowers and optimises every function by itself, and once more in each function that calls it. So
a kernel that is written as many small functions takes many times as long to compile as one written as a few
long ones. `flatten` turns the former into the latter: a call becomes the body of what it calls, with names of
its own. What is computed stays the same; the effects of an inlined call come before the rest of its
statement.

Calls that only look something up are made once, at the head of the function, or of the body of a loop over
`prange`, whose threads had better not share what lies outside.

A call can become a body if each ``return`` in it ends it, outside of loops. Where a call may be left out (in
``and``, ``or``, ``a if b else c``) or repeated (the test of ``while``), only an expression can take its
place. Other calls stay. Branches that a constant rules out are dropped.
"""

from __future__ import annotations

import ast
import copy
import types
from collections.abc import Callable, Container
from typing import Any, NamedTuple

from nbopt.kernels.syntax import (
    definition_of,
    ended,
    folded,
    is_atom,
    is_single,
    load,
    names_in,
    names_of,
    names_stored,
    names_stored_once,
    store,
    width_of,
)

__all__ = ["Views", "flatten"]

Resolve = Callable[[types.FunctionType, str], Any]
Literal = Callable[[types.FunctionType, Any], Any]
Names = dict[str, ast.expr]

# How the names of views, and of values that are assigned nowhere else, begin.
_VIEW, _VALUE = "view__", "value__"


class Views(NamedTuple):
    """What is known of calls that only look up an array.

    Such a call gives the same whenever it is made, so that one will do. An element of a 2-D array that was
    looked up is read and written by functions of few instructions: to Numba, an index is anything.
    """

    functions: Container[Any] = ()
    read: Any = None  # read(array, i, j)
    write: Any = None  # write(array, i, j, value)


def flatten(
    function: types.FunctionType,
    resolve: Resolve,
    is_inlined: Callable[[types.FunctionType], bool],
    views: Views | None = None,
    literal: Literal = lambda function, value: value,
) -> tuple[types.CodeType, dict[str, Any]]:
    """Return the code of `function` with its calls of plain functions inlined, and the globals it names.

    Parameters
    ----------
    function : function
        With positional arguments only, and no closure.
    resolve : callable
        ``resolve(function, name)`` returns the value of a global name; a KeyError means a builtin. Numbers
        and truth values are written out.
    is_inlined : callable
        Whether calls of a function may be inlined.
    views : Views, optional
        What is known of calls that only look up an array.
    literal : callable
        ``literal(function, number)`` returns what a number that is written in a function stands for.
    """
    definition = copy.deepcopy(definition_of(function))
    names: Names = {name: load(name) for name in names_of(definition)}
    flattener = _Flattener(resolve, is_inlined, views or Views(), literal)
    definition.body = flattener.scope(function, definition.body, names)
    module = ast.fix_missing_locations(ast.Module([definition], []))
    code = compile(module, function.__code__.co_filename, "exec")
    found = next(part for part in code.co_consts if isinstance(part, types.CodeType))
    return found, {name: value for name, value in flattener.values.items() if name in found.co_names}


class _Flattener:
    """Builds flat statements; the local names of each inlined call carry its number."""

    def __init__(
        self,
        resolve: Resolve,
        is_inlined: Callable[[types.FunctionType], bool],
        views: Views,
        literal: Literal,
    ):
        self.resolve = resolve
        self.is_inlined = is_inlined
        self.views = views
        self.literal = literal
        self.values: dict[str, Any] = {}
        self._known: dict[int, str] = {}
        self._count = 0
        self._views: dict[str, tuple[Any, ast.Call]] = {}  # of the innermost scope, by their text

    def name_of(self, value: Any, hint: str) -> ast.Name:
        """The one name of a global value in the result."""
        name = self._known.setdefault(id(value), f"{hint}_{len(self._known)}_")
        self.values[name] = value
        return load(name)

    def scope(self, function: types.FunctionType, statements: list[ast.stmt], names: Names) -> list[ast.stmt]:
        """Flatten statements and make their views before them, once what they look at has a name."""
        outer, self._views = self._views, {}
        flat = self.block(function, statements, names)
        views, self._views = self._views, outer
        given = {name for _, call in views.values() for name in names_in(call)}
        first = max((i + 1 for i, statement in enumerate(flat) if given & names_stored(statement)), default=0)
        made: list[ast.stmt] = [ast.Assign([store(name)], call) for name, call in views.values()]
        return flat[:first] + made + flat[first:]

    def view(self, call: ast.Call) -> ast.expr:
        """The name of a view that is made at the head of the scope."""
        name: ast.expr
        name, _ = self._views.setdefault(ast.unparse(call), (self.temporary(_VIEW), call))
        return name

    def temporary(self, kind: str, width: int = 0) -> Any:
        """A new name, or a tuple of `width` new names."""
        self._count += 1
        name = f"{kind}{self._count}"
        if not width:
            return load(name)
        return ast.Tuple([load(f"{name}_{i}") for i in range(width)], ast.Load())

    def block(self, function: types.FunctionType, statements: list[ast.stmt], names: Names) -> list[ast.stmt]:
        """Flatten statements of `function`, whose local names became `names`; they are changed."""
        flat: list[ast.stmt] = []
        for statement in statements:
            flat += _Statement(self, function, names).flat(statement)
        return flat or [ast.Pass()]

    def call(
        self, function: types.FunctionType, arguments: list[ast.expr], certain: bool
    ) -> tuple[list[ast.stmt], ast.expr] | None:
        """Return what runs before a call, and its value; None to keep a call that is not `certain` to run."""
        definition = copy.deepcopy(definition_of(function))
        first = definition.body[0]
        is_expression = isinstance(first, ast.Return)
        atoms = all(map(is_atom, arguments))
        value = self.temporary(_VALUE, width_of(definition))
        body = [first] if is_expression else ended(definition.body, value)
        if body is None or not (certain or (is_expression and atoms)):
            return None
        names: Names = {name: load(f"{name}__{self._count}") for name in names_of(definition)}
        names.update({name: load(name) for name in names_in(value)})
        changed = names_stored(definition)
        before: list[ast.stmt] = []
        for parameter, argument in zip(definition.args.args, arguments, strict=True):
            if is_atom(argument) and parameter.arg not in changed:
                names[parameter.arg] = argument
            else:
                before.append(ast.Assign([store(names[parameter.arg])], argument))
        if isinstance(first, ast.Return) and first.value is not None:
            statement = _Statement(self, function, names, certain)
            result = statement.visit(first.value)
            return before + statement.before, result
        return before + self.block(function, body, names), value


class _Statement(ast.NodeTransformer):
    """Flattens one statement: renames, writes out constants, drops dead branches, inlines calls."""

    def __init__(
        self, flattener: _Flattener, function: types.FunctionType, names: Names, certain: bool = True
    ):
        self._flattener = flattener
        self._function = function
        self._names = names
        self._certain = certain
        self._once = names_stored_once(function)
        self.before: list[ast.stmt] = []

    def flat(self, statement: ast.stmt) -> list[ast.stmt]:
        """Return the statements that take its place."""
        new = self.visit(statement)
        return self.before + (new if isinstance(new, list) else [new])

    def _block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        return self._flattener.block(self._function, statements, self._names)

    def _perhaps(self, node: ast.expr) -> Any:
        """Visit what may run, or run several times."""
        certain, self._certain = self._certain, False
        new = self.visit(node)
        self._certain = certain
        return new

    def visit_Assign(self, node: ast.Assign) -> Any:
        (target,) = node.targets
        value = self.visit(node.value)
        if isinstance(target, ast.Tuple):
            if isinstance(value, ast.Tuple):
                return self._spread(target.elts, value.elts)
            items = self._flattener.temporary(_VALUE, len(target.elts))
            return [ast.Assign([store(items)], value), *self._spread(target.elts, items.elts)]
        if isinstance(value, ast.Tuple) and isinstance(target, ast.Name) and target.id in self._once:
            items = self._flattener.temporary(_VALUE, len(value.elts))
            self._names[target.id] = items
            return [ast.Assign([store(item)], v) for item, v in zip(items.elts, value.elts, strict=True)]
        return self._assigned(target, value)

    def _assigned(self, target: ast.expr, value: ast.expr) -> list[ast.stmt]:
        """Assign to what was not visited yet; or let its name stand for a value that will not change."""
        if isinstance(target, ast.Name) and target.id in self._once and _is_lasting(value):
            self._names[target.id] = value
            return []
        target = self.visit(target)
        if isinstance(target, ast.Call):  # reads an element
            return [ast.Expr(self._call(self._flattener.views.write, *target.args, value))]
        same = isinstance(target, ast.Name) and isinstance(value, ast.Name) and target.id == value.id
        return [] if same else [ast.Assign([target], value)]

    def _spread(self, targets: list[ast.expr], values: list[ast.expr]) -> list[ast.stmt]:
        """One assignment for each item; by way of others, where one could change what a later one reads."""
        flat: list[ast.stmt] = []
        later = set[str]().union(*map(names_in, values[1:]))
        safe = all(isinstance(t, ast.Name) and self.visit(copy.deepcopy(t)).id not in later for t in targets)
        for i, value in enumerate(values):
            if not safe and not isinstance(value, ast.Constant) and not _is_lasting(value):
                values[i] = self._flattener.temporary(_VALUE)
                flat.append(ast.Assign([store(values[i])], value))
        for target, value in zip(targets, values, strict=True):
            flat += self._assigned(target, value)
        return flat

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        value, target = self.visit(node.value), self.visit(node.target)
        if isinstance(target, ast.Call):
            new = ast.BinOp(copy.deepcopy(target), node.op, value)
            return ast.Expr(self._call(self._flattener.views.write, *target.args, new))
        return ast.AugAssign(target, node.op, value)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        self.generic_visit(node)
        array, index = node.value, node.slice
        if isinstance(array, ast.Tuple) and isinstance(index, ast.Constant) and type(index.value) is int:
            return array.elts[index.value]
        if not isinstance(index, ast.Tuple) or any(isinstance(part, ast.Slice) for part in index.elts):
            return node
        if not isinstance(array, ast.Name) or not array.id.startswith(_VIEW):
            return node
        return self._call(self._flattener.views.read, array, *index.elts)

    def _call(self, function: Any, *arguments: ast.expr) -> ast.Call:
        return ast.Call(self._flattener.name_of(function, "element"), list(arguments), [])

    def visit_If(self, node: ast.If) -> Any:
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            return self._block(node.body if node.test.value else node.orelse)
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        return node

    def visit_For(self, node: ast.For) -> Any:
        assert not node.orelse, "the else of a loop is not flattened"
        node.iter = self.visit(node.iter)
        if isinstance(node.target, ast.Name) and is_single(node):
            # One turn needs no loop, and its number is known.
            name, number = self._names[node.target.id], node.iter.args[0]  # type: ignore[attr-defined]
            self._names[node.target.id] = number
            flat = [ast.Assign([store(name)], number), *self._block(node.body)]
            self._names[node.target.id] = name
            return flat
        node.target = self.visit(node.target)
        if isinstance(node.iter, ast.Call) and "prange" in ast.unparse(node.iter.func):
            node.body = self._flattener.scope(self._function, node.body, self._names)
        else:
            node.body = self._block(node.body)
        return node

    def visit_While(self, node: ast.While) -> Any:
        assert not node.orelse, "the else of a loop is not flattened"
        node.test, node.body = self._perhaps(node.test), self._block(node.body)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        absorbing = isinstance(node.op, ast.Or)
        values: list[ast.expr] = []
        for value in node.values:
            new = self._perhaps(value) if values else self.visit(value)
            if not isinstance(new, ast.Constant):
                values.append(new)
            elif bool(new.value) is absorbing:
                values.append(new)
                break
        if not values:
            return ast.Constant(not absorbing)
        return ast.BoolOp(node.op, values) if len(values) > 1 else values[0]

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self.visit(node.body if test.value else node.orelse)
        return ast.IfExp(test, self._perhaps(node.body), self._perhaps(node.orelse))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        node.operand = self.visit(node.operand)
        return folded(node, node.operand)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        node.left, node.right = self.visit(node.left), self.visit(node.right)
        return folded(node, node.left, node.right)

    def visit_Compare(self, node: ast.Compare) -> Any:
        self.generic_visit(node)
        return folded(node, node.left, *node.comparators)

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self._names:
            new = self._names[node.id]
            return store(new) if isinstance(node.ctx, ast.Store) else new
        try:
            value = self._flattener.resolve(self._function, node.id)
        except KeyError:
            return node
        if type(value) in (bool, int, float):
            return ast.Constant(value)
        return self._flattener.name_of(value, node.id)

    def visit_Constant(self, node: ast.Constant) -> Any:
        value = self._flattener.literal(self._function, node.value)
        return node if value is node.value else self._flattener.name_of(value, "literal")

    def visit_Call(self, node: ast.Call) -> Any:
        assert not node.keywords, "arguments by keyword are not flattened"
        called = node.func
        node.args = [self.visit(argument) for argument in node.args]
        if isinstance(called, ast.Name) and called.id not in self._names:
            try:
                function = self._flattener.resolve(self._function, called.id)
            except KeyError:
                return node
            if isinstance(function, types.FunctionType) and self._flattener.is_inlined(function):
                inlined = self._flattener.call(function, node.args, self._certain)
                if inlined is not None:
                    self.before += inlined[0]
                    return inlined[1]
            if function in self._flattener.views.functions:
                node.func = self.visit(called)
                return self._flattener.view(node)
        node.func = self.visit(called)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        node.value = self.visit(node.value)
        # The value of an inlined call; a function without one has none to read.
        return [] if isinstance(node.value, (ast.Name, ast.Constant)) else node


def _is_lasting(node: ast.expr) -> bool:
    """Whether an expression is a name of ours that means the same until it is assigned anew, in its place."""
    return isinstance(node, ast.Name) and node.id.startswith((_VIEW, _VALUE))
