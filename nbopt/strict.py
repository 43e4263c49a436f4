"""Objects that refuse attributes which they have not: a misspelt one would be set, and do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from nbopt._validation import nearest

__all__ = ["Strict"]


class Strict:
    """Refuses to set a public attribute that the class does not know; classes of users may have their own.

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
