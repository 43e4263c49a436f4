"""More than 2**31 elements: norms, geometry, and steps on what lies past them, in memory mapped lazily.

A page that was never written takes no memory: it reads as zeros. So the arrays here are far larger than what
they take.
"""

import mmap
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt import storage
from nbopt.kernels import tables as t
from nbopt.layout import Item, Layout

FAR = 2**31
linux = pytest.mark.skipif(
    not hasattr(mmap, "MADV_NOHUGEPAGE") or sys.maxsize < 2**32,
    reason="memory is mapped lazily, page by page, on 64-bit Linux alone",
)


def lazy_zeros(size):
    """Zeros of float32 in pages of 4 KiB that take no memory before they are written."""
    pages = mmap.mmap(-1, 4 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, np.float32)


def resident():
    """Bytes of memory that this process takes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def check_norm(shape, dim, planted, counted):
    """Plant numbers at flat indices of zeros, and compare the norm with theirs."""
    array, before = lazy_zeros(int(np.prod(shape))), resident()
    array[list(planted)] = list(planted.values())
    squares = np.zeros(1 if dim is None else shape[dim])
    for index, value in planted.items():
        squares[0 if dim is None else np.unravel_index(index, shape)[dim]] += float(value) ** 2
    norm = nb.norm(array.reshape(shape), dim)
    assert_array_equal(np.atleast_1d(norm), np.sqrt(squares))
    assert resident() - before < 2**29
    counted("elements of norms past 2**31", array.size)


@linux
def test_the_norm_of_more_elements_than_32_bits_count(counted):
    planted = {5: 1.0, FAR - 1: 2.0, FAR: 4.0, FAR + 6: 6.0, FAR + 9: 8.0}
    check_norm((FAR + 10,), None, planted, counted)


@linux
def test_the_norms_of_rows_past_32_bits(counted):
    row = FAR // 2 + 5
    planted = {5: 3.0, row - 1: 4.0, row: 6.0, FAR - 1: 8.0, FAR + 9: 24.0}
    check_norm((2, row), 0, planted, counted)


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dim"), [((FAR // 64 + 1, 64), 1), ((2, 3, FAR // 6 + 1), 1), ((3, FAR // 3 + 3), 0)]
)
def test_the_norms_of_columns_and_of_slices_in_between_past_32_bits(shape, dim, counted):
    size = int(np.prod(shape))
    planted = {7: 3.0, FAR - 1: 4.0, FAR: 4.0, FAR + 1: 2.0, size - 1: 8.0}
    check_norm(shape, dim, planted, counted)


# --- geometry -------------------------------------------------------------------------------------

BIG = [Item("a", (3,)), Item("big", (FAR + 10,)), Item("b", (5000,)), Item("w", (40, 50), True, 0)]


def test_offsets_and_chunks_past_32_bits():
    layout = Layout(BIG, 4)
    unit = 32  # elements of a cache line
    derived = 63 * unit  # 2000 elements of w
    big_end = derived + unit + -(-(FAR + 10) // unit) * unit
    assert layout.effective["b"] == slice(big_end, big_end + 5000)
    assert layout.trainable_start == derived
    rows = dict(zip(layout.names, layout.segments.tolist(), strict=True))
    assert rows["b"][t.SEGMENT_START] == big_end - derived > FAR
    assert rows["w_v"][t.SEGMENT_START] == rows["b"][t.SEGMENT_START] + 157 * unit
    assert rows["w_g"][t.SEGMENT_START] == rows["w_v"][t.SEGMENT_START] + derived
    assert layout.size == big_end + 157 * unit + derived + 2 * unit
    chunks = layout.chunks[:-1]
    big = chunks[chunks[:, t.CHUNK_SEGMENT] == 1]
    assert_array_equal(big[:, t.CHUNK_START], unit + t.BLOCK * np.arange(FAR // t.BLOCK + 1))
    assert big[:, t.CHUNK_SIZE].sum() == FAR + 10
    assert big[-1, t.CHUNK_SIZE] == 10
    last = chunks[chunks[:, t.CHUNK_SEGMENT] == 2]
    assert last[:, t.CHUNK_START].tolist() == [big_end - derived, big_end - derived + t.BLOCK]
    assert layout.chunks[-1, t.CHUNK_COST] > 2 * FAR
    assert (np.diff(layout.chunks[:, t.CHUNK_COST]) > 0).all()


@pytest.mark.parametrize(
    ("shape", "dim"),
    [((FAR + 1,), None), ((3, FAR // 3 + 1), 0), ((FAR // 64 + 1, 64), 1), ((2, 3, FAR // 6 + 1), 1)],
)
def test_the_chunks_of_weight_norm_past_32_bits_hold_every_element_once(shape, dim):
    layout = Layout([Item("w", shape, True, dim), Item("b", (5,))], 4)
    v = layout.segments[1]
    chunks = layout.chunks[:-1][layout.chunks[:-1, t.CHUNK_SEGMENT] == 1]
    sizes = chunks[:, t.CHUNK_SIZE]
    if chunks[0, t.CHUNK_SPAN] == t.SPAN_TILE:  # columns, in blocks of rows
        last = -(-v[t.SEGMENT_OUTER] // t.ROW_BLOCK) - 1
        rows = np.minimum(t.ROW_BLOCK, v[t.SEGMENT_OUTER] - chunks[:, t.CHUNK_FIRST] * t.ROW_BLOCK)
        assert chunks[:, t.CHUNK_FIRST].max() == last
        sizes = sizes * rows
    else:
        assert (chunks[:, t.CHUNK_START] + sizes).max() == np.prod(shape)
        assert np.unique(chunks[:, t.CHUNK_START]).size == len(chunks)
    assert sizes.sum() == np.prod(shape) > FAR
    assert layout.effective["b"].start > FAR


# --- steps ----------------------------------------------------------------------------------------


def between(monkeypatch, big):
    """Let buffers leave room for one more item, which no optimizer moves, after their first."""

    def with_room(items, *args):
        first, *others = items
        return Layout([first, big, *others], *args)

    monkeypatch.setattr(storage, "Layout", with_room)


def stepped():
    """Take three steps of some parameters, plain and normed; return the buffer and the optimizer."""
    params = nb.ParameterBuffer(seed=3)
    params.create_parameter([6], name="a")
    params.create_parameter([5000], name="b", attr=nb.ParamAttr(learning_rate=2.0))
    params.create_parameter([4, 30], name="w", attr=nb.WeightNormParamAttr(dim=0))
    params.create_parameter([30, 4], name="x", attr=nb.WeightNormParamAttr(dim=1))
    opt = nb.optimizer.Momentum(
        0.1, parameters=params, weight_decay=1e-3, grad_clip=nb.ClipGradByGlobalNorm(1.0)
    )
    for step in range(3):
        opt.step({name: np.cos(np.arange(p.size) + step).reshape(p.shape) for name, p in params.items()})
    return params, opt


@linux
@pytest.mark.parametrize(
    "big", [Item("big", (FAR + 10,)), Item("big", (FAR + 10,), True)], ids=["plain", "weight norm"]
)
def test_parameters_past_32_bits_step_to_the_bits_of_a_small_buffer(big, monkeypatch):
    small, opt = stepped()
    between(monkeypatch, big)
    before = resident()
    large, large_opt = stepped()
    assert large.slices["b"].start > FAR
    assert large.slices["w"].start > (FAR if big.normed else -1)
    assert large._seal().layout.segments[large._seal().segment_of["w_v"], t.SEGMENT_START] > FAR
    assert large.fingerprint() == small.fingerprint()
    assert large_opt.grad_norm == opt.grad_norm
    state = large_opt.state_dict()
    for key, value in opt.state_dict().items():
        assert_array_equal(state[key], value)
    assert resident() - before < 2**30


@linux
@pytest.mark.slow
def test_a_step_over_more_elements_than_32_bits_count(monkeypatch, counted):
    big = Item("big", (FAR + 10,))
    between(monkeypatch, big)
    params = nb.ParameterBuffer.from_arrays({"a": np.zeros(6, np.float32), "b": np.zeros(5, np.float32)})
    opt = nb.optimizer.SGD(0.5, params)
    stored, tables = params._seal(), opt._tables
    stored.attributes[1] = stored.attributes[0]  # it moves as "a" does
    tables.group_of[1] = 0
    tables.write(opt.param_groups)
    start = stored.layout.effective["big"].start
    planted = {0: 1.0, FAR - 1: -2.0, FAR: 4.0, FAR + 9: 10.0}
    params.flat_grad[[start + index for index in planted]] = list(planted.values())
    opt.step()
    assert opt.grad_norm == 11.0
    values = params.flat[start : start + FAR + 10]
    assert {index: float(values[index]) for index in planted} == {k: -0.5 * g for k, g in planted.items()}
    pieces = range(0, values.size, 2**26)
    assert sum(np.count_nonzero(values[piece : piece + 2**26]) for piece in pieces) == len(planted)
    counted("elements of one step", values.size)
