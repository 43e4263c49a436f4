"""What the lanes of a warp, and the threads of a block, do together.

A sum goes from all lanes to the first one by halves: lane q adds lane q + 16, then q + 8, and so on, which is
the order of `nbopt.kernels.cpu.reduce.fold_halves`. The simulator has no shuffles; there a block is one warp
and shared memory takes their place.
"""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import float64, int64

from nbopt.kernels.cuda.device import import_cuda, is_simulated
from nbopt.kernels.intrinsics import integers
from nbopt.kernels.tables import COUNTERS, TICKETS

cuda = import_cuda()
TEAM = True
WARP = 32
EVERY_LANE = 0xFFFFFFFF


def lane_index():
    """Which lane of its warp a thread is."""
    return cuda.threadIdx.x % WARP


def warp_index():
    """Which warp of the grid a thread is in."""
    return (np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x) // WARP


def warp_count():
    """Warps of the grid."""
    return np.int64(cuda.gridDim.x) * cuda.blockDim.x // WARP


def barrier():
    """Wait for the other threads of the block, and see what they wrote."""
    cuda.syncthreads()


def any_thread(value):
    """Whether `value` is true in any thread of the block."""
    return cuda.syncthreads_or(np.int32(1) if value else np.int32(0)) != 0


def shuffled_sum(x):
    """Sum over the lanes of a warp, in the first lane."""
    x += cuda.shfl_down_sync(EVERY_LANE, x, 16)
    x += cuda.shfl_down_sync(EVERY_LANE, x, 8)
    x += cuda.shfl_down_sync(EVERY_LANE, x, 4)
    x += cuda.shfl_down_sync(EVERY_LANE, x, 2)
    x += cuda.shfl_down_sync(EVERY_LANE, x, 1)
    return x


def shuffled_first(x):
    """The value of the first lane, for all of a warp."""
    return cuda.shfl_sync(EVERY_LANE, x, 0)


def shuffled_barrier():
    """Wait for the other lanes of the warp, and see what they wrote."""
    cuda.syncwarp()


def shared_sum(x):
    """Sum over the threads of a block of one warp, in the first one, which adds for all: waiting is slow."""
    sums, half = cuda.shared.array(WARP, float64), WARP // 2
    cuda.syncthreads()
    sums[cuda.threadIdx.x] = x
    cuda.syncthreads()
    while cuda.threadIdx.x == 0 and half > 0:
        for i in range(half):
            sums[i] += sums[i + half]
        half //= 2
    return sums[0]


def shared_first(x):
    """The value of the first thread of a block of one warp, for all of it."""
    given = cuda.shared.array(1, float64)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        given[0] = x
    cuda.syncthreads()
    return given[0]


warp_sum, first_lane, warp_barrier = (
    (shared_sum, shared_first, barrier)
    if is_simulated()
    else (shuffled_sum, shuffled_first, shuffled_barrier)
)


def is_last_block(tables):
    """Whether all other blocks are done; what they wrote can be read then."""
    last, counters = cuda.shared.array(1, int64), integers(tables, COUNTERS)
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        last[0] = cuda.atomic.add(counters, (0, TICKETS), 1) == cuda.gridDim.x - 1
        if last[0]:
            counters[0, TICKETS] = 0
    cuda.syncthreads()
    cuda.threadfence()
    return last[0] != 0


def keep_least(table, column, value):
    """Lower `table[0, column]` to a value."""
    cuda.atomic.min(table, (0, column), value)


def keep_largest(table, row, column, value):
    """Raise `table[row, column]` to a value that is not negative."""
    cuda.atomic.max(table, (row, column), value)


def count_one(table, column):
    """Add 1 to `table[0, column]`."""
    cuda.atomic.add(table, (0, column), 1)


# What stands in place of the names of nbopt.kernels.team.
REPLACEMENTS = {
    "TEAM": TEAM,
    "any_thread": any_thread,
    "barrier": barrier,
    "count_one": count_one,
    "keep_largest": keep_largest,
    "keep_least": keep_least,
}
