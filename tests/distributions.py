"""Arrays that norms are tried on: `kind(rng, size, dtype)` draws one."""

import math

import numpy as np


def normal(rng, size, dtype):
    return rng.standard_normal(size).astype(dtype)


def log_uniform(rng, size, dtype):
    """Every exponent of the dtype, subnormal ones included, equally likely."""
    info = np.finfo(dtype)
    low = math.log2(float(info.smallest_subnormal))
    exponent = rng.uniform(low, math.log2(float(info.max)), size).astype(np.float64)
    with np.errstate(under="ignore"):
        return (rng.choice([-1.0, 1.0], size) * np.exp2(exponent)).astype(dtype)


def constant(rng, size, dtype):
    return np.full(size, rng.uniform(0.1, 10.0), dtype)


def planted(rng, size, dtype):
    """A few elements near the ends of the range in a field of ordinary ones."""
    info = np.finfo(dtype)
    x = rng.standard_normal(size).astype(dtype)
    ends = np.array([info.max, info.max / 7, info.smallest_normal, info.smallest_subnormal, 0], dtype)
    if size:
        at = rng.integers(0, size, rng.integers(1, 6))
        x[at] = rng.choice(ends, at.size)
    return x


def subnormal(rng, size, dtype):
    steps = rng.integers(-1000, 1001, size).astype(dtype)
    return steps * np.finfo(dtype).smallest_subnormal


def sparse(rng, size, dtype):
    x = np.zeros(size, dtype)
    if size:
        at = rng.integers(0, size, 1 + size // 50)
        x[at] = log_uniform(rng, at.size, dtype)
    return x


def stepped(rng, size, dtype):
    """Runs of ordinary numbers, each at a power of two of its own: blocks fall into different bins."""
    x = rng.standard_normal(size)
    edges = np.sort(rng.integers(0, size + 1, rng.integers(1, 4)))
    far = math.log2(float(np.finfo(dtype).max)) * 0.9
    powers = rng.uniform(-far, far, edges.size + 1).astype(np.int64)
    return np.ldexp(x, powers[np.searchsorted(edges, np.arange(size), "right")]).astype(dtype)


KINDS = [normal, log_uniform, constant, planted, subnormal, sparse]
