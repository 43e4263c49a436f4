"""Inlining of plain functions at the level of their source.

Numba infers, lowers and optimises every function by itself, and once more in each function that calls it. So
a kernel that is written as many small functions takes many times as long to compile as one written as a few
long ones. `flatten` turns the former into the latter: a call becomes the body of what it calls, with names of
its own. What is computed stays the same; the effects of an inlined call come before the rest of its
statement.

A call can become a body if each ``return`` in it ends it, outside of loops. Where a call may be left out (in
``and``, ``or``, ``a if b else c``) or repeated (the test of ``while``), only an expression can take its
place. Other calls stay. Branches that a constant rules out are dropped.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import textwrap
import types
from collections.abc import Callable
from typing import Any

__all__ = ["flatten", "has_source"]

# The value of a global name of a function, and a name for it that is one in the whole tree.
Resolve = Callable[[types.FunctionType, str], tuple[Any, str]]
Names = dict[str, ast.expr]


def flatten(
    function: types.FunctionType,
    resolve: Resolve,
    is_inlined: Callable[[types.FunctionType], bool],
) -> types.CodeType:
    """Return the code of `function` with its calls of plain functions inlined, where they can be.

    Parameters
    ----------
    function : function
        With positional arguments only, and no closure.
    resolve : callable
        ``resolve(function, name)`` returns the value of a global name, and what to call it in the result;
        a KeyError means a builtin. Numbers and truth values are written out.
    is_inlined : callable
        Whether calls of a function may be inlined.
    """
    definition = copy.deepcopy(_definition(function))
    names: Names = {name: _name(name) for name in _locals(definition)}
    definition.body = _Flattener(resolve, is_inlined).block(function, definition.body, names)
    module = ast.fix_missing_locations(ast.Module([definition], []))
    code = compile(module, function.__code__.co_filename, "exec")
    return next(part for part in code.co_consts if isinstance(part, types.CodeType))


@functools.cache
def has_source(function: types.FunctionType) -> bool:
    """Whether the source of a function can be had; an installation may have left it out."""
    try:
        _definition(function)
    except (OSError, TypeError):
        return False
    return True


@functools.cache
def _definition(function: types.FunctionType) -> ast.FunctionDef:
    """The definition of a function, without its docstring; not to be changed."""
    text = getattr(function, "source", None) or inspect.getsource(function)
    definition = ast.parse(textwrap.dedent(text)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    ast.increment_lineno(definition, function.__code__.co_firstlineno - 1)
    if ast.get_docstring(definition) is not None:
        definition.body = definition.body[1:] or [ast.Pass()]
    return definition


class _Flattener:
    """Builds flat statements; the local names of each inlined call carry its number."""

    def __init__(self, resolve: Resolve, is_inlined: Callable[[types.FunctionType], bool]):
        self.resolve = resolve
        self.is_inlined = is_inlined
        self._count = 0

    def block(self, function: types.FunctionType, statements: list[ast.stmt], names: Names) -> list[ast.stmt]:
        """Flatten statements of `function`, whose local names became `names`."""
        flat: list[ast.stmt] = []
        for statement in statements:
            flat += _Statement(self, function, names).flat(copy.deepcopy(statement))
        return flat or [ast.Pass()]

    def call(
        self, function: types.FunctionType, arguments: list[ast.expr], certain: bool
    ) -> tuple[list[ast.stmt], ast.expr] | None:
        """Return what runs before a call, and its value; None to keep a call that is not `certain` to run."""
        definition = _definition(function)
        first = definition.body[0]
        is_expression = isinstance(first, ast.Return)
        atoms = all(isinstance(argument, (ast.Name, ast.Constant)) for argument in arguments)
        self._count += 1
        value = _name(f"value__{self._count}")
        body = [first] if is_expression else _ended(definition.body, value)
        if body is None or not (certain or (is_expression and atoms)):
            return None
        names: Names = {name: _name(f"{name}__{self._count}") for name in _locals(definition)}
        names[value.id] = value
        changed = _changed(definition)
        before: list[ast.stmt] = []
        for parameter, argument in zip(definition.args.args, arguments, strict=True):
            if isinstance(argument, (ast.Name, ast.Constant)) and parameter.arg not in changed:
                names[parameter.arg] = argument
            else:
                before.append(ast.Assign([_stored(names[parameter.arg])], argument))
        if isinstance(first, ast.Return) and first.value is not None:
            statement = _Statement(self, function, names, certain)
            result = statement.visit(copy.deepcopy(first.value))
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

    def visit_If(self, node: ast.If) -> Any:
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            return self._block(node.body if node.test.value else node.orelse)
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        return node

    def visit_For(self, node: ast.For) -> Any:
        assert not node.orelse, "the else of a loop is not flattened"
        node.iter, node.target = self.visit(node.iter), self.visit(node.target)
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
        return _folded(node, node.operand)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        node.left, node.right = self.visit(node.left), self.visit(node.right)
        return _folded(node, node.left, node.right)

    def visit_Compare(self, node: ast.Compare) -> Any:
        self.generic_visit(node)
        return _folded(node, node.left, *node.comparators)

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self._names:
            new = self._names[node.id]
            return _stored(new) if isinstance(node.ctx, ast.Store) else new
        try:
            value, name = self._flattener.resolve(self._function, node.id)
        except KeyError:
            return node
        return ast.Constant(value) if type(value) in (bool, int, float) else _name(name)

    def visit_Call(self, node: ast.Call) -> Any:
        assert not node.keywords, "arguments by keyword are not flattened"
        called = node.func
        node.args = [self.visit(argument) for argument in node.args]
        if isinstance(called, ast.Name) and called.id not in self._names:
            try:
                function, _ = self._flattener.resolve(self._function, called.id)
            except KeyError:
                return node
            if isinstance(function, types.FunctionType) and self._flattener.is_inlined(function):
                inlined = self._flattener.call(function, node.args, self._certain)
                if inlined is not None:
                    self.before += inlined[0]
                    return inlined[1]
        node.func = self.visit(called)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        node.value = self.visit(node.value)
        # The value of an inlined call; a function without one has none to read.
        return [] if isinstance(node.value, (ast.Name, ast.Constant)) else node


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _stored(name: ast.expr) -> ast.Name:
    assert isinstance(name, ast.Name)
    return ast.Name(name.id, ast.Store())


def _folded(node: ast.expr, *operands: ast.expr) -> ast.expr:
    """The value of an operation on constants, or the operation."""
    if not all(isinstance(operand, ast.Constant) for operand in operands):
        return node
    return ast.Constant(eval(compile(ast.fix_missing_locations(ast.Expression(node)), "", "eval")))


def _changed(definition: ast.FunctionDef) -> set[str]:
    """The names that a function assigns."""
    return {
        node.id
        for node in ast.walk(definition)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _locals(definition: ast.FunctionDef) -> set[str]:
    return _changed(definition) | {argument.arg for argument in definition.args.args}


def _returns(*statements: ast.stmt) -> bool:
    return any(isinstance(node, ast.Return) for part in statements for node in ast.walk(part))


def _ends(statements: list[ast.stmt]) -> bool:
    """Whether every way through ends with a return."""
    last = statements[-1] if statements else None
    return isinstance(last, ast.Return) or (
        isinstance(last, ast.If) and _ends(last.body) and _ends(last.orelse)
    )


def _ended(statements: list[ast.stmt], value: ast.Name) -> list[ast.stmt] | None:
    """The body of a function with `value` assigned where it returned; None where that cannot be."""
    done: list[ast.stmt] = []
    for index, statement in enumerate(statements):
        rest = statements[index + 1 :]
        if isinstance(statement, ast.Return):
            return done + ([ast.Assign([_stored(value)], statement.value)] if statement.value else [])
        if not _returns(statement):
            done.append(statement)
            continue
        if not isinstance(statement, ast.If) or not (_ends(statement.body) or _ends(statement.orelse)):
            return None
        first = _ended(statement.body if _ends(statement.body) else statement.body + rest, value)
        second = _ended(statement.orelse if _ends(statement.orelse) else statement.orelse + rest, value)
        if first is None or second is None:
            return None
        return [*done, ast.If(statement.test, first or [ast.Pass()], second)]
    return done
