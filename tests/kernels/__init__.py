"""What tests of kernels, norms and clips share: exact sums, random gradients, Python in another process."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import nbopt as nb

ROOT = Path(nb.__file__).resolve().parents[1]

# Every finite float64 is a multiple of 2**-1126 whose factor fits 53 bits after np.frexp.
_BITS = 1126
UNIT = 4**_BITS
_HALF = 1 << 27


def exact_squares(arrays: Iterable[Any]) -> int:
    """The sum of squares of all elements times `UNIT`, exactly."""
    return sum(_exact_squares(np.ravel(np.asarray(a)).astype(np.float64)) for a in arrays)


def _exact_squares(x: np.ndarray) -> int:
    if not x.size:
        return 0
    mantissa, exponent = np.frexp(x)
    order = np.argsort(exponent, kind="stable")
    whole = np.abs(np.ldexp(mantissa[order], 53)).astype(np.int64)
    exponents, firsts = np.unique(exponent[order], return_index=True)
    high, low = whole // _HALF, whole % _HALF
    total = 0
    for product, weight in ((high * high, 54), (2 * high * low, 27), (low * low, 0)):
        for part, more in ((product // _HALF, 27), (product % _HALF, 0)):  # sums of which fit an int64
            sums = np.add.reduceat(part, firsts)
            for e, s in zip(exponents, sums, strict=True):
                total += int(s) << (weight + more + 2 * (int(e) - 53 + _BITS))
    return total


def exact_square(value: float) -> int:
    """The square of one number times `UNIT`, exactly."""
    scaled = Fraction(value) ** 2 * UNIT
    assert scaled.denominator == 1
    return scaled.numerator


def bits(value: Any) -> tuple[Any, ...]:
    """Shape, dtype and bytes: equal for equal bits."""
    array = np.asarray(value)
    return array.shape, array.dtype.str, array.tobytes()


def draw(rng: np.random.Generator, dtype: Any) -> dict[str, np.ndarray]:
    """Up to five arrays of any shape and scale, in an order of names that is not the sorted one."""
    info = np.finfo(dtype)
    scale = np.exp2(rng.uniform(math.log2(float(info.smallest_normal)) / 2, math.log2(float(info.max)) - 5))
    grads = {}
    for name in rng.permutation(list("abcde"))[: rng.integers(1, 6)]:
        shape = tuple(int(n) for n in rng.integers(0, 40, rng.integers(0, 3)))
        spread = np.exp2(rng.uniform(-30, 0, shape)) if rng.random() < 0.5 else 1.0
        grads[str(name)] = np.asarray(rng.standard_normal(shape) * spread * scale).astype(dtype)
    return grads


def python(*arguments: str, cwd: Path = ROOT, **environment: str) -> str:
    """Run Python with the package and the tests in reach; return what it prints."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
