"""The layout as pure geometry: regions, segments, chunks and slices of random parameters."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nbopt.kernels import tables as t
from nbopt.layout import ALIGNMENT, Item, Layout, as_slices, magnitude_shape, sums_of

MOST = 200_000  # elements of one random parameter
SIZES = st.one_of(
    st.integers(0, 7),
    st.sampled_from([31, 32, 33, 127, 129, 255, 256, 257, 511, 513, 4095, 4096, 4097, 20_000]),
)


@st.composite
def lists_of_items(draw):
    items = []
    for index in range(draw(st.integers(0, 7))):
        shape = []
        for _ in range(draw(st.integers(0, 4))):
            size = draw(SIZES)
            shape.append(size if math.prod(shape) * size <= MOST else 1)
        normed = draw(st.booleans())
        dim = draw(st.sampled_from([None, *range(len(shape))])) if normed else None
        items.append(Item(f"p{index}", tuple(shape), normed, dim))
    return items


def every_list(test):
    """Run a test on random items, and on some that are known to be at an edge."""
    edges = [
        [],
        [Item("a", ()), Item("b", (), True)],
        [Item("a", (0,)), Item("b", (0, 3), True, 1), Item("c", (3, 0), True, 0)],
        [Item("a", (4096,)), Item("b", (4097,)), Item("c", (8192,), True, 0)],
        [Item("a", (257, 513), True, 1), Item("b", (2, 5000), True, 0), Item("c", (3, 1, 2), True, 1)],
        [Item("a", (40_000,), True), Item("b", (2, 3, 1500), True, 1), Item("c", (70_000, 2), True, 1)],
    ]
    for items in edges:
        test = example(items=items, itemsize=4)(test)
    strategies = {"items": lists_of_items(), "itemsize": st.sampled_from([4, 8])}
    options = settings(max_examples=100, derandomize=True, database=None, deadline=None)
    return options(given(**strategies)(test))


def up(end, itemsize):
    unit = ALIGNMENT // itemsize
    return math.ceil(end / unit) * unit


def chunks_of(layout, segment):
    return [row for row in layout.chunks[:-1] if row[t.CHUNK_SEGMENT] == segment]


def kinds(layout, *kind):
    return [s for s, row in enumerate(layout.segments) if row[t.SEGMENT_KIND] in kind]


def covers_once(ranges, size):
    """Whether ranges (begin, length) cover 0, ..., size - 1, each number once."""
    count = np.zeros(size, np.int64)
    for begin, length in ranges:
        assert 0 <= begin <= begin + length <= size
        count[begin : begin + length] += 1
    return bool(np.all(count == 1))


# --- regions and segments --------------------------------------------------------------------------


@every_list
def test_regions_are_contiguous_aligned_and_in_order(items, itemsize):
    layout = Layout(items, itemsize)
    plain = [item for item in items if not item.normed]
    normed = [item for item in items if item.normed]
    end = 0
    for item in [*normed, *plain]:  # derived w, then plain: what the model reads
        assert layout.effective[item.name] == slice(end, end + item.size)
        end = up(end + item.size, itemsize)
        if item in normed:
            derived_end = end
    assert layout.effective_size == end
    assert layout.trainable_start == (derived_end if normed else 0)
    end = 0
    shapes = [item.shape for item in plain + normed]  # plain, v, g: what an optimizer moves
    shapes += [magnitude_shape(item.shape, item.dim) for item in normed]
    assert layout.shapes == shapes
    for segment, shape in zip(layout.segments, shapes, strict=True):
        assert (segment[t.SEGMENT_START], segment[t.SEGMENT_SIZE]) == (end, math.prod(shape))
        end = up(end + math.prod(shape), itemsize)
    assert layout.size == layout.trainable_start + end
    assert layout.normed is bool(normed)


@every_list
def test_segments_are_named_and_know_their_partners(items, itemsize):
    layout = Layout(items, itemsize)
    normed = [item for item in items if item.normed]
    assert layout.names == [
        *(item.name for item in items if not item.normed),
        *(f"{item.name}_v" for item in normed),
        *(f"{item.name}_g" for item in normed),
    ]
    directions, magnitudes = kinds(layout, t.KIND_DIRECTION), kinds(layout, t.KIND_MAGNITUDE)
    assert len(directions) == len(magnitudes) == len(normed)
    table = layout.segments
    for item, v, g in zip(normed, directions, magnitudes, strict=True):
        assert (table[v, t.SEGMENT_PARTNER], table[g, t.SEGMENT_PARTNER]) == (g, v)
        assert table[v, t.SEGMENT_DERIVED] == layout.effective[item.name].start
        if item.size:
            cut = tuple(table[v, [t.SEGMENT_OUTER, t.SEGMENT_SLICES, t.SEGMENT_INNER]])
            assert cut == as_slices(item.shape, item.dim)
    for s in kinds(layout, t.KIND_PLAIN):
        assert table[s, t.SEGMENT_PARTNER] == s


@every_list
def test_work_space_is_given_out_once(items, itemsize):
    layout = Layout(items, itemsize)
    table = layout.segments
    directions = kinds(layout, t.KIND_DIRECTION)
    assert covers_once(table[:, [t.SEGMENT_PARTIAL, t.SEGMENT_PARTIALS]], layout.partials)
    assert covers_once(table[directions][:, [t.SEGMENT_FIRST_SLICE, t.SEGMENT_SLICES]], layout.slices)
    tiles = [(row[t.SEGMENT_TILE], row[t.SEGMENT_PARTS] * row[t.SEGMENT_WIDTH]) for row in table[directions]]
    assert covers_once(tiles, layout.tiles)
    for v in directions:
        g = table[v, t.SEGMENT_PARTNER]
        assert table[v, t.SEGMENT_SLICES] == (table[g, t.SEGMENT_SIZE] if table[v, t.SEGMENT_SIZE] else 0)


def test_a_layout_does_not_depend_on_names():
    shapes = [(3, 5), (4097,), (), (300, 7)]
    one, other = (
        Layout([Item(f"{stem}{i}", s, i % 2 == 1, None) for i, s in enumerate(shapes)], 4) for stem in "az"
    )
    assert_array_equal(one.segments, other.segments)
    assert_array_equal(one.chunks, other.chunks)


# --- chunks ----------------------------------------------------------------------------------------


@every_list
def test_chunks_cover_every_plain_element_once(items, itemsize):
    layout = Layout(items, itemsize)
    for s in kinds(layout, t.KIND_PLAIN):
        segment, chunks = layout.segments[s], chunks_of(layout, s)
        assert all(c[t.CHUNK_SPAN] == t.SPAN_PLAIN for c in chunks)
        assert all(0 < c[t.CHUNK_SIZE] <= t.BLOCK for c in chunks)
        assert covers_once(
            [(c[t.CHUNK_START] - segment[t.SEGMENT_START], c[t.CHUNK_SIZE]) for c in chunks],
            segment[t.SEGMENT_SIZE],
        )
        # Each block counts from the first element of the parameter and has a partial sum of its own.
        first = segment[t.SEGMENT_PARTIAL]
        assert [c[t.CHUNK_FIRST] for c in chunks] == list(range(first, first + segment[t.SEGMENT_PARTIALS]))
        assert all((c[t.CHUNK_START] - segment[t.SEGMENT_START]) % t.BLOCK == 0 for c in chunks)


@every_list
def test_chunks_cover_every_element_of_a_direction_once(items, itemsize):
    layout = Layout(items, itemsize)
    for s in kinds(layout, t.KIND_DIRECTION):
        segment, chunks = layout.segments[s], chunks_of(layout, s)
        outer, slices, inner = segment[[t.SEGMENT_OUTER, t.SEGMENT_SLICES, t.SEGMENT_INNER]]
        size = segment[t.SEGMENT_SIZE]
        if not size:
            assert not chunks
            continue
        sums = sums_of(outer, slices, inner)
        assert all(c[t.CHUNK_SPAN] == sums.span for c in chunks)
        assert (segment[t.SEGMENT_PARTS], segment[t.SEGMENT_WIDTH]) == (sums.parts, sums.width)
        if sums.span == t.SPAN_TILE:
            assert outer > 1
            count = np.zeros((outer, slices * inner), np.int64)
            for c in chunks:
                assert 0 < c[t.CHUNK_SIZE] <= t.TILE_WIDTH
                row, column = c[t.CHUNK_FIRST] * t.ROW_BLOCK, c[t.CHUNK_START]
                count[row : row + t.ROW_BLOCK, column : column + c[t.CHUNK_SIZE]] += 1
            assert np.all(count == 1)
        elif sums.span == t.SPAN_PIECE:
            assert covers_once([(c[t.CHUNK_START], c[t.CHUNK_SIZE]) for c in chunks], size)
            for c in chunks:
                # Blocks count from the first element of their run, and no piece lies in two runs.
                assert (c[t.CHUNK_START] % inner) % t.BLOCK == 0
                assert c[t.CHUNK_SIZE] <= min(t.BLOCK, inner - c[t.CHUNK_START] % inner)
                # A partial sum stands in the column of its slice.
                column = c[t.CHUNK_FIRST] - segment[t.SEGMENT_TILE]
                assert column % slices == c[t.CHUNK_START] // inner % slices
            columns = sorted(int(c[t.CHUNK_FIRST] - segment[t.SEGMENT_TILE]) for c in chunks)
            assert columns == list(range(sums.parts * sums.width))
        else:
            assert outer == 1
            firsts = [(c[t.CHUNK_FIRST] - segment[t.SEGMENT_FIRST_SLICE], c[t.CHUNK_SIZE]) for c in chunks]
            assert covers_once(firsts, slices)


SHAPES = [
    ((1, 5, 4096), t.SPAN_ROWS, 0),  # a thread moves each slice while it is in cache
    ((1, 1, t.WHOLE), t.SPAN_ROWS, 0),
    ((1, 1, t.WHOLE + 1), t.SPAN_PIECE, t.WHOLE // t.BLOCK + 1),
    ((2, 3, t.RUN_FROM), t.SPAN_PIECE, 2),
    ((2, 3, t.RUN_FROM - 1), t.SPAN_TILE, 1),
    ((2, 3, t.BLOCK + 1), t.SPAN_PIECE, 4),
    ((t.ROW_BLOCK, 7, 1), t.SPAN_TILE, 1),
    ((t.ROW_BLOCK + 1, 7, 9), t.SPAN_TILE, 2),
]


@pytest.mark.parametrize(("cut", "span", "parts"), SHAPES, ids=[str(shape[0]) for shape in SHAPES])
def test_how_slices_are_summed(cut, span, parts):
    _, slices, inner = cut
    sums = sums_of(*cut)
    assert (sums.span, sums.parts) == (span, parts)
    assert sums.width == {t.SPAN_ROWS: 0, t.SPAN_PIECE: slices, t.SPAN_TILE: slices * inner}[span]


@every_list
def test_the_cost_column_ends_with_the_total(items, itemsize):
    layout = Layout(items, itemsize)
    costs = layout.chunks[:, t.CHUNK_COST]
    assert costs[0] == 0
    elements, plain = [], []
    for c in layout.chunks[:-1]:
        segment = layout.segments[c[t.CHUNK_SEGMENT]]
        assert segment[t.SEGMENT_KIND] != t.KIND_MAGNITUDE  # a g moves with its v
        rows = 1
        if c[t.CHUNK_SPAN] == t.SPAN_ROWS:
            rows = segment[t.SEGMENT_INNER]
        elif c[t.CHUNK_SPAN] == t.SPAN_TILE:
            rows = min(t.ROW_BLOCK, segment[t.SEGMENT_OUTER] - c[t.CHUNK_FIRST] * t.ROW_BLOCK)
        elements.append(c[t.CHUNK_SIZE] * rows)
        plain.append(segment[t.SEGMENT_KIND] == t.KIND_PLAIN)
    assert sum(elements) == sum(item.size for item in items)
    each, plain = np.array(elements, np.int64), np.array(plain, bool)
    visits = np.diff(costs) - np.where(plain, 2, 3) * each  # what two arrays less cost
    assert len(set(visits.tolist())) <= 1  # a chunk costs its elements and a constant
    assert np.all(visits >= 0)


@every_list
def test_late_chunks_stand_first_and_all_in_layout_order(items, itemsize):
    chunks = Layout(items, itemsize).chunks
    assert chunks.dtype == np.int64
    late = np.isin(chunks[:-1, t.CHUNK_SPAN], (t.SPAN_PIECE, t.SPAN_TILE))
    count = int(chunks[-1, t.CHUNK_FIRST])
    assert late[:count].all()
    assert not late[count:].any()
    for part in (chunks[:count], chunks[count:-1]):
        segments = part[:, t.CHUNK_SEGMENT]
        assert_array_equal(segments, np.sort(segments))


# --- slices ----------------------------------------------------------------------------------------

SLICES = [
    ((), None, (1, 1, 1), ()),
    ((5,), None, (1, 1, 5), (1,)),
    ((5,), 0, (1, 5, 1), (5,)),
    ((2, 3), 0, (1, 2, 3), (2, 1)),
    ((2, 3), 1, (2, 3, 1), (1, 3)),
    ((2, 3, 4), None, (1, 1, 24), (1, 1, 1)),
    ((2, 3, 4), 1, (2, 3, 4), (1, 3, 1)),
    ((2, 3, 4, 5), 3, (24, 5, 1), (1, 1, 1, 5)),
    ((3, 1, 2), 1, (1, 1, 6), (1, 1, 1)),  # one slice: all of it
    ((1, 1), 0, (1, 1, 1), (1, 1)),
    ((3, 0), 0, (1, 3, 0), (3, 1)),
]


@pytest.mark.parametrize(
    ("shape", "dim", "slices", "magnitude"), SLICES, ids=[f"{s[0]} {s[1]}" for s in SLICES]
)
def test_slices(shape, dim, slices, magnitude):
    assert as_slices(shape, dim) == slices
    assert magnitude_shape(shape, dim) == magnitude


@every_list
def test_a_slice_is_what_shares_an_index_along_the_kept_axis(items, itemsize):
    for item in items:
        if item.normed and item.size:
            outer, slices, inner = as_slices(item.shape, item.dim)
            number = np.arange(item.size) // inner % slices  # of the slice of each element, in C order
            along = np.zeros(item.shape, np.int64)
            if item.dim is not None:
                along = np.indices(item.shape, sparse=True)[item.dim] + along
            assert_array_equal(number, along.reshape(-1))
            assert outer * slices * inner == item.size
            assert math.prod(magnitude_shape(item.shape, item.dim)) == slices
            assert len(magnitude_shape(item.shape, item.dim)) == len(item.shape)
