"""What the compiler makes of a step for a GPU (contract N4), without one: PTX, and what its assembler says.

Bits on a GPU are those of the CPU because every operation is rounded by itself, and the speed is that of the
memory because elements come and go 16 bytes at a time.
"""

import math
import re
from collections import Counter

import pytest

import nbopt as nb
from nbopt.kernels import rules
from tests.cuda import SIMULATED, needs_numba_cuda
from tests.cuda.ptx import assembled, compiled

pytestmark = [
    needs_numba_cuda,
    pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the wheels of CUDA
]

PLAIN, NORMED = ("reduce", "update"), ("reduce", "update", "compose")
STEPS = [
    *[pytest.param(d, False, launch, id=f"{d}-{launch}") for d in ("float32", "float64") for launch in PLAIN],
    *[pytest.param("float32", True, launch, id=f"float32-normed-{launch}") for launch in NORMED],
    *[
        pytest.param("float64", True, launch, id=f"float64-normed-{launch}", marks=pytest.mark.slow)
        for launch in NORMED
    ],
]
each_step = pytest.mark.parametrize(("dtype", "normed", "launch"), STEPS)
each_target = pytest.mark.parametrize("target", [(8, 0), (9, 0)], ids=["sm_80", "sm_90"])


@nb.rule
def literal(param, velocity, grad, lr, mu=0.9):
    """A user's: literals of both kinds, a square, a root, a quotient, a function of its own."""
    velocity = mu * velocity + half(grad)
    return param - lr * velocity / (math.sqrt(velocity**2) + 1), velocity


def half(x):
    return 0.5 * x


# The products of the usual loop: rescale and clip, L2, the rule's three.
USUAL = "factor * raw", "l2 * param", "mu * velocity", "mu * velocity, ahead", "lr * direction"
# 64 registers let 32 warps of a multiprocessor take turns, 128 let 16.
REGISTERS = {
    ("reduce", False): 96,
    ("update", False): 80,
    ("reduce", True): 168,
    ("update", True): 168,
    ("compose", True): 80,
}
# What an element takes beside `sgd`, which is a product and a difference.
OPERATIONS = {
    rules.momentum: {"mul.rn": 2, "add.rn": 2},
    literal: {"mul.rn": 3, "add.rn": 2, "sqrt.rn": 1, "div.rn": 1},
    # The differences from 1 are taken once, before the loop.
    rules.adam: {"mul.rn": 5, "add.rn": 3, "sqrt.rn": 1, "div.rn": 1},
    rules.adamw: {"mul.rn": 6, "add.rn": 3, "sqrt.rn": 1, "div.rn": 1, "sub.rn": 1},
}
RULES = {rule.name: rule for rule in OPERATIONS}


def step(dtype, normed, launch, target):
    return compiled(rules.momentum, dtype, normed, launch)[target]


@each_target
@each_step
def test_every_operation_is_rounded_by_itself(dtype, normed, launch, target):
    code = step(dtype, normed, launch, target)
    exact = ("abs", "neg", "min", "max")  # which round nothing
    for kind in ("f32", "f64"):
        found = code.arithmetic(kind)
        loose = [op for op in found if not op.startswith(exact) and not op.endswith(".rn")]
        assert not loose, (kind, found)
        assert not any(op.startswith(("fma", "mad")) for op in found)
    assert code.arithmetic("f64")
    assert not code.found(r"\.(?:approx|ftz|full)\b")


@each_target
@each_step
def test_elements_move_sixteen_bytes_at_a_time(dtype, normed, launch, target):
    """Once for each array that the loop reads or writes; float64 takes two such for four elements."""
    code, pairs = step(dtype, normed, launch, target), 1 if dtype == "float32" else 2
    reads = {"reduce": 1, "update": 3, "compose": 1}[launch]  # gradient; with parameter and velocity; v
    writes = {"reduce": 0, "update": 2, "compose": 1}[launch]
    assert len(code.quads("ld")) >= reads * pairs
    assert len(code.quads("st")) >= writes * pairs
    assert bool(code.quads("st")) == bool(writes)


@each_target
@each_step
def test_nothing_is_called_or_printed(dtype, normed, launch, target):
    code = step(dtype, normed, launch, target)
    assert not code.found(r"\bcall\b|\.extern\b|\btrap\b|printf|assert|errcode")
    if dtype == "float32":
        assert not code.found(r"\.local\b|\bdepot\b")


@each_target
@each_step
def test_offsets_have_64_bits(dtype, normed, launch, target):
    """A quotient of small numbers is taken in 32 bits; beside, the threads of a grid are counted so."""
    code = step(dtype, normed, launch, target)
    assert len(code.found(r"\b(?:mul|mad)\.lo\.[su]32\b")) <= 1 + len(code.found(r"\bdiv\.[su]32\b"))
    assert not code.found(r"\b(?:ld|st)\.global\S*\s+[^;]*\[%r\d")
    assert code.found(r"\b(?:ld|st)\.global\S*\s+[^;]*\[%rd\d")


@each_target
@pytest.mark.parametrize("name", RULES)
def test_a_rule_computes_in_float32_what_is_written(name, target):
    """As often as it is written out, four times a quad, and nothing of it in float64."""
    rule = RULES[name]
    base, code = (compiled(r, "float32", False, "update")[target] for r in (rules.sgd, rule))
    assert code.arithmetic("f64") == base.arithmetic("f64")
    added = code.arithmetic("f32") - base.arithmetic("f32")
    if rule in (rules.adam, rules.adamw):
        added["sub.rn"] -= 2
    assert +added == Counter({op: 4 * count for op, count in OPERATIONS[rule].items()})


@each_target
def test_elements_of_the_usual_loop_stay_float32(target):
    """The general loop takes two products in float64 for each element, and there are no others."""
    code = step("float32", False, "update", target)
    assert set(code.arithmetic("f64")) == {"mul.rn"}
    assert code.arithmetic("f64")["mul.rn"] == 2 * len(code.found(r"\bcvt\.f64\.f32\b"))
    pure = [block for block in code.blocks() if block.arithmetic("f32") and not block.arithmetic("f64")]
    assert sum((block.arithmetic("f32") for block in pure), Counter())["mul.rn"] >= 4 * len(USUAL)


@each_step
def test_the_assembler_spills_nothing(dtype, normed, launch):
    pytest.importorskip("cuda.bindings.nvjitlink", reason="the package of nvJitLink is not installed")
    said = assembled(step(dtype, normed, launch, (9, 0)), "sm_90")
    assert re.findall(r"(\d+) bytes spill", said) == ["0", "0"], said
    (registers,) = map(int, re.findall(r"Used (\d+) registers", said))
    assert registers <= REGISTERS[launch, normed], said


# --- the checks can fail


def test_contraction_is_seen():
    """As NVVM compiles where it is not told otherwise."""
    found = compiled(rules.momentum, "float32", False, "update", fma=True)[9, 0].arithmetic("f32")
    assert found["fma.rn"] > 0
    assert found["mul"] + found["add"] + found["sub"] > 0
