"""Pieces of syntax trees, and questions about them."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import textwrap
import types
from collections import Counter

__all__ = [
    "definition_of",
    "ended",
    "folded",
    "has_source",
    "is_atom",
    "is_single",
    "load",
    "names_in",
    "names_of",
    "names_stored",
    "names_stored_once",
    "store",
    "width_of",
]


@functools.cache
def has_source(function: types.FunctionType) -> bool:
    """Whether the source of a function can be had; an installation may have left it out."""
    try:
        definition_of(function)
    except (OSError, TypeError):
        return False
    return True


@functools.cache
def definition_of(function: types.FunctionType) -> ast.FunctionDef:
    """The definition of a function, without its docstring; not to be changed."""
    text = getattr(function, "source", None) or inspect.getsource(function)
    definition = ast.parse(textwrap.dedent(text)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    ast.increment_lineno(definition, function.__code__.co_firstlineno - 1)
    if ast.get_docstring(definition) is not None:
        definition.body = definition.body[1:] or [ast.Pass()]
    return definition


def load(name: str) -> ast.Name:
    """A name that is read."""
    return ast.Name(name, ast.Load())


def store(value: ast.expr) -> ast.expr:
    """A name, or a tuple of names, as a target."""
    if isinstance(value, ast.Tuple):
        return ast.Tuple([store(name) for name in value.elts], ast.Store())
    assert isinstance(value, ast.Name)
    return ast.Name(value.id, ast.Store())


def is_atom(node: ast.expr) -> bool:
    """Whether an expression can stand in place of a variable."""
    return isinstance(node, (ast.Name, ast.Constant)) or (
        isinstance(node, ast.Tuple) and all(map(is_atom, node.elts))
    )


def is_single(loop: ast.For) -> bool:
    """Whether a loop takes one turn, over a range of constants, from the first statement to the last."""
    call = loop.iter
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "range":
        return False
    bounds = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    whole = len(bounds) == len(call.args) == 2 and bounds[1] == bounds[0] + 1  # type: ignore[operator]
    inner = (node for statement in loop.body for node in ast.walk(statement))
    return whole and not any(isinstance(node, (ast.Break, ast.Continue)) for node in inner)


def folded(node: ast.expr, *operands: ast.expr) -> ast.expr:
    """The value of an operation on constants, or the operation."""
    if not all(isinstance(operand, ast.Constant) for operand in operands):
        return node
    return ast.Constant(eval(compile(ast.fix_missing_locations(ast.Expression(node)), "", "eval")))


def _targets(part: ast.AST) -> list[str]:
    nodes = (node for node in ast.walk(part) if isinstance(node, ast.Name))
    return [node.id for node in nodes if isinstance(node.ctx, ast.Store)]


def names_stored(part: ast.AST) -> set[str]:
    """The names that a piece of code assigns."""
    return set(_targets(part))


def names_in(part: ast.AST) -> set[str]:
    """The names in a piece of code."""
    return {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}


def names_of(definition: ast.FunctionDef) -> set[str]:
    """The local names of a function."""
    return names_stored(definition) | {argument.arg for argument in definition.args.args}


@functools.cache
def names_stored_once(function: types.FunctionType) -> set[str]:
    """The names that a function assigns in one place."""
    definition = definition_of(function)
    arguments = {argument.arg for argument in definition.args.args}
    return {name for name, count in Counter(_targets(definition)).items() if count == 1} - arguments


def width_of(definition: ast.FunctionDef) -> int:
    """How many values a function returns, if it writes out a tuple wherever it returns; else 0."""
    values = [node.value for node in ast.walk(definition) if isinstance(node, ast.Return)]
    widths = {len(value.elts) if isinstance(value, ast.Tuple) else 0 for value in values}
    return widths.pop() if len(widths) == 1 else 0


def _returns(*statements: ast.stmt) -> bool:
    return any(isinstance(node, ast.Return) for part in statements for node in ast.walk(part))


def _ends(statements: list[ast.stmt]) -> bool:
    """Whether every way through ends with a return."""
    last = statements[-1] if statements else None
    return isinstance(last, ast.Return) or (
        isinstance(last, ast.If) and _ends(last.body) and _ends(last.orelse)
    )


def ended(statements: list[ast.stmt], value: ast.expr) -> list[ast.stmt] | None:
    """The body of a function with `value` assigned where it returned; None where that cannot be."""
    done: list[ast.stmt] = []
    for index, statement in enumerate(statements):
        rest = statements[index + 1 :]
        if isinstance(statement, ast.Return):
            return done + ([ast.Assign([store(value)], statement.value)] if statement.value else [])
        if not _returns(statement):
            done.append(statement)
            continue
        if not isinstance(statement, ast.If) or not (_ends(statement.body) or _ends(statement.orelse)):
            return None
        first = ended(statement.body if _ends(statement.body) else statement.body + rest, value)
        other = copy.deepcopy(rest)
        second = ended(statement.orelse if _ends(statement.orelse) else statement.orelse + other, value)
        if first is None or second is None:
            return None
        return [*done, ast.If(statement.test, first or [ast.Pass()], second)]
    return done
