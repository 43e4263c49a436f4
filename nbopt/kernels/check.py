"""Whether a rule works: what it names, and the types of what it returns. Nothing of a step is compiled."""

from __future__ import annotations

import builtins
import dis
import functools
import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numba.core import compiler, errors, registry
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.typed_passes import NopythonTypeInference

from nbopt.kernels.bind import Binder, marked
from nbopt.kernels.rule import Rule

__all__ = ["check_rule"]

# What to write in place of a function of NumPy that `math` has not.
_INSTEAD = {
    "abs": "abs(x)",
    "absolute": "abs(x)",
    "clip": "min(max(x, low), high)",
    "maximum": "max(a, b)",
    "minimum": "min(a, b)",
    "sign": "math.copysign(1.0, x)",
    "square": "x * x",
    "where": "a if condition else b",
}
_BUILTINS = frozenset({"abs", "bool", "float", "int", "max", "min", "pow", "range", "round"})
_WIDENING = (
    "an integer or a comparison used as a number, a constant of a module such as math.pi, or a NumPy scalar "
    "widens what it meets: write 1.0 if a > b else 0.0, and keep constants under names of their own as plain "
    "Python numbers"
)


@functools.cache
def check_rule(rule: Rule, dtype: np.dtype[Any]) -> None:
    """Raise a TypeError that shows the right form if a rule does not work for a storage dtype.

    Parameters
    ----------
    rule : Rule
    dtype : numpy.dtype
        float32 or float64.
    """
    name = rule.function.__name__
    kept = ("param", *rule.accumulators)
    form = f"{name} must return {', '.join(kept)}"
    storage, wide = numba.from_dtype(dtype), numba.float64
    taken = len(kept) + 2 + len(rule.reads)  # and grad, lr
    found = _result(marked(rule.function), dtype, (storage,) * taken, name)
    for what, kind in _paired(found, kept, form, f"new {{}} of {name}"):
        if kind != storage:
            is_number = isinstance(kind, numba.types.Number | numba.types.Boolean)
            why = _WIDENING if is_number else "it is no number"
            raise TypeError(f"the {what} comes out as {kind} where parameters are {dtype}: {why}")
    if rule.prepare is None:
        return
    name = rule.prepare.__name__
    made = ("lr", *rule.reads)
    form = f"{name} must return {', '.join(made)}"
    found = _result(rule.prepare, dtype, (wide,) * (2 + len(rule.hyper)), name)
    for what, kind in _paired(found, made, form, f"{{}} that {name} returns"):
        if not isinstance(kind, numba.types.Float | numba.types.Integer):
            raise TypeError(f"the {what} is no number but {kind}")


def _paired(found: Any, names: tuple[str, ...], form: str, what: str) -> list[tuple[str, Any]]:
    """Each result by what it is, with its type."""
    kinds = list(found.types) if isinstance(found, numba.types.BaseTuple) else [found]
    if len(kinds) != len(names):
        raise TypeError(f"{form}; it returns {'nothing' if found == numba.types.none else found}")
    return [(what.format(name), kind) for name, kind in zip(names, kinds, strict=True)]


def _result(function: Callable[..., Any], dtype: np.dtype[Any], given: tuple[Any, ...], name: str) -> Any:
    """The type of what a function of numbers returns."""
    assert isinstance(function, types.FunctionType)
    _scan(function, name, set())
    binder = Binder(lambda copy, _: numba.njit(inline="always")(copy), {}, dtype)
    try:
        return _inferred(binder.bind(function), given)
    except errors.NumbaError as error:
        reason = _reason(error)
        if "getitem" in reason:
            reason = "it has single numbers before it, without elements: write param, not param[i]"
        raise TypeError(
            f"{name} cannot be compiled for {dtype}: {reason}. Plain arithmetic, comparisons, if and math.* "
            "on numbers are what it may use"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of what Numba says that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Failed in ")]
    return said[0].rstrip(".:") if said else type(error).__name__


# --- names


def _scan(function: types.FunctionType, name: str, seen: set[Any]) -> None:
    """Refuse what no device computes, in a function and in those that it calls."""
    if function in seen:
        return
    seen.add(function)
    for instruction in dis.get_instructions(function.__code__):
        if instruction.opname == "RAISE_VARARGS":
            raise TypeError(f"{name} may not raise: a step is all or nothing, and its arguments are checked")
    for label, value, attribute in _named(function):
        path = ".".join(filter(None, (label, attribute)))
        value = getattr(value, "py_func", value)
        if isinstance(value, types.FunctionType):
            _scan(value, name, seen)
        elif isinstance(value, (np.ndarray, list, dict, set)):
            raise TypeError(f"{name} reads {path}, {type(value).__name__}: it works on single numbers alone")
        elif isinstance(value, types.ModuleType) and value is not np and value is not math:
            raise TypeError(
                f"{name} uses {path}: of modules a rule may use math; import functions and numbers by name"
            )
        else:
            used: Any = getattr(value, attribute, None) if value is np else value
            if isinstance(used, types.ModuleType) and value is np:
                raise TypeError(f"{name} uses {path}: a rule computes the same from the same numbers alone")
            if isinstance(used, np.ufunc) or _home(used) == "numpy":
                raise TypeError(f"{name} calls {path}, a function of arrays: write {_instead(used.__name__)}")
            if callable(used) and _home(used) not in ("", "builtins", "math"):
                raise TypeError(f"{name} calls {path}, which is neither plain Python nor of math")


def _home(value: Any) -> str:
    """The module of a function; of types, which round or convert, and of numbers none."""
    if isinstance(value, type) or not callable(value):
        return ""
    return (getattr(value, "__module__", None) or "unknown").partition(".")[0]


def _instead(name: str) -> str:
    return _INSTEAD.get(name) or (f"math.{name}" if hasattr(math, name) else "plain arithmetic and math.*")


def _named(function: types.FunctionType) -> Iterator[tuple[str, Any, str]]:
    """What a function names outside itself: the name, its value, and the attribute it takes of it."""
    closed = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    instructions = list(dis.get_instructions(function.__code__))
    for this, following in zip(instructions, [*instructions[1:], None], strict=True):
        is_attribute = following is not None and following.opname in ("LOAD_ATTR", "LOAD_METHOD")
        attribute = str(following.argval) if following is not None and is_attribute else ""
        if this.opname == "LOAD_GLOBAL" and this.argval in function.__globals__:
            yield this.argval, function.__globals__[this.argval], attribute
        elif this.opname == "LOAD_GLOBAL" and hasattr(builtins, this.argval) and this.argval not in _BUILTINS:
            raise TypeError(
                f"{function.__name__} uses {this.argval}: of what Python has built in, a rule may use "
                f"{', '.join(sorted(_BUILTINS))}"
            )
        elif this.opname in ("LOAD_DEREF", "LOAD_CLOSURE") and this.argval in closed:
            try:
                yield this.argval, closed[this.argval].cell_contents, attribute
            except ValueError:
                raise TypeError(f"{function.__name__} uses {this.argval} before it has a value") from None


# --- types


@register_pass(mutates_CFG=False, analysis_only=True)
class _Types(AnalysisPass):  # type: ignore[misc]
    """Ends the compilation where the types are known."""

    _name = "nbopt_types"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        state.cr = state.return_type
        return False


class _Typer(compiler.CompilerBase):  # type: ignore[misc]
    """Numba's front half."""

    def define_pipelines(self) -> list[Any]:
        passes = compiler.DefaultPassBuilder.define_untyped_pipeline(self.state)
        passes.add_pass(NopythonTypeInference, "infer types")
        passes.add_pass(_Types, "stop")
        passes.finalize()
        return [passes]


def _inferred(function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    """The type of what a function returns for arguments of these types."""
    target = registry.cpu_target
    typer = _Typer(target.typing_context, target.target_context, None, given, None, compiler.Flags(), {})
    return typer.compile_extra(function)
