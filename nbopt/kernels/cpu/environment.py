"""Whether a thread takes subnormal numbers for zero, as another library may have told it (contract N10)."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from nbopt.kernels.tables import FLUSHED, FLUSHED_APART


def is_flushing(count):
    """Whether a product below the normal range comes out as zero in this thread, or counts as zero.

    `count`, from 1 to 2**19, is anything that is not known when this is compiled, or the compiler would do
    the arithmetic. No constant is subnormal, for the compiler, too, may run where such numbers are zero.
    """
    single = np.float32(2.0**-126) * (np.float32(2.0**-20) * np.float32(count))
    double = 2.0**-1022 * (2.0**-20 * np.float64(count))
    return not (single > np.float32(0.0) and double > 0.0)


def compare_thread(flushing, count, counters):
    """Note a thread that differs from the one that called the step; all of them would write the same."""
    if is_flushing(count) != flushing:
        counters[0, FLUSHED] |= FLUSHED_APART
