"""Ways from one rate to another, exact at both ends; `part` goes from 0 to 1."""

from __future__ import annotations

import math

__all__ = ["cosine", "line"]


def line(start: float, end: float, part: float) -> float:
    """A straight line."""
    return start * (1.0 - part) + end * part


def cosine(start: float, end: float, part: float) -> float:
    """Half a cosine wave."""
    return line(end, start, (1.0 + math.cos(math.pi * part)) / 2.0)
