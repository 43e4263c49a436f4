"""What connects a rule, whatever its accumulators and hyper-parameters, to the loops of every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbopt.kernels import intrinsics, quads, tables
from nbopt.kernels.bind import marked
from nbopt.kernels.rule import Rule

__all__ = ["adaptors"]


def adaptors(rule: Rule) -> dict[str, Callable[..., Any]]:
    """Return what connects a rule, whatever its accumulators and hyper-parameters, to the loops.

    Numba unpacks no tuple into the arguments of an inlined function, so these functions are written out for
    the rule: where its accumulators are, or four of each on a GPU, what it reads, one element, its scalars.
    """
    kept = range(len(rule.accumulators))
    rows = [f"held[{a}][begin:end]" for a in kept]
    fixed = [f"storage(coefficients[s, COEFFICIENT_RULE + {j}])" for j in range(1 + len(rule.reads))]
    old = ["param[i]", *(f"rows[{a}][i]" for a in kept)]
    arguments = [*old, "grad", *(f"fixed[{j}]" for j in range(len(fixed)))]
    given = ["lr", *(f"groups[group, GROUP_HYPER + {j}]" for j in range(len(rule.hyper)))]
    read = [f"coefficients[s, COEFFICIENT_RULE + {j}]" for j in range(len(fixed))]
    prepared = [f"    {target} = {value}" for target, value in zip(read, given, strict=False)]
    if rule.prepare is not None:
        # As the rule would read them, so that what is derived from them fits them.
        rounded = [f"float(storage({value}))" for value in given[1:]]
        prepared = _unpacked(f"prepared({', '.join(['float(step)', 'lr', *rounded])})", read)
    sources = {
        "accumulator_rows": [
            "def accumulator_rows(tables, begin, end):",
            "    held = element_rows(tables, ACCUMULATORS, storage)",
            f"    return ({_joined(rows)})",
        ],
        "constants": [
            "def constants(tables, s):",
            "    coefficients = reals(tables, COEFFICIENTS)",
            f"    return ({_joined(fixed)})",
        ],
        "scratch_rows": [
            "def scratch_rows():",
            f"    return ({_joined(['scratch(4, storage)' for a in kept])})",
        ],
        "load_rows": [
            "def load_rows(rows, at, left, tables):",
            *[f"    load_quad(rows[{a}], ACCUMULATORS, {a}, at, left, tables)" for a in kept],
            "    pass",
        ],
        "store_rows": [
            "def store_rows(rows, at, left, tables):",
            *[f"    store_quad(rows[{a}], ACCUMULATORS, {a}, at, left, tables)" for a in kept],
            "    pass",
        ],
        "load_columns": [
            "def load_columns(rows, at, step, left, tables):",
            *[f"    load_column(rows[{a}], ACCUMULATORS, {a}, at, step, left, tables)" for a in kept],
            "    pass",
        ],
        "store_columns": [
            "def store_columns(rows, at, step, left, tables):",
            *[f"    store_column(rows[{a}], ACCUMULATORS, {a}, at, step, left, tables)" for a in kept],
            "    pass",
        ],
        "advance": [
            "def advance(i, param, rows, grad, fixed):",
            *_unpacked(f"rule({', '.join(arguments)})", old),
        ],
        "prepare": [
            "def prepare(tables, s, step, lr, group):",
            "    coefficients, groups = reals(tables, COEFFICIENTS), reals(tables, GROUPS)",
            *prepared,
        ],
    }
    namespace: dict[str, Any] = {
        "__name__": __name__,
        "rule": marked(rule.function),
        "prepared": rule.prepare,
        "storage": None,
        "alone": intrinsics.alone,
        "reals": intrinsics.reals,
        "element_rows": intrinsics.element_rows,
        "scratch": intrinsics.scratch,
        "load_quad": quads.load_quad,
        "store_quad": quads.store_quad,
        "load_column": quads.load_column,
        "store_column": quads.store_column,
        "ACCUMULATORS": tables.ACCUMULATORS,
        "COEFFICIENTS": tables.COEFFICIENTS,
        "GROUPS": tables.GROUPS,
        "COEFFICIENT_RULE": tables.COEFFICIENT_RULE,
        "GROUP_HYPER": tables.GROUP_HYPER,
    }
    for name, lines in sources.items():
        text = "\n".join(lines)
        exec(text, namespace)
        namespace[name].source = text
    return {name: namespace[name] for name in sources}


def _joined(parts: list[str]) -> str:
    return "".join(part + ", " for part in parts)


def _unpacked(call: str, targets: list[str]) -> list[str]:
    """Statements that spread the results of a call; where there is one, it may come without a tuple."""
    if len(targets) == 1:
        return [f"    {targets[0]} = alone({call})"]
    return [f"    new = {call}", *(f"    {target} = new[{j}]" for j, target in enumerate(targets))]
