"""Other libraries' names, with their own meaning of arguments, on NumPy objects."""

from __future__ import annotations

from nbopt.compat import jittor, paddle

__all__ = ["jittor", "paddle"]
