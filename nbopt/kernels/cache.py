"""Compiled code on disk, where the disk allows it."""

from __future__ import annotations

import pickle
import types
import warnings
from typing import Any

import numba

__all__ = ["Cached"]

# What a cache that is full, forbidden or damaged makes of the first call.
_FAILURES = (OSError, EOFError, pickle.UnpicklingError)


class Cached:
    """A compiled function that is kept on disk; after one warning without that, where it cannot be.

    Parameters
    ----------
    function : function
        Its file must exist.
    **options
        Of `numba.njit`.
    """

    def __init__(self, function: types.FunctionType, **options: Any):
        if numba.config.DISABLE_JIT:
            raise RuntimeError("nbopt runs compiled code only: unset NUMBA_DISABLE_JIT")
        self.py_func = function
        self._options = options
        try:
            self._dispatcher = numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            self._do_without("no directory for it can be written")

    def __call__(self, *args: Any) -> Any:
        """Run, and compile first what was not compiled for such arguments."""
        try:
            return self._dispatcher(*args)
        except _FAILURES as error:  # of the cache: a kernel raises nothing
            self._do_without(str(error))
            return self._dispatcher(*args)

    def compile(self, signature: tuple[Any, ...]) -> Any:
        """Compile for types of arguments; return what Numba keeps of it."""
        try:
            self._dispatcher.compile(signature)
        except _FAILURES as error:
            self._do_without(str(error))
            self._dispatcher.compile(signature)
        return self._dispatcher.overloads[signature]

    @property
    def signatures(self) -> list[Any]:
        """The types of arguments that it was compiled for."""
        found: list[Any] = self._dispatcher.signatures
        return found

    def _do_without(self, reason: str) -> None:
        _warn_once(reason)
        self._dispatcher = numba.njit(**self._options)(self.py_func)


_warned = False


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"nbopt cannot keep compiled code on disk, so each process compiles again: {reason}. Set "
            "NUMBA_CACHE_DIR to a directory that can be written, or empty the one that is in use",
            RuntimeWarning,
            stacklevel=4,
        )
