"""Columns and partial sums to coefficients: everything between the two passes of a step, for every device.

Every function reads the tables it needs from the table of addresses; the backends compile it.
"""

# mypy: ignore-errors

from __future__ import annotations

import math

from nbopt.kernels.intrinsics import integers, reals
from nbopt.kernels.scalars import (
    BIN_FROM,
    BIN_TO,
    SHRINK,
    clip_coefficient,
    is_normal,
    magnitude_of,
    rounded,
)
from nbopt.kernels.slices import fold_slices
from nbopt.kernels.tables import (
    ATTRIBUTE_L1,
    ATTRIBUTE_L2,
    ATTRIBUTE_MOVED,
    ATTRIBUTE_NEED_CLIP,
    ATTRIBUTE_PRESENT,
    ATTRIBUTE_RATE,
    ATTRIBUTE_REGULARIZER,
    ATTRIBUTE_TRAINABLE,
    ATTRIBUTES,
    BAD_SEGMENT,
    CLIP_COEFFICIENT,
    CLIP_COUNT,
    CLIP_FIRST,
    CLIP_GLOBAL,
    CLIP_HIGH,
    CLIP_KIND,
    CLIP_LARGEST,
    CLIP_LIMIT,
    CLIP_LOW,
    CLIP_NORM,
    CLIP_SCALE,
    CLIP_VALUE,
    CLIPS,
    CLIPS_USED,
    COEFFICIENT_ACTIVE,
    COEFFICIENT_CLIP,
    COEFFICIENT_FACTOR,
    COEFFICIENT_GENERAL,
    COEFFICIENT_HIGH,
    COEFFICIENT_L1,
    COEFFICIENT_L2,
    COEFFICIENT_LOW,
    COEFFICIENT_MEASURED,
    COEFFICIENT_RESCALE,
    COEFFICIENT_SCALE,
    COEFFICIENT_SQUARE,
    COEFFICIENTS,
    CONSECUTIVE,
    COUNTERS,
    GROUP_CLIP,
    GROUP_L1,
    GROUP_L2,
    GROUP_RATE,
    GROUP_RESCALE,
    GROUPS,
    GUARD,
    GUARD_PROPAGATE,
    GUARD_RAISE,
    KIND_DIRECTION,
    KIND_PLAIN,
    MAX_CONSECUTIVE,
    MEASURED,
    MEMBER_GROUP,
    MEMBER_ORDER,
    MEMBER_STEPS,
    MEMBERS,
    PARTIALS,
    RATES,
    REFUSED,
    SEGMENT_KIND,
    SEGMENT_PARTIAL,
    SEGMENT_PARTIALS,
    SEGMENT_PARTNER,
    SEGMENTS,
    SKIPPED,
    STATUS,
    STEPPED,
    STEPS,
    ZERO_SLICES,
)
from nbopt.kernels.team import TEAM, any_thread, barrier, keep_largest, keep_least
from nbopt.kernels.trees import pairwise, pairwise_team

NORMED = True  # binding says whether a parameter has weight norm
LONG = 64  # partial sums, from which a team folds a segment together


def prepare(tables, s, step, lr, group):
    """Write what the rule reads for segment `s`, in float64. Replaced at binding by the rule's own."""


def is_moved(s, tables):
    """Whether the optimizer may move segment `s`."""
    members, attributes = integers(tables, MEMBERS), reals(tables, ATTRIBUTES)
    return members[s, MEMBER_GROUP] >= 0 and attributes[s, ATTRIBUTE_TRAINABLE] != 0.0


def is_measured(s, tables):
    """Whether pass 1 reads the gradient of segment `s`."""
    segments = integers(tables, SEGMENTS)
    if NORMED and segments[s, SEGMENT_KIND] != KIND_PLAIN:
        return is_moved(s, tables) or is_moved(segments[s, SEGMENT_PARTNER], tables)
    if not is_moved(s, tables):
        return False
    attributes = reals(tables, ATTRIBUTES)
    if integers(tables, COUNTERS)[0, GUARD] != GUARD_PROPAGATE or attributes[s, ATTRIBUTE_PRESENT] == 0.0:
        return True
    group = integers(tables, MEMBERS)[s, MEMBER_GROUP]
    clip = int(reals(tables, GROUPS)[group, GROUP_CLIP])
    return attributes[s, ATTRIBUTE_NEED_CLIP] != 0.0 and reals(tables, CLIPS)[clip, CLIP_KIND] >= CLIP_NORM


def mark_measured(thread, threads, tables):
    """Say what pass 1 reads."""
    coefficients = reals(tables, COEFFICIENTS)
    for s in range(thread, coefficients.shape[0], threads):
        coefficients[s, COEFFICIENT_MEASURED] = 1.0 if is_measured(s, tables) else 0.0


def activate(s, active, tables):
    """Say whether the step takes segment `s`, to its loops and to averages."""
    reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] = active
    if integers(tables, MEMBERS)[s, MEMBER_GROUP] >= 0:
        reals(tables, ATTRIBUTES)[s, ATTRIBUTE_MOVED] = active


def fold_segment(s, measured, tables):
    """Sum of squares of one segment, and whether it is active; return whether its gradient is finite."""
    segments, partials = integers(tables, SEGMENTS), reals(tables, PARTIALS)
    attributes, coefficients = reals(tables, ATTRIBUTES), reals(tables, COEFFICIENTS)
    total = 0.0
    for b in range(BIN_FROM, BIN_TO):
        square = 0.0
        if measured:
            first, count = segments[s, SEGMENT_PARTIAL], segments[s, SEGMENT_PARTIALS]
            square = partials[b, first]
            if not TEAM or count <= LONG:
                square = pairwise(partials, b, first, 1, count)
        coefficients[s, COEFFICIENT_SQUARE + b] = square
        total += square
    if total != 0.0 and segments[s, SEGMENT_KIND] == KIND_PLAIN:
        attributes[s, ATTRIBUTE_PRESENT] = 1.0
    active, group = 0.0, integers(tables, MEMBERS)[s, MEMBER_GROUP]
    if group >= 0 and attributes[s, ATTRIBUTE_TRAINABLE] != 0.0:
        active = attributes[s, ATTRIBUTE_PRESENT]
        coefficients[s, COEFFICIENT_RESCALE] = reals(tables, GROUPS)[group, GROUP_RESCALE]
    activate(s, active, tables)
    return active == 0.0 or math.isfinite(total)


def is_shared(s, tables):
    """Whether a team folds segment `s` together: a v, and one of many partial sums."""
    segments = integers(tables, SEGMENTS)
    if reals(tables, COEFFICIENTS)[s, COEFFICIENT_MEASURED] == 0.0:
        return False
    if NORMED and segments[s, SEGMENT_KIND] == KIND_DIRECTION:
        return True
    return TEAM and segments[s, SEGMENT_PARTIALS] > LONG


def fold_shared(thread, threads, tables):
    """What a team folds together, found by a look at as many segments at a time as it has threads."""
    segments, partials = integers(tables, SEGMENTS), reals(tables, PARTIALS)
    count = segments.shape[0]
    for begin in range(0, count, threads):
        if any_thread(begin + thread < count and is_shared(begin + thread, tables)):
            for s in range(begin, min(begin + threads, count)):
                if is_shared(s, tables):
                    if NORMED and segments[s, SEGMENT_KIND] == KIND_DIRECTION:
                        fold_slices(s, thread, threads, tables)
                        barrier()
                    if TEAM and segments[s, SEGMENT_PARTIALS] > LONG:
                        first, sums = segments[s, SEGMENT_PARTIAL], segments[s, SEGMENT_PARTIALS]
                        for b in range(BIN_FROM, BIN_TO):
                            pairwise_team(partials, b, first, 1, sums, thread, threads)


def fold_sums(thread, threads, tables):
    """Sums of squares of every segment; return whether the step may go on."""
    counters, coefficients = integers(tables, COUNTERS), reals(tables, COEFFICIENTS)
    none = coefficients.shape[0]
    if thread == 0:
        counters[0, ZERO_SLICES] = 0
        counters[0, MEASURED] = 1
        counters[0, BAD_SEGMENT] = none
    barrier()
    if NORMED or TEAM:
        fold_shared(thread, threads, tables)
    for s in range(thread, none, threads):
        measured = coefficients[s, COEFFICIENT_MEASURED] != 0.0
        if not fold_segment(s, measured, tables):
            keep_least(counters, BAD_SEGMENT, s)
        if not measured and coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
            counters[0, MEASURED] = 0
    barrier()
    if counters[0, BAD_SEGMENT] == none or counters[0, GUARD] == GUARD_PROPAGATE:
        return True
    # Nothing was taken, so there is nothing to report.
    for s in range(thread, none, threads):
        activate(s, 0.0, tables)
    if thread == 0:
        counters[0, MEASURED] = 0
        counters[0, SKIPPED] += 1
        counters[0, CONSECUTIVE] += 1
        if counters[0, GUARD] == GUARD_RAISE or counters[0, CONSECUTIVE] >= MAX_CONSECUTIVE:
            counters[0, STATUS] = 1
    return False


def clipped_rescale(s, tables):
    """|rescale| of a segment that takes part in a clip, 0 of one that does not."""
    if reals(tables, COEFFICIENTS)[s, COEFFICIENT_ACTIVE] == 0.0:
        return 0.0
    if reals(tables, ATTRIBUTES)[s, ATTRIBUTE_NEED_CLIP] == 0.0:
        return 0.0
    return math.fabs(reals(tables, COEFFICIENTS)[s, COEFFICIENT_RESCALE])


def clip_to(limit, factor, low, middle, high):
    """Clip coefficient, and its power of two, of `factor` times the root of a sum kept in exponent bins."""
    norm, scale = magnitude_of(low, middle, high)
    return clip_coefficient(factor * norm, scale, limit, SHRINK)


def fold_clip(r, thread, threads, tables):
    """Coefficient of one global norm: a pairwise tree in name order over all its segments (contract N3).

    Rescale factors enter relative to the largest, so that equal ones enter as 1 and none overflows.
    """
    clips, members = reals(tables, CLIPS), integers(tables, MEMBERS)
    partials, coefficients = reals(tables, PARTIALS), reals(tables, COEFFICIENTS)
    first, count = int(clips[r, CLIP_FIRST]), int(clips[r, CLIP_COUNT])
    scratch = partials.shape[1] - coefficients.shape[0]
    if thread == 0:
        clips[r, CLIP_LARGEST] = 0.0
    barrier()
    for i in range(thread, count, threads):
        keep_largest(clips, r, CLIP_LARGEST, clipped_rescale(members[first + i, MEMBER_ORDER], tables))
    barrier()
    largest = clips[r, CLIP_LARGEST]
    for i in range(thread, count, threads):
        s = members[first + i, MEMBER_ORDER]
        weight = clipped_rescale(s, tables)
        if weight > 0.0:
            weight /= largest
        for b in range(BIN_FROM, BIN_TO):
            # A segment outside adds +0, whatever its sum.
            partials[b, scratch + i] = (
                weight * weight * coefficients[s, COEFFICIENT_SQUARE + b] if weight > 0.0 else 0.0
            )
    barrier()
    for b in range(BIN_FROM, BIN_TO):
        if TEAM:
            pairwise_team(partials, b, scratch, 1, count, thread, threads)
        else:
            pairwise(partials, b, scratch, 1, count)
    if thread == 0:
        clips[r, CLIP_COEFFICIENT], clips[r, CLIP_SCALE] = clip_to(
            clips[r, CLIP_LIMIT], largest, partials[0, scratch], partials[1, scratch], partials[2, scratch]
        )
    barrier()


def fold_coefficients(s, tables):
    """Attribute, group and clip columns of one active segment to the coefficients of its loops."""
    attributes, groups, clips = (
        reals(tables, ATTRIBUTES),
        reals(tables, GROUPS),
        reals(tables, CLIPS),
    )
    members, coefficients = integers(tables, MEMBERS), reals(tables, COEFFICIENTS)
    group = members[s, MEMBER_GROUP]
    clip = int(groups[group, GROUP_CLIP])
    rescale = coefficients[s, COEFFICIENT_RESCALE]
    kind = clips[clip, CLIP_KIND] if attributes[s, ATTRIBUTE_NEED_CLIP] != 0.0 else 0.0
    coefficient, scale = 1.0, 1.0
    low, high = -math.inf, math.inf
    if kind == CLIP_GLOBAL:
        coefficient, scale = clips[clip, CLIP_COEFFICIENT], clips[clip, CLIP_SCALE]
    elif kind == CLIP_NORM:
        coefficient, scale = clip_to(
            clips[clip, CLIP_LIMIT],
            math.fabs(rescale),
            coefficients[s, COEFFICIENT_SQUARE],
            coefficients[s, COEFFICIENT_SQUARE + 1],
            coefficients[s, COEFFICIENT_SQUARE + 2],
        )
    elif kind == CLIP_VALUE:
        low, high = clips[clip, CLIP_LOW], clips[clip, CLIP_HIGH]
    l1, l2 = groups[group, GROUP_L1], groups[group, GROUP_L2]
    if attributes[s, ATTRIBUTE_REGULARIZER] != 0.0:
        l1, l2 = attributes[s, ATTRIBUTE_L1], attributes[s, ATTRIBUTE_L2]
    factor = rescale * coefficient
    bounded = low > -math.inf or high < math.inf
    normal = is_normal(factor)
    plain = not bounded and l1 == 0.0 and scale == 1.0 and normal
    coefficients[s, COEFFICIENT_GENERAL] = 0.0 if plain else 1.0
    coefficients[s, COEFFICIENT_FACTOR] = rounded(factor)
    coefficients[s, COEFFICIENT_SCALE] = scale
    coefficients[s, COEFFICIENT_LOW] = low
    coefficients[s, COEFFICIENT_HIGH] = high
    coefficients[s, COEFFICIENT_L1] = l1
    coefficients[s, COEFFICIENT_L2] = l2
    coefficients[s, COEFFICIENT_CLIP] = coefficient * scale
    members[s, MEMBER_STEPS] += 1
    rate = reals(tables, RATES)[0, 0] * groups[group, GROUP_RATE] * attributes[s, ATTRIBUTE_RATE]
    prepare(tables, s, members[s, MEMBER_STEPS], rate, group)


def fold(thread, threads, tables):
    """Fold the sums of pass 1 and form every coefficient of pass 2; return STEPPED, or REFUSED."""
    if not fold_sums(thread, threads, tables):
        return REFUSED
    counters, coefficients = integers(tables, COUNTERS), reals(tables, COEFFICIENTS)
    for r in range(counters[0, CLIPS_USED]):
        if reals(tables, CLIPS)[r, CLIP_KIND] == CLIP_GLOBAL:
            fold_clip(r, thread, threads, tables)
    for s in range(thread, coefficients.shape[0], threads):
        if coefficients[s, COEFFICIENT_ACTIVE] != 0.0:
            fold_coefficients(s, tables)
    if thread == 0:
        counters[0, STEPS] += 1
        counters[0, CONSECUTIVE] = 0
    return STEPPED
