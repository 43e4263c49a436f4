"""Objects that refuse attributes and operators which they have not, and say what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

from nbopt._validation import nearest

__all__ = ["FixedItems", "NoArray", "Strict"]


class Strict:
    """Refuses to set a public attribute that the class does not know; classes of users may have their own.

    A misspelt one would be set, and do nothing.

    Class attributes
    ----------------
    _public : names that instances may set, beside properties
    _once : names that are set when an instance is made, and never again
    _instead : what to write in place of some names that others use, or that cannot be set
    """

    _public: ClassVar[frozenset[str]] = frozenset()
    _once: ClassVar[frozenset[str]] = frozenset()
    _instead: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._check_settable(name)
        object.__setattr__(self, name, value)

    def _check_settable(self, name: str) -> None:
        cls = type(self)
        found = getattr(cls, name, None)
        if found.fset is None if isinstance(found, property) else name in cls._once and name in self.__dict__:
            mend = f"; write {cls._instead[name]}" if name in cls._instead else ""
            raise AttributeError(f"{name} of a {cls.__name__} cannot be set{mend}")
        known = name in cls._public or name in cls._once or hasattr(cls, name)
        if not known and cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
            raise AttributeError(f"{cls.__name__} has no attribute {name!r} to set: {self._mend(name)}")

    def _mend(self, name: str) -> str:
        """What to write in place of an attribute."""
        cls = type(self)
        if name in cls._instead:
            return f"write {cls._instead[name]}"
        settable = [key for key in dir(cls) if getattr(getattr(cls, key), "fset", None) is not None]
        return nearest(name, [*settable, *cls._public])


class FixedItems:
    """Says how to write the value of a parameter, to those who would replace it."""

    def __setitem__(self, name: Any, value: Any) -> NoReturn:
        raise TypeError(f"a parameter cannot be replaced: write params[{name!r}].value = array")


def _refused(symbol: str, *, always: bool) -> Callable[..., Any]:
    def refuse(self: NoArray, *others: Any) -> Any:
        if not always and type(others[0]) not in (int, float, type(self)):
            return NotImplemented  # arrays make one of this object
        raise TypeError(f"a {type(self).__name__} has no {symbol} of its own: write {self._array()}")

    return refuse


class NoArray:
    """Says where the array is, to those who compute with the object that holds it."""

    def _array(self) -> str:
        """What to write in place of the object."""
        raise NotImplementedError


# What is changed in place would be a new array, and the parameter as before.
_ALWAYS = {"-": "neg", "+=": "iadd", "-=": "isub", "*=": "imul", "/=": "itruediv", "[]": "getitem setitem"}
_WITH_NUMBERS = {
    "+": "add radd",
    "-": "sub rsub",
    "*": "mul rmul",
    "/": "truediv rtruediv",
    "**": "pow rpow",
    "<": "lt le",
    ">": "gt ge",
}
for _table in (_ALWAYS, _WITH_NUMBERS):
    for _symbol, _names in _table.items():
        for _name in _names.split():
            setattr(NoArray, f"__{_name}__", _refused(_symbol, always=_table is _ALWAYS))
