"""The launches of a step on a GPU: reduce and fold, update, and compose where weight norm needs it.

The last block of a launch to be done folds what all have left; no launch waits for the host.
"""

# mypy: ignore-errors

from __future__ import annotations

from nbopt.kernels.cuda.device import import_cuda
from nbopt.kernels.cuda.reduce import reduce_chunks
from nbopt.kernels.cuda.update import compose_chunks, fold_squares, update_chunks
from nbopt.kernels.cuda.warp import is_last_block
from nbopt.kernels.fold import fold, mark_measured
from nbopt.kernels.intrinsics import integers, pointer
from nbopt.kernels.tables import CHUNK_FIRST, CHUNKS, COUNTERS, OUTCOME, STATUS, STEPPED

NORMED = True
cuda = import_cuda()


def reduce(address):
    """Pass 1, and the fold."""
    tables = pointer(address)
    counters = integers(tables, COUNTERS)
    if counters[0, STATUS] == 0:
        reduce_chunks(tables)
        if is_last_block(tables):
            thread, threads = cuda.threadIdx.x, cuda.blockDim.x
            mark_measured(thread, threads, tables)
            outcome = fold(thread, threads, tables)  # its first barrier lies ahead of what reads the marks
            if thread == 0:
                counters[0, OUTCOME] = outcome


def update(address):
    """Pass 2, and the fold of the new squares of late chunks."""
    tables = pointer(address)
    counters, chunks = integers(tables, COUNTERS), integers(tables, CHUNKS)
    if counters[0, OUTCOME] == STEPPED:
        update_chunks(tables)
        late = chunks[chunks.shape[0] - 1, CHUNK_FIRST]
        if NORMED and late > 0:
            last = is_last_block(tables)
            if last:
                fold_squares(cuda.threadIdx.x, cuda.blockDim.x, tables)


def compose(address):
    """Pass 3."""
    tables = pointer(address)
    counters = integers(tables, COUNTERS)
    if counters[0, OUTCOME] == STEPPED:
        compose_chunks(tables)
