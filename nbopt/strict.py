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
    _instead : what to write in place of some names that others use
    """

    _public: ClassVar[frozenset[str]] = frozenset()
    _instead: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        known = name.startswith("_") or name in cls._public or hasattr(cls, name)
        if not known and cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
            raise AttributeError(f"{cls.__name__} has no attribute {name!r} to set: {self._mend(name)}")
        object.__setattr__(self, name, value)

    def _mend(self, name: str) -> str:
        """What to write in place of an attribute."""
        cls = type(self)
        if name in cls._instead:
            return f"write {cls._instead[name]}"
        settable = [key for key in dir(cls) if getattr(getattr(cls, key), "fset", None) is not None]
        return nearest(name, [*settable, *cls._public])
