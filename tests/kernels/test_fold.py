"""From sums to coefficients: trees, column folds and the norms of clip groups, through whole steps."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.kernels import slices as normed
from nbopt.kernels import trees
from tests.kernels.test_reduce import run_sum, tree, wild

SHRINK = {"float32": 1 - 2.0**-22, "float64": 1 - 2.0**-44}


# --- trees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("start", [0, 5])
def test_pairwise_is_the_tree(start, stride):
    rng = np.random.default_rng(0)
    for count in range(0, 70):
        values = wild(rng, (2, start + 70 * stride), "float64")
        others = values.copy()
        expected = tree(values[1, start : start + count * stride : stride])
        assert trees.pairwise(values, 1, start, stride, count) == expected
        others[1, start : start + count * stride : stride] = 0
        values[1, start : start + count * stride : stride] = 0
        assert_array_equal(values, others)  # only its own column and row were touched


def test_pairwise_by_hand():
    assert trees.pairwise(np.array([[1.0, 2.0, 4.0, 8.0, 16.0]]), 0, 0, 1, 5) == 31.0
    small = np.array([[1.0, 2.0**-53, 2.0**-53, 2.0**-53]])
    assert trees.pairwise(small, 0, 0, 1, 4) == 1.0 + 2.0**-52  # a plain loop gives 1
    assert trees.pairwise(np.zeros((1, 0)), 0, 0, 1, 0) == 0.0


@pytest.mark.parametrize(("slices", "inner"), [(1, 1), (3, 1), (4, 5), (1, 7)])
@pytest.mark.parametrize("row_blocks", [1, 2, 5])
def test_fold_columns(row_blocks, slices, inner):
    """Rows first, by a tree down each column; then the columns of one slice."""
    rng = np.random.default_rng(1)
    columns, tile = slices * inner, 4
    tiles = wild(rng, (3, tile + row_blocks * columns), "float64")
    stacked = tiles[:, tile:].reshape(3, row_blocks, columns).copy()
    normed.fold_columns(2, tile, columns, inner, row_blocks, tiles)
    for q in range(2):
        sums = tree(list(stacked[q])).reshape(slices, inner)
        assert_array_equal(tiles[q, tile : tile + columns : inner], [tree(list(row)) for row in sums])
    assert_array_equal(tiles[2, tile:], stacked[2].ravel())


# --- clip groups ----------------------------------------------------------------------------------


def model(dtype="float32", count=37):
    """Parameters of many sizes whose creation order is not their order by name."""
    rng = np.random.default_rng(2)
    names = [f"p{i}" for i in rng.permutation(count)]
    grads = {
        n: wild(rng, int(rng.integers(1, 9000) if i % 9 == 0 else i + 1), dtype) for i, n in enumerate(names)
    }
    params = nb.ParameterBuffer.from_arrays({n: np.ones_like(g) for n, g in grads.items()}, dtype=dtype)
    return params, grads


def coefficient(norm, limit, dtype="float32"):
    return limit * SHRINK[dtype] / norm


def test_global_norm_is_a_tree_in_name_order():
    params, grads = model()
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    opt.step(grads)
    norm = math.sqrt(tree([run_sum(grads[n], grads[n]) for n in sorted(grads)]))
    assert opt.grad_norm == norm
    assert opt.clip_coefficients == dict.fromkeys(grads, coefficient(norm, 0.5))


def test_what_takes_no_part_adds_zero_and_keeps_its_place():
    """Absent, frozen and unclipped members: the tree keeps its shape, whoever is away."""
    params, grads = model()
    names = sorted(grads)
    away = names[3:20:4]
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    for i, name in enumerate(away):
        if i % 3 == 0:
            params[name].trainable = False
        elif i % 3 == 1:
            params[name].need_clip = False
        else:
            grads[name] = None
    opt.step(grads)
    squares = [0.0 if n in away else run_sum(grads[n], grads[n]) for n in names]
    assert tree(squares) != tree([s for s in squares if s])  # the place can be seen
    for name in names:
        if name not in away:
            assert opt.clip_coefficients[name] == coefficient(math.sqrt(tree(squares)), 0.5)
    assert {opt.clip_coefficients.get(name) for name in away} == {None, 1.0}


def test_each_clip_object_has_its_own_tree():
    params, grads = model()
    names = sorted(grads)
    shared, own = nb.ClipGradByGlobalNorm(0.5), nb.ClipGradByNorm(0.25)
    parts = {"shared": names[0::4], "again": names[1::4], "own": names[2::4], "joined": names[3::4]}
    clips = {"shared": shared, "again": shared, "own": own, "joined": nb.ClipGradByGlobalNorm(0.1)}
    groups = [{"params": [params[n] for n in parts[key]], "grad_clip": clips[key]} for key in parts]
    opt = nb.optimizer.Momentum(0.1, parameters=groups)
    opt.step(grads)
    squares = {n: run_sum(grads[n], grads[n]) for n in names}
    both = sorted(parts["shared"] + parts["again"])
    expected = dict.fromkeys(both, coefficient(math.sqrt(tree([squares[n] for n in both])), 0.5))
    last = math.sqrt(tree([squares[n] for n in parts["joined"]]))
    expected |= dict.fromkeys(parts["joined"], coefficient(last, 0.1))
    expected |= {n: coefficient(math.sqrt(squares[n]), 0.25) for n in parts["own"]}
    assert opt.clip_coefficients == expected


def test_rescale_enters_the_norm():
    params, grads = model()
    names = sorted(grads)
    parts = names[0::2], names[1::2]
    scales = dict.fromkeys(parts[0], 0.5) | dict.fromkeys(
        parts[1], 2.0
    )  # exact, so that bits can be foretold
    groups = [{"params": [params[n] for n in part], "rescale_grad": scales[part[0]]} for part in parts]
    opt = nb.optimizer.Momentum(0.1, parameters=groups, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    opt.step(grads)
    norm = math.sqrt(tree([scales[n] ** 2 * run_sum(grads[n], grads[n]) for n in names]))
    assert opt.grad_norm == norm
    assert set(opt.clip_coefficients.values()) == {coefficient(norm, 0.5)}
    velocity = opt.state_dict()
    for n in names:
        factor = np.float32(scales[n] * coefficient(norm, 0.5))
        assert_array_equal(velocity[f"{n}.velocity"], factor * grads[n])


@pytest.mark.parametrize("limit", [1e-3, 1e250])
def test_segments_of_different_bins_join(limit):
    """float64: sums of squares far above and below its range meet in one norm (N03, N04)."""
    grads = {"low": [3e-200] * 9, "mid": [4.0] * 5, "high": [3e200, 4e200], "zero": [0.0]}
    params = nb.ParameterBuffer.from_arrays({n: np.ones(len(g)) for n, g in grads.items()})
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(limit))
    opt.step(grads)
    assert opt.grad_norm == pytest.approx(5e200, rel=1e-15)
    factor = min(1.0, limit / 5e200)
    assert opt.clip_coefficients == pytest.approx(dict.fromkeys(grads, factor), rel=1e-13)
    velocity = opt.state_dict()["high.velocity"]
    np.testing.assert_allclose(velocity, np.array(grads["high"]) * factor, rtol=1e-13)


def test_clip_of_weight_norm_against_extended_precision():
    """dL/dv and dL/dg enter the norm as two parameters, and are known before they are formed."""
    rng = np.random.default_rng(3)
    shapes = {"rows": ((20, 30), 0), "columns": ((300, 7), 1), "whole": ((50,), None), "mid": ((5, 6, 4), 1)}
    attrs = {n: nb.WeightNormParamAttr(dim=dim) for n, (_, dim) in shapes.items()}
    values = {n: rng.standard_normal(shape) for n, (shape, _) in shapes.items()}
    params = nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype="float32")
    grads = {n: rng.standard_normal(shape).astype("float32") for n, (shape, _) in shapes.items()}
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    squares = []
    for n, (shape, dim) in shapes.items():
        axes = tuple(axis for axis in range(len(shape)) if axis != dim)
        v, g = (p.numpy().astype(np.longdouble) for p in (params[n].weight_v, params[n].weight_g))
        unit = v / np.sqrt(np.sum(v * v, axis=axes, keepdims=True))
        dg = np.sum(grads[n] * unit, axis=axes, keepdims=True)
        dv = g / np.sqrt(np.sum(v * v, axis=axes, keepdims=True)) * (grads[n] - dg * unit)
        squares += [np.sum(dg * dg), np.sum(dv * dv)]
    opt.step(grads)
    norm = float(np.sqrt(sum(squares)))
    assert opt.grad_norm == pytest.approx(norm, rel=1e-13)
    assert set(opt.clip_coefficients) == {f"{n}_{part}" for n in shapes for part in "vg"}
    assert list(opt.clip_coefficients.values()) == pytest.approx([coefficient(norm, 0.5)] * 8, rel=1e-13)
