"""Compiled code on disk, where the disk allows it."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import numba

__all__ = ["Cached"]


class Cached:
    """A compiled function that is kept on disk; after one warning without that, where it cannot be.

    Parameters
    ----------
    function : function
        Its file must exist.
    jit : callable, optional
        That of another device in place of `numba.njit`.
    **options
        Of `jit`.
    """

    def __init__(self, function: types.FunctionType, jit: Callable[..., Any] | None = None, **options: Any):
        if numba.config.DISABLE_JIT:
            raise RuntimeError("nbopt runs compiled code only: unset NUMBA_DISABLE_JIT")
        self.py_func = function
        self._jit = jit or numba.njit
        self._options = options
        try:
            self._dispatcher = self._jit(function, cache=True, **options)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            self._dispatcher = self._jit(function, **options)
            _warn_once("no directory for it can be written")

    def __call__(self, *args: Any) -> Any:
        """Run, and compile first what was not compiled for such arguments."""
        signature = tuple(numba.typeof(value) for value in args)
        if signature not in self._dispatcher.overloads:
            self.compile(signature)
        return self._dispatcher(*args)

    def compile(self, signature: tuple[Any, ...]) -> Any:
        """Compile for types of arguments; return what Numba keeps of it."""
        try:
            self._dispatcher.compile(signature)
        except Exception as error:  # a damaged file can raise anything; a true error comes again
            self._dispatcher = self._jit(self.py_func, **self._options)
            self._dispatcher.compile(signature)
            _warn_once(f"{type(error).__name__}: {error}")
        return self._dispatcher.overloads[signature]

    def inspect_asm(self) -> dict[Any, str]:
        """The machine code as text, by types of arguments."""
        texts: dict[Any, str] = self._dispatcher.inspect_asm()
        return texts

    @property
    def folder(self) -> str | None:
        """Where it is kept on disk, if it can be."""
        found: str | None = self._dispatcher.stats.cache_path
        return found

    @property
    def is_loaded(self) -> bool:
        """Whether all that it was compiled for came from disk."""
        return not self._dispatcher.stats.cache_misses

    @property
    def signatures(self) -> list[Any]:
        """The types of arguments that it was compiled for."""
        found: list[Any] = self._dispatcher.signatures
        return found


_warned = False


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"nbopt cannot keep compiled code on disk, so each process compiles again: {reason}. Set "
            "NUMBA_CACHE_DIR to a directory that can be written, or empty the one that is in use",
            RuntimeWarning,
            stacklevel=2,
        )
