"""Where everything lies: regions, segments, chunks and slices. Pure geometry; no values, no policies.

The flat buffer is laid out as ``[ derived w | plain parameters | weight-norm v | g ]``. The first two
regions are the *effective* part, what the model reads; the last three the *trainable* part, what an
optimizer moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbopt.kernels import tables as t

__all__ = [
    "ALIGNMENT",
    "CPU_CUTS",
    "CUDA_CUTS",
    "Cuts",
    "Item",
    "Layout",
    "Sums",
    "as_slices",
    "magnitude_shape",
    "sums_of",
]

ALIGNMENT = 128  # bytes: whole cache lines, and vector loads on a GPU
# What an element costs, of a plain and of a normed parameter, and a chunk beside its elements.
_PLAIN, _NORMED, _VISIT = 2, 3, 128
_Numbers = int | NDArray[np.int64]
_TILES = 8  # that a parameter is cut into, where it is wide enough


@dataclass(frozen=True)
class Item:
    """One parameter as the layout sees it; with `normed`, weight norm along `dim`, the kept axis or None."""

    name: str
    shape: tuple[int, ...]
    normed: bool = False
    dim: int | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def as_slices(shape: tuple[int, ...], dim: int | None) -> tuple[int, int, int]:
    """See an array as (outer, slices, inner), where the elements of one slice share a norm.

    Examples
    --------
    >>> from nbopt.layout import as_slices
    >>> as_slices((2, 3, 4), 1), as_slices((2, 3, 4), None)
    ((2, 3, 4), (1, 1, 24))
    """
    size = math.prod(shape)
    if dim is None or shape[dim] == 1:
        return 1, 1, size
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def magnitude_shape(shape: tuple[int, ...], dim: int | None) -> tuple[int, ...]:
    """Return the shape of g: the rank is kept, every reduced axis has size 1.

    Examples
    --------
    >>> from nbopt.layout import magnitude_shape
    >>> magnitude_shape((2, 3, 4), 1), magnitude_shape((2, 3), None)
    ((1, 3, 1), (1, 1))
    """
    return tuple(size if axis == dim else 1 for axis, size in enumerate(shape))


@dataclass(frozen=True)
class Sums:
    """How the sums of the slices of an array are formed: by which chunks, from how many partial sums.

    Attributes
    ----------
    span : int
        SPAN_ROWS, SPAN_PIECE or SPAN_TILE, see `nbopt.kernels.tables`.
    parts, width : int
        Rows and columns of partial sums; 0 where each chunk holds whole slices.
    """

    span: int
    parts: int = 0
    width: int = 0


@dataclass(frozen=True)
class Cuts:
    """How a device likes its work cut; no bit depends on it.

    Attributes
    ----------
    whole : int
        The longest slice that one thread, or warp, moves alone.
    tile_width, tile_least : int
        How wide a tile of columns is, and how narrow it may be cut to have work for all.
    """

    whole: int
    tile_width: int
    tile_least: int


CPU_CUTS = Cuts(t.WHOLE, t.TILE_WIDTH, t.TILE_LEAST)
CUDA_CUTS = Cuts(t.BLOCK, 32, 32)  # what a warp takes


def sums_of(outer: int, slices: int, inner: int, whole: int = t.WHOLE) -> Sums:
    """Return how the slices of (outer, slices, inner) are summed; `whole` as in `Cuts`.

    Examples
    --------
    >>> from nbopt.layout import sums_of
    >>> sums_of(1, 10, 100).parts, sums_of(1, 1, 100_000).parts, sums_of(300, 10, 9).parts
    (0, 25, 2)
    """
    if not outer * slices * inner or (outer == 1 and inner <= whole):
        return Sums(t.SPAN_ROWS)
    if outer == 1 or inner >= t.RUN_FROM:
        return Sums(t.SPAN_PIECE, outer * -(-inner // t.BLOCK), slices)
    return Sums(t.SPAN_TILE, -(-outer // t.ROW_BLOCK), slices * inner)


class Layout:
    """Offsets and tables of a flat buffer.

    Parameters
    ----------
    items : iterable of Item
        In creation order.
    itemsize : int
        Bytes per element.
    cuts : Cuts
        What the device likes.

    Attributes
    ----------
    size, effective_size, trainable_start : int
        Elements of the buffer; of its effective part; of the derived region before the trainable part.
    names : list of str
        Of the segments: the plain parameters, then every v, then every g.
    shapes : list of tuple of int
        Of the segments.
    segments, chunks : int64 arrays
        See `nbopt.kernels.tables`.
    effective : dict of str to slice
        Where each parameter's effective value lies in the buffer.
    partials, slices, tiles : int
        Columns of work space that a step needs.
    normed : bool
        Whether any parameter has weight norm.
    """

    def __init__(self, items: Iterable[Item], itemsize: int, cuts: Cuts = CPU_CUTS):
        self._cuts = cuts
        self._unit = ALIGNMENT // itemsize
        items = list(items)
        plain = [item for item in items if not item.normed]
        normed = [item for item in items if item.normed]
        self.normed = bool(normed)
        self.effective: dict[str, slice] = {}

        end = 0
        derived = []
        for item in normed:
            derived.append(end)
            self.effective[item.name] = slice(end, end + item.size)
            end = self._aligned(end + item.size)
        self.trainable_start = end
        starts = []
        for item in plain:
            starts.append(end - self.trainable_start)
            self.effective[item.name] = slice(end, end + item.size)
            end = self._aligned(end + item.size)
        self.effective_size = end
        for item in normed:
            starts.append(end - self.trainable_start)
            end = self._aligned(end + item.size)
        for item in normed:
            starts.append(end - self.trainable_start)
            end = self._aligned(end + math.prod(magnitude_shape(item.shape, item.dim)))
        self.size = end

        self.names = [item.name for item in plain]
        self.names += [f"{item.name}_v" for item in normed] + [f"{item.name}_g" for item in normed]
        self.shapes = [item.shape for item in plain + normed]
        self.shapes += [magnitude_shape(item.shape, item.dim) for item in normed]
        self.segments = np.zeros((len(self.names), t.SEGMENT_COLUMNS), np.int64)
        self.segments[:, t.SEGMENT_START] = starts
        self.segments[:, t.SEGMENT_SIZE] = [math.prod(shape) for shape in self.shapes]
        self.segments[:, t.SEGMENT_PARTNER] = np.arange(len(self.names))
        self.segments[:, t.SEGMENT_OUTER] = 1
        self._place_sums(len(plain), normed, derived)
        self.chunks = self._cut()

    def _aligned(self, end: int) -> int:
        return -(-end // self._unit) * self._unit

    def _place_sums(self, plain: int, normed: list[Item], derived: list[int]) -> None:
        """Kinds, slices, and the rows of work space of each segment."""
        table = self.segments
        table[:, t.SEGMENT_PARTIALS] = -(-table[:, t.SEGMENT_SIZE] // t.BLOCK)
        slices = tiles = 0
        for k, item in enumerate(normed):
            direction, magnitude = plain + k, plain + len(normed) + k
            outer, count, inner = as_slices(item.shape, item.dim)
            sums = sums_of(outer, count, inner, self._cuts.whole)
            count = count if item.size else 0
            for segment, kind, partner in (
                (direction, t.KIND_DIRECTION, magnitude),
                (magnitude, t.KIND_MAGNITUDE, direction),
            ):
                row = table[segment]
                row[t.SEGMENT_KIND], row[t.SEGMENT_PARTNER] = kind, partner
                row[t.SEGMENT_PARTIALS] = row[t.SEGMENT_SLICES] = count
                row[t.SEGMENT_FIRST_SLICE] = slices
            row = table[direction]
            row[t.SEGMENT_DERIVED] = derived[k]
            row[t.SEGMENT_OUTER], row[t.SEGMENT_INNER] = outer, inner
            row[t.SEGMENT_TILE] = tiles
            row[t.SEGMENT_PARTS], row[t.SEGMENT_WIDTH] = sums.parts, sums.width
            slices += count
            tiles += sums.parts * sums.width
        table[:plain, t.SEGMENT_KIND] = t.KIND_PLAIN
        ends = np.cumsum(table[:, t.SEGMENT_PARTIALS])
        table[:, t.SEGMENT_PARTIAL] = ends - table[:, t.SEGMENT_PARTIALS]
        self.partials = int(ends[-1]) if len(ends) else 0
        self.slices, self.tiles = slices, tiles

    def _cut(self) -> NDArray[np.int64]:
        """Cut the segments into chunks, the late ones first, and add the last row."""
        normed = np.flatnonzero(self.segments[:, t.SEGMENT_KIND] == t.KIND_DIRECTION)
        pieces = [
            self._cut_normed(index) for index in normed.tolist() if self.segments[index, t.SEGMENT_SIZE]
        ]
        late = [piece for piece in pieces if piece[0, t.CHUNK_SPAN] != t.SPAN_ROWS]
        rows = [piece for piece in pieces if piece[0, t.CHUNK_SPAN] == t.SPAN_ROWS]
        last = np.zeros((1, t.CHUNK_COLUMNS), np.int64)
        chunks = np.concatenate([*late, self._cut_plain(), *rows, last])
        chunks[-1, t.CHUNK_FIRST] = sum(map(len, late))
        costs = chunks[:, t.CHUNK_COST]
        costs[1:] = np.cumsum(costs[:-1])
        costs[0] = 0
        return chunks

    def _cut_plain(self) -> NDArray[np.int64]:
        """Chunks of all plain segments; the cost is their own."""
        table = self.segments[self.segments[:, t.SEGMENT_KIND] == t.KIND_PLAIN]
        index = np.repeat(np.arange(len(table)), table[:, t.SEGMENT_PARTIALS])
        first = np.arange(len(index))  # plain segments stand first, so this counts their partial sums, too
        at = (first - table[index, t.SEGMENT_PARTIAL]) * t.BLOCK
        start = table[index, t.SEGMENT_START] + at
        size = np.minimum(t.BLOCK, table[index, t.SEGMENT_SIZE] - at)
        return _chunks(t.SPAN_PLAIN, index, start, size, first, size)

    def _cut_normed(self, index: int) -> NDArray[np.int64]:
        """Chunks of one v; the cost is their own."""
        segment = self.segments[index]
        outer, slices, inner = segment[[t.SEGMENT_OUTER, t.SEGMENT_SLICES, t.SEGMENT_INNER]]
        span = sums_of(outer, slices, inner, self._cuts.whole).span
        start: _Numbers
        if span == t.SPAN_ROWS:
            together = max(1, t.BLOCK // inner)
            at = np.arange(0, slices, together)
            size = np.minimum(together, slices - at)
            start, first = 0, segment[t.SEGMENT_FIRST_SLICE] + at
            elements = size * inner
        elif span == t.SPAN_PIECE:
            blocks = -(-inner // t.BLOCK)
            row, k, block = _grid(outer, slices, blocks)
            size = elements = np.minimum(t.BLOCK, inner - block * t.BLOCK)
            start = (row * slices + k) * inner + block * t.BLOCK
            first = segment[t.SEGMENT_TILE] + (row * blocks + block) * slices + k
        else:
            columns = slices * inner
            width = self._tile_width(segment[t.SEGMENT_PARTS], columns)
            first, column = _grid(segment[t.SEGMENT_PARTS], -(-columns // width))
            start = column * width
            size = np.minimum(width, columns - start)
            elements = size * np.minimum(t.ROW_BLOCK, outer - first * t.ROW_BLOCK)
        return _chunks(span, index, start, size, first, elements)

    def _tile_width(self, parts: int, columns: int) -> int:
        """Width of the tiles: whole rows where they fit, narrower where there would be few tiles."""
        share = parts * columns // _TILES // t.LANES * t.LANES
        return min(columns, self._cuts.tile_width, max(self._cuts.tile_least, share))


def _chunks(
    span: int, segment: _Numbers, start: _Numbers, size: _Numbers, first: _Numbers, elements: _Numbers
) -> NDArray[np.int64]:
    """Return rows of the chunk table; the cost is their own."""
    cost = elements * (_PLAIN if span == t.SPAN_PLAIN else _NORMED) + _VISIT
    columns = np.broadcast_arrays(span, segment, start, size, first, cost)  # in the order of the table
    return np.stack(columns, axis=1)


def _grid(*shape: int) -> list[NDArray[np.int64]]:
    """Return the indices of an array of that shape, one flat array per axis."""
    return [axis.reshape(-1) for axis in np.indices(shape)]
