"""Packages that only some uses need, brought by the extras."""

from __future__ import annotations

import importlib
from typing import Any

from nbopt.errors import MissingPackageError

__all__ = ["require"]


def require(module: str, package: str, use: str, extra: str) -> Any:
    """Import a module, or say which package brings it and which extra brings that.

    Examples
    --------
    >>> from nbopt.packages import require
    >>> require("no_such_module", "no-such-package", "a picture", "plot")
    Traceback (most recent call last):
        ...
    nbopt.errors.MissingPackageError: a picture needs no-such-package, which is not installed: ...
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as cause:
        if cause.name is None or cause.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingPackageError(
            f'{use} needs {package}, which is not installed: pip install "nbopt[{extra}]"'
        ) from cause
