"""Pairwise trees: the one order in which partial sums are added, for every device (contract N3)."""

# mypy: ignore-errors

from __future__ import annotations

from nbopt.kernels.intrinsics import stack
from nbopt.kernels.team import barrier

LEVELS = 48  # of a pairwise tree: more than the logarithm of any number of blocks
GROUP_LEVELS = 4  # that a thread of a team folds at a time
GROUP = 16


def pairwise(values, row, start, stride, count):
    """Fold `count` values of a row, `stride` apart, into the first, by a pairwise tree; others are lost."""
    while count > 1:
        half = count // 2
        for i in range(half):
            pair = start + 2 * i * stride
            values[row, start + i * stride] = values[row, pair] + values[row, pair + stride]
        if count % 2:
            values[row, start + half * stride] = values[row, start + (count - 1) * stride]
        count = half + count % 2
    return values[row, start] if count == 1 else 0.0


def pairwise_team(values, row, start, stride, count, thread, threads):
    """Fold as `pairwise` does, by all threads of a team; the sum is in the first for all to read.

    A thread takes four levels of the tree at a time. Where values are missing it adds zeros, which change no
    bit: no sum here is -0.
    """
    sums = stack(GROUP)
    while count > 1:
        groups = (count + GROUP - 1) // GROUP
        for begin in range(0, groups, threads):
            first = GROUP * (begin + thread)
            for i in range(GROUP):
                sums[i] = 0.0
                if first + i < count:
                    sums[i] = values[row, start + (first + i) * stride]
            for level in range(1, 1 + GROUP_LEVELS):
                for i in range(GROUP >> level):
                    sums[i] = sums[2 * i] + sums[2 * i + 1]
            barrier()  # what is written lies below what is read later on
            if begin + thread < groups:
                values[row, start + (begin + thread) * stride] = sums[0]
        barrier()
        count = groups


def pairwise_rows(values, row, start, width, count):
    """Fold `count` stretches of a row, `width` long and one after the other, as `pairwise` folds numbers."""
    while count > 1:
        half = count // 2
        for c in range(start, start + width):
            values[row, c] += values[row, c + width]
        for i in range(1, half):
            into, pair = start + i * width, start + 2 * i * width
            for c in range(width):
                values[row, into + c] = values[row, pair + c] + values[row, pair + width + c]
        if count % 2:
            into, last = start + half * width, start + (count - 1) * width
            for c in range(width):
                values[row, into + c] = values[row, last + c]
        count = half + count % 2


def close_subtrees(sums, depth, blocks, last):
    """Join the finished subtrees on top of the stack `sums`; the tree is the one of `pairwise`."""
    while depth > 1 and (blocks % 2 == 0 or last):
        depth -= 1
        sums[depth - 1] += sums[depth]
        blocks //= 2
    return depth
