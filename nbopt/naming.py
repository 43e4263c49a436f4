"""Which names of parameters are free."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nbopt.errors import ParameterError

if TYPE_CHECKING:
    from nbopt.parameter import Parameter

__all__ = ["check_free", "matches"]

# Suffixes of the entries of a state dictionary: no parameter may be called `<other>.<one of these>`.
STATE_SUFFIXES = (
    *("velocity", "moment1", "moment2", "moment2_max", "step"),
    *("sum_1", "sum_2", "sum_3", "num_accumulates", "old_num_accumulates", "num_updates"),
    *("ema", "ema_weight"),
)
_ENDINGS = tuple(f".{suffix}" for suffix in STATE_SUFFIXES)


def matches(names: Mapping[str, Any], pattern: str) -> list[str]:
    """Return the names that match an `fnmatch` pattern, in their order; a plain name is looked up."""
    if not any(sign in pattern for sign in "*?["):
        return [pattern] if pattern in names else []
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def check_free(
    name: str, normed: bool, parameters: Mapping[str, Parameter], derived: Mapping[str, Parameter]
) -> None:
    """Refuse a new name that collides with a derived one, or whose derived ones collide.

    Parameters
    ----------
    name : str
    normed : bool
        Whether it is to have a v and a g.
    parameters, derived : mapping of str to Parameter
        Those that exist; every v and g.

    Raises
    ------
    ParameterError
        Naming both.
    """
    parts = [f"{name}_v", f"{name}_g"] if normed else []
    for wanted in [name, *parts]:
        if wanted in derived:
            whose = f"the weight norm of {derived[wanted].name[:-2]!r} has"
        elif wanted in parameters:
            whose = f"parameter {wanted!r} has"
        else:
            continue
        raise ParameterError(
            f"parameter {name!r} needs the name {wanted!r}, which {whose}; choose another name"
        )
    moved = parts or [name]
    entries = [part + ending for part in moved for ending in _ENDINGS if part + ending in parameters]
    stem, _, suffix = name.rpartition(".")
    owner = (parameters.get(stem) or derived.get(stem)) if suffix in STATE_SUFFIXES else None
    if owner is not None and owner.weight_v is None:
        entries.append(name)
    if entries:
        raise ParameterError(
            f"parameter {name!r}: {entries[0]!r} would be both a parameter and an entry of a "
            "state dictionary; choose another name"
        )
