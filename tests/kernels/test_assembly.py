"""What the compiler makes of N4 on x86: nothing contracted, nothing widened, arithmetic on whole registers.

The parts of a step are compiled one by one, as a step compiles them, so that the sums of the first lie apart
from the formulas of the others.
"""

import functools
import inspect
import itertools
import platform
import re
import types
from typing import NamedTuple

import numba
import numpy as np
import pytest

from nbopt.kernels import cpu, rules, scalars
from nbopt.kernels.adaptors import adaptors
from nbopt.kernels.cpu import reduce
from nbopt.kernels.cpu.step import step

POINTER = numba.types.CPointer(numba.int64)
SUFFIX = {"float32": "ps", "float64": "pd"}  # of packed instructions
FUSED = r"vfn?m(add|sub)\w+"
CONVERSION = r"v?cvt\w+"
SCALAR = r"v?(add|sub|mul|div)s[sd]|vfn?m(add|sub)\w+s[sd]"

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="reads the assembly of x86-64"
)
each_dtype = pytest.mark.parametrize("dtype", list(SUFFIX))


def callees(template):
    """The plain functions that a function names."""
    named = (template.__globals__.get(name) for name in template.__code__.co_names)
    return {function for function in named if isinstance(function, types.FunctionType)}


def reached(template):
    """A function and all that it calls, directly or not."""
    return {template}.union(*map(reached, callees(template)))


PARTS = {function.__name__: function for function in callees(step)}
each_part = pytest.mark.parametrize("part", sorted(PARTS))


class Code(NamedTuple):
    """Some machine code of one function, a pair of mnemonic and operands for each instruction."""

    function: str
    instructions: list[tuple[str, str]]

    def found(self, pattern):
        return [name for name, _ in self.instructions if re.fullmatch(pattern, name)]

    def stores(self):
        """Packed stores."""
        moves = [operands for name, operands in self.instructions if re.fullmatch(r"v?mov[au]p[sd]", name)]
        return [operands for operands in moves if operands.endswith(")")]

    def width(self):
        """The widest registers: xmm, ymm or zmm."""
        return max(re.findall(r"%([xyz]mm)", " ".join(operands for _, operands in self.instructions)))


def read(dispatcher):
    """Return the functions and the innermost loops in the code of a dispatcher that was compiled here."""
    (asm,) = dispatcher.inspect_asm().values()
    functions, places, jumps = [Code("", [])], {}, []
    for line in asm.splitlines():
        instructions = functions[-1].instructions
        if label := re.match(r"([^\s#\"]+):", line):
            if not re.match(r"\.?L", label[1]):
                functions.append(Code(label[1], []))
            places[label[1]] = functions[-1], len(functions[-1].instructions)
        elif instruction := re.match(r"\t([a-z]\w*)\s*([^#]*)", line):
            name, operands = instruction[1], instruction[2].strip()
            instructions.append((name, operands))
            if name.startswith("j") and operands in places:  # only backward: others are not known yet
                jumps.append((*places[operands], len(instructions)))
    loops = [
        Code(function.function, function.instructions[begin:end])
        for function, begin, end in jumps
        if not any(
            function is other and begin <= first and last <= end and (first, last) != (begin, end)
            for other, first, last in jumps
        )
    ]
    return functions, loops


@functools.cache
def compiled(part, dtype):
    """Functions and loops of a part of the step of Momentum with weight norm."""
    template = PARTS[part]
    binder = cpu._binder(np.dtype(dtype), {**adaptors(rules.momentum), "NORMED": True}, False)
    dispatcher = numba.njit(**cpu._INNER)(binder.bind(template))
    names = inspect.signature(template).parameters
    dispatcher.compile(tuple(POINTER if name == "tables" else numba.int64 for name in names))
    return read(dispatcher)


@functools.cache
def control(dtype):
    """Functions and loops of plain code that allows contraction."""

    @numba.njit(fastmath={"contract"})
    def add_squares(x, y):
        for i in range(x.size):
            y[i] += x[i] * x[i]

    array = numba.types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C")
    add_squares.compile((array, array))
    return read(add_squares)


def is_copy(function, template):
    """Whether a symbol is that of a function of the kernels, whatever arguments and fingerprint follow."""
    path = "".join(f"{len(name)}{name}" for name in template.__module__.split("."))
    return re.search(rf"{path}\d+{template.__name__}(_[0-9a-f]{{16}})?B", function) is not None


# --- contraction ----------------------------------------------------------------------------------


def contracted(functions):
    """The fused instructions, each with the function that holds it."""
    return {(name, code.function) for code in functions for name in code.found(FUSED)}


@each_part
def test_nothing_of_float64_is_contracted(part):
    functions, _ = compiled(part, "float64")
    assert not contracted(functions)


@each_part
def test_no_arithmetic_in_float32_is_contracted(part):
    functions, _ = compiled(part, "float32")
    assert not [name for name, _ in contracted(functions) if not name.endswith("d")]


def holds_a_sum(template):
    """Whether the machine code of a function holds one of `nbopt.kernels.cpu.reduce`."""
    inlined = callees(template) - cpu._CALLED
    return template.__module__ == reduce.__name__ or any(map(holds_a_sum, inlined))


@each_part
def test_only_functions_with_a_sum_of_float32_are_contracted(part):
    functions, _ = compiled(part, "float32")
    holders = [template for template in reached(PARTS[part]) if holds_a_sum(template)]
    for name, function in contracted(functions):
        assert any(is_copy(function, template) for template in holders), (name, function)


def test_what_may_be_contracted_holds_no_formula():
    formulas = {value for value in vars(scalars).values() if isinstance(value, types.FunctionType)}
    for template in cpu._CONTRACTED:
        assert template.__module__ == reduce.__name__
        assert not reached(template) & formulas


def test_sums_of_float32_are_contracted_where_the_machine_can():
    (sums, _), (plain, _) = compiled("reduce_all", "float32"), control("float32")
    assert bool(contracted(sums)) == bool(contracted(plain))


# --- vectors --------------------------------------------------------------------------------------


def widest(dtype):
    """The registers that the compiler takes for a plain loop."""
    _, loops = control(dtype)
    return max(loop.width() for loop in loops if loop.stores())


def loops_of(part, dtype, name):
    """The loops of one function of a part that do packed arithmetic."""
    (template,) = {template for template in reached(PARTS[part]) if template.__name__ == name}
    _, loops = compiled(part, dtype)
    packed = r"v?(add|mul)p[sd]|vfmadd\d+p[sd]"
    return [loop for loop in loops if is_copy(loop.function, template) and loop.found(packed)]


# Two stores, parameter and velocity, tell the loops of a rule from those of a product.
ELEMENTWISE = [
    *itertools.product(["update_all"], ["update_all", "update_rows", "update_piece", "update_tile"], [2]),
    *itertools.product(["compose_all"], ["compose_all", "compose_tile"], [1]),
]


@each_dtype
@pytest.mark.parametrize(("part", "name", "stores"), ELEMENTWISE)
def test_elements_take_whole_registers_and_no_conversion(part, name, stores, dtype):
    fast = [
        loop
        for loop in loops_of(part, dtype, name)
        if len(loop.stores()) >= stores
        and loop.found(f"v?mul{SUFFIX[dtype]}")
        and not loop.found(f"{CONVERSION}|{SCALAR}")
    ]
    assert fast, f"every loop of {name} converts"
    assert max(loop.width() for loop in fast) == widest(dtype)


# Rows of whole lanes and what is left of a block each have a loop.
SUMS = {"reduce_all": 2, "product_sums": 2, "tile_products": 1}


@each_dtype
@pytest.mark.parametrize(("name", "count"), SUMS.items())
def test_sums_take_whole_registers_of_float64(name, count, dtype):
    """A loop that adds as often as it multiplies adds to sums that it keeps."""
    whole = [
        loop
        for loop in loops_of("reduce_all", dtype, name)
        if loop.width() == widest("float64")
        and len(loop.found(r"v?mulpd|vfmadd\d+pd")) == len(loop.found(r"v?addpd|vfmadd\d+pd"))
        and not loop.found(SCALAR)
    ]
    assert len(whole) >= count
    assert all(bool(loop.found("v?cvtps2pd")) == (dtype == "float32") for loop in whole)
