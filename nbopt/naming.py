"""Which names of parameters are free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nbopt.errors import ParameterError

if TYPE_CHECKING:
    from nbopt.parameter import Parameter

__all__ = ["check_free"]

# Suffixes of the entries of a state dictionary: no parameter may be called `<other>.<one of these>`.
STATE_SUFFIXES = (
    *("velocity", "moment1", "moment2", "moment2_max", "step"),
    *("sum_1", "sum_2", "sum_3", "num_accumulates", "old_num_accumulates", "num_updates"),
    *("ema", "ema_weight"),
)


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
    for suffix in STATE_SUFFIXES:
        stem = name.removesuffix(f".{suffix}")
        entries = [f"{part}.{suffix}" for part in moved if f"{part}.{suffix}" in parameters]
        owner = parameters.get(stem) or derived.get(stem)
        if stem != name and owner is not None and owner.weight_v is None:
            entries.append(name)
        if entries:
            raise ParameterError(
                f"parameter {name!r}: {entries[0]!r} would be both a parameter and an entry of a "
                "state dictionary; choose another name"
            )
