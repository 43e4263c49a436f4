"""Weight norm through whole steps, held to the oracle: every shape, policy and rule.

Slices of (outer, slices, inner) are summed in one of three forms: whole contiguous slices, pieces of long
runs, and tiles whose slices are columns. Every edge between the forms is in a table here.
"""

import numpy as np
import pytest

from nbopt.kernels import tables as t
from nbopt.kernels.cpu import run
from nbopt.layout import as_slices, sums_of
from tests.optimizer import Twin, as_decay, gradients
from tests.oracle import Clip, Decay

DTYPES = ["float32", "float64"]
STEPS = 3
dtypes = pytest.mark.parametrize("dtype", DTYPES)

# Values and gradients are about 1; float64 as in `Twin.check`, and a float32 errs by some roundings.
TOLERANCE = {"float32": (2e-6, 2e-6), "float64": (1e-12, 1e-13)}


@pytest.fixture(autouse=True)
def serial(monkeypatch):
    """Large models, too, take the serial twin: the parallel one has the same bits (test_weight_norm_bits)."""
    monkeypatch.setattr(run, "PARALLEL_FROM", 2**62)


class Pair(Twin):
    """A twin that is compared as closely as its dtype allows."""

    def check(self, twin):
        super().check(twin, *TOLERANCE[self.dtype.name])


def draw(shapes, seed=0):
    """Values of either sign that are not near zero, where a norm of one element has no digits."""
    rng = np.random.default_rng(seed)
    return {name: rng.choice([-1, 1], shape) * rng.uniform(0.5, 2.0, shape) for name, shape in shapes.items()}


def compare(rule, shapes, dims, dtype, **options):
    """Take some steps of a model in nbopt and in the oracle, and compare after each."""
    pair = Pair(rule, draw(shapes), dims=dims, dtype=dtype, **options)
    for step in range(STEPS):
        pair.step(gradients(pair.params, step + 1))
    return pair


def span(shape, dim):
    """By which form the slices of an array are summed."""
    return sums_of(*as_slices(shape, dim)).span


# --- every shape, with a policy that touches everything ----------------------------------------------

NESTEROV = {"momentum": 0.8, "use_nesterov": True, "weight_decay": Decay(l2=0.02)}
SHAPES = [(7,), (5, 3), (3, 7, 2), (5, 1, 3, 7), (2, 3, 5, 1, 3), (3, 2, 1, 5, 2, 3)]


@dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_axis_of_every_rank(shape, dtype):
    """A model of one weight per axis, one normed as a whole, one that is plain."""
    dims = {f"dim_{dim}": dim for dim in (None, *range(len(shape)))}
    shapes = dict.fromkeys(dims, shape) | {"plain": shape}
    compare("Momentum", shapes, dims, dtype, grad_clip=Clip("global", 0.7), **NESTEROV)


INNER = [1, 1023, 1024, 1025, 4096, 4097, 32768, 32769]
OUTER = [1, 2, 3, 4, 5, 255, 256, 257]
EDGES = [(outer, 2, inner) for outer in OUTER for inner in INNER if outer * inner <= 70_000]
EDGES += [(257, 2, 1023), (257, 2, 1024)]  # two blocks of rows, many pieces
EDGES += [(2, 3, 1022), (3, 511, 1), (3, 512, 1), (3, 513, 1)]  # a tile is at least 512 columns
EDGES += [(5, 1365, 3), (3, 4097, 1), (2, 33_001, 1), (513, 67, 9)]  # and at most 4096
EDGES += [(1, 1, 1), (1, 1, 9), (1, 9, 1), (2, 2, 1), (1, 4097, 1), (1, 1, 70_001), (3, 5, 2000)]


@dtypes
@pytest.mark.parametrize("cut", EDGES, ids=str)
def test_edges_of_the_forms_of_sums(cut, dtype):
    compare("Momentum", {"w": cut, "plain": (3,)}, {"w": 1}, dtype, grad_clip=Clip("norm", 0.5), **NESTEROV)


def test_the_edges_have_every_form():
    spans = {cut: span(cut, 1) for cut in EDGES}
    assert {spans[1, 2, 32_768], spans[1, 4097, 1], spans[1, 1, 1]} == {t.SPAN_ROWS}
    assert {spans[1, 2, 32_769], spans[2, 2, 1024], spans[257, 2, 1024]} == {t.SPAN_PIECE}
    assert {spans[2, 2, 1023], spans[257, 2, 1], spans[2, 33_001, 1]} == {t.SPAN_TILE}


# --- every policy, on a model with every form --------------------------------------------------------

NORMED = {
    **{"rows": ((5, 77), 0), "whole": ((3, 4, 5), None), "one_slice": ((1, 9), 0), "one_element": ((1,), 0)},
    **{"scalar": ((), None), "long": ((32_769,), None), "pieces": ((2, 3, 1030), 1)},
    **{"tile": ((7, 19), 1), "tall_tile": ((300, 5, 3), 1)},
}
SHAPED = {name: shape for name, (shape, _) in NORMED.items()} | {"plain": (130, 3), "bias": (11,)}
DIMS = {name: dim for name, (_, dim) in NORMED.items()}
HALVES = list(SHAPED)[::2], list(SHAPED)[1::2]


def attributes(names, **attr):
    return {"attrs": dict.fromkeys(names, attr)}


def groups(**policy):
    """Two groups, the second with a policy of its own."""
    return {"groups": [{"params": HALVES[0]}, {"params": HALVES[1], **policy}]}


def clips(kind, limit):
    """One clip for all, another for the second group."""
    return {"grad_clip": Clip(kind, limit), **groups(grad_clip=Clip(kind, limit / 2))}


POLICIES = {
    "rates": {**attributes(HALVES[0], learning_rate=2.0), **groups(learning_rate=0.25)},
    "rate 0": {**attributes(HALVES[0], learning_rate=0.0), **groups(learning_rate=0.0)},
    "L1": {"weight_decay": Decay(l1=0.05)},
    "L2": {"weight_decay": Decay(l2=0.05)},
    "L2 of a group": {"weight_decay": Decay(l1=0.05), **groups(weight_decay=Decay(l2=0.3))},
    "no decay of a group": {"weight_decay": Decay(l2=0.05), **groups(weight_decay=None)},
    "L1 of weights": {**attributes(SHAPED, regularizer=Decay(l1=0.1)), **groups(weight_decay=Decay(l2=0.3))},
    "L2 of weights": {**attributes(HALVES[1], regularizer=Decay(l2=0.4)), "weight_decay": Decay(l1=0.1)},
    "no decay of weights": {**attributes(HALVES[0], regularizer=Decay()), "weight_decay": Decay(l2=0.1)},
    "value": clips("value", 0.3),
    "value, not symmetric": {"grad_clip": Clip("value", 0.5, -0.1)},
    "value, L1": {"grad_clip": Clip("value", 0.5), "weight_decay": Decay(l1=0.05)},
    "norm": clips("norm", 0.6),
    "norm, not reached": clips("norm", 1e6),
    "norm 0": {"grad_clip": Clip("norm", 0.0), "weight_decay": Decay(l2=0.05)},
    "global": clips("global", 1.5),
    "global, by name": {**groups(grad_clip=Clip("global", 1.5, group_name="a"))},
    "no clip of a group": {"grad_clip": Clip("global", 1.5), **groups(grad_clip=None)},
    "value, unclipped": {"grad_clip": Clip("value", 0.2), **attributes(HALVES[0], need_clip=False)},
    "norm, unclipped": {"grad_clip": Clip("norm", 0.2), **attributes(HALVES[0], need_clip=False)},
    "global, unclipped": {"grad_clip": Clip("global", 0.2), **attributes(HALVES[0], need_clip=False)},
    "rescale": {"rescale_grad": 0.25},
    "rescale, global": {"grad_clip": Clip("global", 1.0), "rescale_grad": -3.0},
    "rescale of a group": {"grad_clip": Clip("global", 1.0), **groups(rescale_grad=7.0)},
    "frozen": {"grad_clip": Clip("global", 1.0), **attributes(HALVES[0], trainable=False)},
    "no guard": {"grad_clip": Clip("global", 1.0), "nonfinite": "propagate"},
}
RULES = {
    "SGD": ("SGD", {}),
    "Momentum": ("Momentum", {}),
    "momentum 0": ("Momentum", {"momentum": 0.0}),
    "nesterov": ("Momentum", {"momentum": 0.8, "use_nesterov": True}),
    "nesterov of a group": ("Momentum", groups(momentum=0.8, use_nesterov=True)),
}


@dtypes
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_every_policy(policy, dtype):
    compare("Momentum", SHAPED, DIMS, dtype, momentum=0.8, use_nesterov=True, **policy)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        # A kernel of its own, which takes long to compile, and says no more than that of float32.
        pytest.param(name, dtype, marks=[pytest.mark.slow] if (name, dtype) == ("SGD", "float64") else [])
        for name in RULES
        for dtype in ("float32", "float64")
    ],
)
def test_every_rule(name, dtype):
    rule, hyper = RULES[name]
    clip, decay = Clip("norm", 0.4), Decay(l2=0.1)
    compare(rule, SHAPED, DIMS, dtype, grad_clip=clip, weight_decay=decay, **hyper)


EDITS = {"trainable": False, "need_clip": False, "learning_rate": 3.0, "regularizer": Decay(l1=0.2)}


@dtypes
@pytest.mark.parametrize("part", ["w", "v", "g"])
@pytest.mark.parametrize("attribute", EDITS)
@pytest.mark.parametrize("kind", ["value", "norm", "global"])
def test_v_and_g_are_two_parameters(kind, attribute, part, dtype):
    """An attribute of one of them, or of both, set before the second step and set back after it."""
    options = {"grad_clip": Clip(kind, 0.3), "weight_decay": Decay(l2=0.1), "dtype": dtype}
    pair = Pair("Momentum", draw(SHAPED), dims=DIMS, **options)
    usual = getattr(pair.params["rows"], attribute)
    for step in range(STEPS):
        edited = step == 1
        for name in list(DIMS)[::2]:
            mine = EDITS[attribute] if edited else usual
            target = pair.params[name if part == "w" else f"{name}_{part}"]
            setattr(target, attribute, as_decay(mine) if isinstance(mine, Decay) else mine)
            for half in "vg" if part == "w" else part:
                setattr(pair.reference[f"{name}_{half}"], attribute, mine)
        pair.step(gradients(pair.params, step))


@dtypes
def test_absent_gradients(dtype):
    options = {"grad_clip": Clip("global", 1.0), "weight_decay": Decay(l2=0.1), "dtype": dtype}
    pair = Pair("Momentum", draw(SHAPED), dims=DIMS, **options)
    for step, gone in enumerate([HALVES[0], HALVES[1], list(SHAPED), []]):
        pair.step(gradients(pair.params, step) | dict.fromkeys(gone))
    counted = {name: param.steps for name, param in pair.reference.items()}
    assert counted["rows_v"] == counted["rows_g"] == 2 == counted["whole_g"]


# --- random models --------------------------------------------------------------------------------------


def some(rng, *choices):
    return choices[rng.integers(len(choices))]


def random_policy(rng):
    """Options that an optimizer and a group both take."""
    clip = some(rng, None, Clip("value", 0.4, some(rng, None, -0.2)), Clip("norm", 0.5), Clip("global", 1.0))
    decay = some(rng, None, Decay(l1=0.02), Decay(l2=0.1))
    policy = {"momentum": some(rng, 0.0, 0.5, 0.9), "use_nesterov": some(rng, False, True)}
    return policy | {"grad_clip": clip, "weight_decay": decay, "rescale_grad": some(rng, 1.0, 0.5, 4.0)}


def random_model(rng):
    """Keywords of a twin: up to six weights of up to six axes, some plain, in up to three groups."""
    shapes, dims, attrs = {}, {}, {}
    for k in range(rng.integers(1, 7)):
        name, rank = f"w{k}", rng.integers(0, 7)
        shapes[name] = tuple(int(n) for n in rng.integers(1, int(6000 ** (1 / max(rank, 1))) + 1, rank))
        if rng.random() < 0.7:
            dims[name] = some(rng, None, *range(rank))
        attrs[name] = {
            "learning_rate": some(rng, 1.0, 0.3, 2.0),
            "regularizer": some(rng, None, None, Decay(), Decay(l1=0.03), Decay(l2=0.2)),
            "need_clip": rng.random() < 0.8,
            "trainable": rng.random() < 0.9,
        }
    groups = [
        {"params": list(part)} for part in np.array_split(list(shapes), rng.integers(1, 4)) if part.size
    ]
    for group in groups[1:]:
        policy = random_policy(rng) | {"learning_rate": some(rng, 0.5, 1.5)}
        group |= {key: value for key, value in policy.items() if rng.random() < 0.5}
    return {
        "values": draw(shapes, rng.integers(2**32)),
        "dims": dims,
        "attrs": attrs,
        "groups": groups,
        **random_policy(rng),
    }


@dtypes
@pytest.mark.parametrize("seed", range(30))
def test_random_models(seed, dtype):
    rng = np.random.default_rng(seed)
    pair = Pair("Momentum", **random_model(rng), dtype=dtype)
    for step in range(STEPS):
        grads = gradients(pair.params, 100 * seed + step)
        pair.step({name: None if rng.random() < 0.1 else grad for name, grad in grads.items()})
