"""Plain values: numbers, texts, None, and lists and dictionaries of them, as JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbopt.errors import CheckpointError

__all__ = ["decode", "encode", "plain"]

DEEPEST = 64  # lists and dictionaries in each other


def plain(value: Any, key: str, depth: int = 0) -> Any:
    """Return a value in its plain form: NumPy numbers become those of Python, tuples lists."""
    if isinstance(value, np.generic) and not isinstance(value, np.longdouble | np.complexfloating):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return _as_text(value, key)
    if depth == DEEPEST and isinstance(value, list | tuple | Mapping):
        raise TypeError(f"{key!r} cannot be stored: its lists or dictionaries nest deeper than {DEEPEST}")
    if isinstance(value, list | tuple):
        return [plain(item, key, depth + 1) for item in value]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{key!r} cannot be stored: a dictionary in it has the key {name!r}, no text")
        return {_as_text(name, key): plain(item, key, depth + 1) for name, item in value.items()}
    hint = "; arrays are stored where state_dict() has them itself" if isinstance(value, np.ndarray) else ""
    raise TypeError(f"{key!r} cannot be stored: it holds {type(value).__name__}{hint}")


def _as_text(text: str, key: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{key!r} cannot be stored: {text!r} is no text: {error.reason}") from error
    return str(text)


def encode(value: Any) -> Any:
    """Return a plain value as JSON has it, with tags where JSON has no form."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, dict):
        return {"dict": {name: encode(item) for name, item in value.items()}}
    return [encode(item) for item in value] if isinstance(value, list) else value


def decode(value: Any, depth: int = 0) -> Any:
    """Undo `encode`."""
    match value:
        case {"float": "nan" | "inf" | "-inf" as text} if len(value) == 1:
            return float(text)
        case {"dict": dict(inner)} if len(value) == 1 and depth < DEEPEST:
            return {name: decode(item, depth + 1) for name, item in inner.items()}
        case list() if depth < DEEPEST:
            return [decode(item, depth + 1) for item in value]
        case None | bool() | int() | float() | str():
            return value
    raise ValueError("a value cannot be read")
