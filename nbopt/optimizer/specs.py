"""What a user hands in as `parameters`: one buffer, and a dictionary per group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nbopt.buffer import ParameterBuffer
from nbopt.chosen import as_parameters
from nbopt.errors import ParameterError
from nbopt.parameter import Parameter

__all__ = ["as_specs", "check_disjoint", "check_places"]


def check_places(kind: str, numbers: Mapping[str, Any]) -> None:
    """Refuse parameters that were handed in where a number belongs."""
    for name, value in numbers.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(
            isinstance(item, (ParameterBuffer, Parameter)) or (isinstance(item, dict) and "params" in item)
            for item in items
        ):
            raise TypeError(
                f"{kind} got parameters in the place of {name}: write {kind}(..., parameters=params)"
            )


def as_specs(parameters: Any, kind: str) -> tuple[ParameterBuffer, list[dict[str, Any]]]:
    """Return the one buffer of all parameters, and one dictionary per group with a list of parameters."""
    if isinstance(parameters, Mapping) and not isinstance(parameters, ParameterBuffer):
        raise TypeError(
            f"{kind} takes groups as a list: write parameters=[{{'params': [...], ...}}]; arrays by name "
            "become parameters by nbopt.ParameterBuffer.from_arrays(arrays)"
        )
    if isinstance(parameters, Iterable) and not isinstance(
        parameters, (str, bytes, ParameterBuffer, set, frozenset)
    ):
        parameters = list(parameters)
    grouped = isinstance(parameters, list) and any(isinstance(p, Mapping) for p in parameters)
    specs = []
    for index, spec in enumerate(parameters if grouped else [{"params": parameters}]):
        if not isinstance(spec, Mapping) or isinstance(spec, ParameterBuffer):
            raise TypeError(f"{kind}: parameters mixes groups with {type(spec).__name__}")
        if "params" not in spec:
            raise TypeError(f"{kind} group {index} has no 'params'")
        found = as_parameters(spec["params"])
        if not found:
            where = f"{kind} group {index}" if grouped else kind
            raise ParameterError(f"{where} got no parameters")
        specs.append({**spec, "params": found})
    if not specs:
        raise ParameterError(f"{kind} got no parameters")
    buffers = {id(p._buffer): p for spec in specs for p in spec["params"]}
    if len(buffers) > 1:
        names = [p.name for p in buffers.values()]
        raise ParameterError(
            f"{kind} got parameters of {len(buffers)} buffers ({names[0]!r}, {names[1]!r}, ...); one "
            "optimizer moves one buffer"
        )
    return specs[0]["params"][0]._buffer, specs


def check_disjoint(groups: list[dict[str, Any]]) -> None:
    """Refuse a parameter that is in two groups, whole or in part."""
    owner: dict[str, int] = {}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            for part in parameter._moved:
                if owner.setdefault(part.name, number) != number:
                    raise ParameterError(
                        f"parameter {parameter.name!r} is in group {owner[part.name]} and in group {number}"
                    )
