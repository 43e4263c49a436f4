"""From plain functions to a compiled, cached kernel.

A kernel is a tree of plain Python functions that call each other by their global names. Binding copies the
tree: most calls are inlined, each function that is left gets a namespace in which the functions it names are
compiled, and some names (the rule, the constants of the storage dtype) are replaced. The root's name carries
a fingerprint of everything reached, because Numba's disk cache sees neither globals, callees nor options.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import types
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numba
import numpy as np

import nbopt
from nbopt.kernels import intrinsics, tables
from nbopt.kernels.flatten import Views, flatten
from nbopt.kernels.scalars import ELEMENTWISE
from nbopt.kernels.syntax import has_source

__all__ = ["Binder", "marked", "storage_literals"]

Function = Callable[..., Any]

_VIEWS = Views(
    {intrinsics.reals, intrinsics.integers, intrinsics.elements, intrinsics.element_rows},
    intrinsics.read,
    intrinsics.write,
)
_ELEMENTWISE: frozenset[Any] = ELEMENTWISE


class Binder:
    """Copies a tree of functions with some names replaced, compiling each function once.

    Parameters
    ----------
    lift : callable
        ``lift(function, template)`` compiles a copy for the backend; `template` is the function it was
        copied from.
    replacements : mapping of str to object
        What stands in place of a global name, in every function of the tree. Plain functions among them are
        part of the tree.
    dtype : numpy.dtype
        The storage dtype, taken by the numeric literals of element-wise formulas.
    options : str
        What else changes the code; part of the fingerprint.
    called : collection of functions
        What is compiled by itself; calls of other functions of the kernels are inlined.
    views : Views, optional
        The functions that look up an array, and read and write its elements; the intrinsics if left out.
    """

    def __init__(
        self,
        lift: Callable[[Function, Function], Any],
        replacements: Mapping[str, Any],
        dtype: np.dtype[Any],
        options: str = "",
        called: Container[Any] = (),
        views: Views | None = None,
    ):
        self._lift = lift
        self._called = called
        self._views = views or _VIEWS
        self._replacements = dict(replacements)
        self._dtype = dtype
        self._marked: dict[Function, types.FunctionType] = {}  # what element-wise functions call
        self._lifted: dict[tuple[int, bool], Any] = {}
        self._templates: list[Function] = []  # keeps the ids above alive
        self._copies: list[types.FunctionType] = []
        self._hash = hashlib.sha256(f"{nbopt.__version__} {numba.__version__} {dtype} {options}".encode())
        self._record(tables.ADDRESS_COLUMNS, *_intrinsic_texts())

    def bind(self, template: types.FunctionType) -> types.FunctionType:
        """Return a copy of `template` with its global names bound, not compiled, named by the fingerprint."""
        copy = self._copy(template, False)
        # All carry it, for functions of one name in two cached kernels would be taken for one.
        for function in self._copies:
            function.__qualname__ = f"{function.__name__}_{self._hash.hexdigest()[:16]}"
        copy.__name__ = copy.__qualname__
        return copy

    def _copy(self, template: types.FunctionType, elementwise: bool) -> types.FunctionType:
        """Bind one function; what an element-wise one calls is element-wise."""
        elementwise = elementwise or _is_elementwise(template)
        if not elementwise and _is_ours(template) and has_source(template):
            return self._flat(template)
        code = template.__code__
        if elementwise:
            code = storage_literals(code, self._dtype)
        self._record(template.__name__, template.__defaults__, *_code_texts(code))
        namespace = dict(template.__globals__)
        for name in _global_names(code):
            if name in namespace:
                namespace[name] = self._bound(name, self._value(template, name), elementwise)
        cells = tuple(
            types.CellType(self._bound(name, cell.cell_contents, elementwise))
            for name, cell in zip(code.co_freevars, template.__closure__ or (), strict=True)
        )
        defaults = tuple(self._bound("default", value, elementwise) for value in template.__defaults__ or ())
        return self._made(template, types.FunctionType(code, namespace, template.__name__, defaults, cells))

    def _flat(self, template: types.FunctionType) -> types.FunctionType:
        """Bind one function of the kernels, with most of what it calls inlined."""

        def is_inlined(function: types.FunctionType) -> bool:
            return function not in self._called and _is_ours(function) and has_source(function)

        @functools.cache
        def stored(value: float) -> Any:
            return self._dtype.type(value)

        def literal(function: types.FunctionType, value: Any) -> Any:
            return stored(value) if _is_elementwise(function) and type(value) in (int, float) else value

        code, values = flatten(template, self._value, is_inlined, self._views, literal)
        self._record(template.__name__, *_code_texts(code))
        namespace = {name: self._bound(name, value, False) for name, value in sorted(values.items())}
        return self._made(template, types.FunctionType(code, namespace, template.__name__))

    def _made(self, template: types.FunctionType, copy: types.FunctionType) -> types.FunctionType:
        # Numba imports the module when it loads what it kept on disk, and may not find that of a user.
        copy.__module__ = template.__module__ if _is_ours(template) else __name__
        self._copies.append(copy)
        return copy

    def _value(self, function: types.FunctionType, name: str) -> Any:
        """What a global name of a function stands for; one of the user's own means what it says."""
        if name in self._replacements and _is_ours(function):
            return self._replacements[name]
        value = function.__globals__[name]
        if _is_elementwise(function):
            value = getattr(value, "py_func", value)  # of a rule that another one calls
            if isinstance(value, types.FunctionType) and not _is_elementwise(value):
                return self._marked.setdefault(value, marked(value))
        return value

    def _bound(self, name: str, value: Any, elementwise: bool) -> Any:
        """Compile a plain function, round a number of an element-wise one; record whatever it is."""
        if elementwise and type(value) in (int, float):
            value = self._dtype.type(value)
        value = getattr(value, "py_func", value)  # a dispatcher of the user's is bound like a plain function
        if isinstance(value, types.FunctionType):
            key = id(value), elementwise
            if key not in self._lifted:
                self._templates.append(value)
                self._lifted[key] = self._lift(self._copy(value, elementwise), value)
            else:
                self._record(name, value.__name__)
            return self._lifted[key]
        if isinstance(value, types.ModuleType):
            self._record(name, value.__name__, getattr(value, "__version__", ""))
        elif hasattr(value, "_defn"):  # an intrinsic: all of them are recorded at once
            self._record(name)
        elif isinstance(value, np.ndarray):
            self._record(name, value.dtype.str, value.shape, value.tobytes())
        else:
            self._record(name, value)
        return value

    def _record(self, *parts: Any) -> None:
        self._hash.update(repr(parts).encode())


def _is_elementwise(function: types.FunctionType) -> bool:
    return function in _ELEMENTWISE or hasattr(function, "is_rule")


def _is_ours(function: types.FunctionType) -> bool:
    return (function.__module__ or "").startswith("nbopt.kernels")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _global_names(code: types.CodeType) -> list[str]:
    return sorted({name for part in _codes(code) for name in part.co_names})


def _code_texts(code: types.CodeType) -> Iterator[Any]:
    """What a code object computes, without its names of files and its line numbers."""
    for part in _codes(code):
        yield part.co_code
        yield part.co_names, part.co_varnames, part.co_freevars
        yield tuple(c for c in part.co_consts if not isinstance(c, types.CodeType))


def _intrinsic_texts() -> Iterator[Any]:
    """What the intrinsics and their helpers generate."""
    for _, value in sorted(vars(intrinsics).items()):
        function = getattr(value, "_defn", value)
        if isinstance(function, types.FunctionType) and function.__module__ == intrinsics.__name__:
            yield from _code_texts(function.__code__)


def storage_literals(code: types.CodeType, dtype: np.dtype[Any]) -> types.CodeType:
    """Return `code` with its numeric literals in the storage dtype, so that they do not widen an expression.

    The integer exponent of a power stays one: ``x**2`` is a product.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.kernels.bind import storage_literals
    >>> code = storage_literals((lambda x: (1 - 0.5 * x) ** 2).__code__, np.dtype("float32"))
    >>> sorted(type(c).__name__ for c in code.co_consts if c is not None)
    ['float', 'float32', 'float32', 'int', 'int']
    """

    def stored(constant: Any, is_exponent: bool = False) -> Any:
        if type(constant) is float or (type(constant) is int and not is_exponent):
            return dtype.type(constant)
        if type(constant) is tuple:
            parts = tuple(map(stored, constant))
            return constant if all(a is b for a, b in zip(parts, constant, strict=True)) else parts
        return constant

    constants, raw = list(code.co_consts), bytearray(code.co_code)
    instructions = list(dis.get_instructions(code))
    for this, following in zip(instructions, [*instructions[1:], None], strict=True):
        if this.opname not in ("LOAD_CONST", "LOAD_SMALL_INT", "RETURN_CONST"):
            continue
        value = stored(this.argval, following is not None and following.argrepr in ("**", "**="))
        if value is this.argval:
            continue
        if len(constants) > 255:
            raise TypeError(f"{code.co_name} has too many constants for an update rule")
        if this.opname == "LOAD_SMALL_INT":
            raw[this.offset] = dis.opmap["LOAD_CONST"]
        raw[this.offset + 1] = len(constants)
        constants.append(value)
    return code.replace(co_consts=tuple(constants), co_code=bytes(raw))


def marked(function: Callable[..., Any]) -> types.FunctionType:
    """A copy of a rule's function that the binder knows as one: its literals take the storage dtype."""
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__module__ = function.__module__ or "user"
    copy.is_rule = True  # type: ignore[attr-defined]
    return copy
