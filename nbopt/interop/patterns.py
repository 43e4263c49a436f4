"""Which arrays of another library are left to it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

__all__ = ["is_left_out"]


def is_left_out(name: str, attrs: Any) -> bool:
    """Whether the last pattern that matches a name says False; what is no mapping is refused elsewhere.

    Examples
    --------
    >>> from nbopt.interop.patterns import is_left_out
    >>> [is_left_out(name, {"*": False, "*.weight": True}) for name in ("fc.weight", "fc.bias")]
    [False, True]
    """
    if not isinstance(attrs, Mapping):
        return False
    found = [attr for pattern, attr in attrs.items() if fnmatch.fnmatchcase(name, pattern)]
    return bool(found) and found[-1] is False
