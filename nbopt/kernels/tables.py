"""The tables that a step reads and writes: each column is described here and nowhere else.

A table is a 2-D array, int64 or float64, one row per segment, chunk, group, clip or slice. It is allocated
once and edited in place, so that an edit is seen by the next step, also inside a running compiled loop.
Offsets and sizes count elements; flags are 0 or 1. The names below are the columns; the last name of each
list is their number.
"""

from __future__ import annotations

# The shape of every reduction (contract N3): a change of one of these changes bits.
LANES = 128
BLOCK = 4096
ROW_BLOCK = 256
# Exponent bins of a sum, the rows of `partials`: small, middle, large (contract N2).
BINS = 3
# From here on a run of a slice that lies in several is summed by blocks, as a contiguous slice is.
RUN_FROM = 1024
# Free, they change no bit: how wide a tile of columns is, how narrow it may be cut to have work for several
# threads, and how long a slice may be that one thread moves alone, while it is in cache.
TILE_WIDTH = 4096
TILE_LEAST = 512
WHOLE = 32768

KIND_PLAIN, KIND_DIRECTION, KIND_MAGNITUDE = range(3)  # a plain parameter, the v or the g of a normed one

# int64, owned by the buffer: one trainable array.
(
    SEGMENT_KIND,  # KIND_*
    SEGMENT_START,  # first element, in the trainable part
    SEGMENT_SIZE,
    SEGMENT_PARTIAL,  # first column of its partial sums
    SEGMENT_PARTIALS,  # their number: chunks of a plain segment, slices of a normed one
    SEGMENT_PARTNER,  # the g of a v, the v of a g, itself for a plain one
    SEGMENT_DERIVED,  # first element of w, in the effective part (v only)
    SEGMENT_OUTER,  # a v is seen as (outer, slices, inner)
    SEGMENT_SLICES,
    SEGMENT_INNER,
    SEGMENT_FIRST_SLICE,
    SEGMENT_TILE,  # first column of its partial sums in `tiles`
    SEGMENT_PARTS,  # how many rows of partial sums; 0 where each chunk holds whole slices
    SEGMENT_WIDTH,  # columns of a row: slices (pieces), or slices times inner (tiles)
    SEGMENT_COLUMNS,
) = range(15)

# What a chunk is: a run of a plain parameter; whole contiguous slices; a piece of one slice; a tile whose
# slices are columns. The last two are late: w waits for every chunk of its slices.
SPAN_PLAIN, SPAN_ROWS, SPAN_PIECE, SPAN_TILE = range(4)

# int64, owned by the buffer: the unit of work.
(
    CHUNK_SPAN,  # SPAN_*
    CHUNK_SEGMENT,
    CHUNK_START,  # first element in the trainable part (run) or of the segment (piece), first column (tile)
    CHUNK_SIZE,  # elements (run, piece), slices (rows), columns (tile)
    CHUNK_FIRST,  # column of `partials` (run) or `tiles` (piece), slice (rows), row block (tile)
    CHUNK_COST,  # of the chunks before it
    CHUNK_COLUMNS,
) = range(7)
# Late chunks stand first. The last row is no chunk: its CHUNK_FIRST is the number of late chunks, its
# CHUNK_COST the cost of all.

REGULARIZER_NONE, REGULARIZER_L1, REGULARIZER_L2 = range(3)

# float64, owned by the buffer: the attributes of one segment.
(
    ATTRIBUTE_RATE,  # multiplies the learning rate
    ATTRIBUTE_L1,
    ATTRIBUTE_L2,
    ATTRIBUTE_REGULARIZER,  # REGULARIZER_*; if any, l1 and l2 stand in place of the group's
    ATTRIBUTE_NEED_CLIP,
    ATTRIBUTE_TRAINABLE,
    ATTRIBUTE_PRESENT,  # its gradient has been written
    ATTRIBUTE_AVERAGE,
    ATTRIBUTE_MOVED,  # 1 if the last step of its optimizer took it, 0 if not; -1 before any step
    ATTRIBUTE_COLUMNS,
) = range(10)

# int64, owned by the optimizer: one segment.
(
    MEMBER_GROUP,  # row of the group table, -1 for a segment that the optimizer does not move
    MEMBER_STEPS,  # updates taken; in the first row of an edit, the rows of its clip table
    MEMBER_ORDER,  # the segments sorted by clip, then name: the order in which sums join a global norm
    MEMBER_COLUMNS,
) = range(4)

# float64, owned by the optimizer: one group. The hyper-parameters of the rule follow.
(
    GROUP_RATE,  # multiplies the learning rate
    GROUP_L1,
    GROUP_L2,
    GROUP_RESCALE,  # multiplies the gradient before everything else
    GROUP_CLIP,  # row of the clip table
    GROUP_HYPER,
) = range(6)

CLIP_NONE, CLIP_VALUE, CLIP_NORM, CLIP_GLOBAL = range(4)

# float64, owned by the optimizer: one clip object. Row 0 clips nothing.
(
    CLIP_KIND,  # CLIP_NONE ... CLIP_GLOBAL
    CLIP_LIMIT,
    CLIP_LOW,
    CLIP_HIGH,
    CLIP_FIRST,  # its segments in MEMBER_ORDER
    CLIP_COUNT,
    CLIP_COEFFICIENT,  # of the last step, see scalars.clip_coefficient
    CLIP_SCALE,
    CLIP_LARGEST,  # of the rescale factors of its segments
    CLIP_COLUMNS,
) = range(10)

# float64, owned by the optimizer: what a step forms for one segment. What the rule reads follows, rate first.
(
    COEFFICIENT_ACTIVE,  # moves in this step
    COEFFICIENT_GENERAL,  # takes the general loop: bounds, L1, or a factor outside the normal range
    COEFFICIENT_FACTOR,  # rescale times clip coefficient, rounded to the storage dtype where that is normal
    COEFFICIENT_SCALE,  # an exact power of two, multiplied first; 1 but for sums outside the middle bin
    COEFFICIENT_LOW,
    COEFFICIENT_HIGH,
    COEFFICIENT_L1,
    COEFFICIENT_L2,
    COEFFICIENT_SQUARE,  # sum of squares of the gradient before rescale, a column per exponent bin
    COEFFICIENT_CLIP,  # the clip coefficient
    COEFFICIENT_RESCALE,
    COEFFICIENT_MEASURED,  # pass 1 reads its gradient
    COEFFICIENT_RULE,
) = (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14)

# float64, owned by the optimizer: a row for each of these, a column for each set of elements of a normed
# parameter that share a norm.
(
    SLICE_VV,  # sums of v*v, v*d, d*d, with d = dL/dw
    SLICE_VD,
    SLICE_DD,
    SLICE_POWER_V,  # exact powers of two that v and d were multiplied by in these sums and in what
    SLICE_POWER_D,  # follows; 1 but for float64 outside the safe range of squares
    SLICE_ALPHA,  # g / |v|
    SLICE_BETA,  # v.d / |v|^2
    SLICE_SLOPE,  # dL/dg = v.d / |v|, of v and d themselves
    SLICE_SQUARE,  # sum of v*v after the update
    SLICE_FACTOR,  # w = factor (power v) after the update
    SLICE_POWER,
    SLICE_ROWS,
) = range(12)

# int64, owned by the optimizer: one row.
(
    BUSY,  # 1 while a step runs
    GUARD,  # GUARD_*
    STATUS,  # 1 once a step was refused and the error is still to be raised
    STEPS,  # steps taken
    SKIPPED,  # steps refused
    CONSECUTIVE,  # steps refused in a row
    BAD_SEGMENT,  # the segment that had the last one refused
    ZERO_SLICES,  # zero slices met by the last step
    MEASURED,  # 1 if the last step summed the squares of every segment that moved
    CLIPS_USED,  # rows of the clip table
    OUTCOME,  # what the last fold returned
    TICKETS,  # on a GPU: how many blocks of the launch that runs are done
    REQUESTED,  # edits of groups and clips left aside for the next step, see nbopt.kernels.cpu.step.adopt
    ADOPTED,  # those that a step took over
    FLUSHED,  # FLUSHED_* of the steps since it was last read and cleared; stays 0 on a GPU
    COUNTER_COLUMNS,
) = range(16)
STAGES = 3  # of members, groups and clips on the CPU: the rows in use, and two edits in turn

GUARD_PROPAGATE, GUARD_SKIP, GUARD_RAISE = range(3)  # what a non-finite gradient does
MAX_CONSECUTIVE = 10

STEPPED, REFUSED, CONCURRENT = range(3)  # what a step returns
FLUSHING = 4  # added to that by a step on the CPU that leaves something in FLUSHED
# Subnormal numbers were zero: in the thread that called the step; in a worker but not in that one, or the
# reverse.
FLUSHED_CALLER, FLUSHED_APART = 1, 2

# What a compiled step is given: an int64 table of addresses, (address, rows, columns) for each of these.
(
    TRAINABLE,  # storage dtype: plain parameters, v and g
    GRADIENT,  # storage dtype: of the plain parameters, same offsets
    DERIVED,  # storage dtype: w
    DERIVED_GRADIENT,  # storage dtype: dL/dw, same offsets
    ACCUMULATORS,  # storage dtype: a row per accumulator of the rule, along the trainable part
    CHUNKS,
    SEGMENTS,
    ATTRIBUTES,
    MEMBERS,
    GROUPS,
    CLIPS,
    COEFFICIENTS,
    SLICES,
    PARTIALS,  # float64 work space: a row per exponent bin, a column per partial sum and one per segment
    TILES,  # float64 work space: sums of v*v, v*d, d*d, see SEGMENT_TILE
    RATES,  # float64: the learning rate
    COUNTERS,
    TABLES,
) = range(18)
ADDRESS_COLUMNS = 3

# What compiled code of the user's needs to take a step, one int64 row.
(
    CALL_CODE,  # address of machine code: step(tables, threads)
    CALL_TABLES,  # address of the table of addresses
    CALL_THREADS,
    CALL_SERIAL,  # machine code for one thread
    CALL_SELF,  # address of this row: a copy keeps nothing alive
    CALL_COLUMNS,
) = range(6)
