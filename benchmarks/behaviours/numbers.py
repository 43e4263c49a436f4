"""What the answers share: gradients that are drawn, exact norms, and files with a bit flipped."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.behaviours.cases import show

__all__ = ["LIMIT", "above", "changed", "five_places", "flips", "kept"]

LIMIT = 1.0
FLIPS = 200


def drawn(count: int = 1000) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [10 * rng.standard_normal(50).astype(np.float32) for _ in range(count)]


def exact(array: np.ndarray) -> float:
    return math.sqrt(math.fsum(float(x) ** 2 for x in array))


def changed(clip: Callable[[np.ndarray], np.ndarray]) -> str:
    """Say how many gradients a second clip changes."""
    count = 0
    for grad in drawn():
        once = clip(grad)
        count += not np.array_equal(once, clip(once))
    return f"changes {count} of 1,000"


def above(clip: Callable[[np.ndarray], np.ndarray]) -> str:
    count = sum(exact(clip(grad)) > LIMIT for grad in drawn())
    return f"above the limit {count} times of 1,000"


def kept(before: list[np.ndarray], after: list[np.ndarray]) -> str:
    same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    return "unchanged" if same else show(after, digits=8)


def five_places(value: float) -> str:
    return f"{value:.5f}"


def flips(path: Path, load: Callable[[], object]) -> str:
    """Flip one bit at places spread over a file, and count how often it is read all the same."""
    right = path.read_bytes()
    generator = random.Random(0)
    read = 0
    for k in range(FLIPS):
        data = bytearray(right)
        data[k * len(right) // FLIPS] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        try:
            load()
        except Exception:
            continue
        read += 1
    path.write_bytes(right)
    return f"read {read} times of {FLIPS}" if read else "all refused"
