"""Names of Jittor."""

from __future__ import annotations

from nbopt.compat.jittor import weightnorm

__all__ = ["weightnorm"]
