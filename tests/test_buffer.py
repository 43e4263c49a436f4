"""A buffer of parameters: sealing, views, vectors, gradients, and copies of all of it."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.errors import ParameterError
from nbopt.initializer import Constant, Normal
from nbopt.regularizer import L1Decay

PLAIN, NORMED = nb.ParamAttr, nb.WeightNormParamAttr
DTYPES = ["float32", "float64"]
sealing = pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])


def refused(call, error, words):
    """Check that `call` raises exactly `error`, and that the message holds all `words`."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def network(dtype="float32", sealed=False):
    """Parameters of every kind; between them lies padding."""
    params = nb.ParameterBuffer(dtype, seed=3)
    params.create_parameter([5, 7], "fc.weight", NORMED(dim=1, need_clip=False))
    params.create_parameter([7], "fc.bias", PLAIN(regularizer=L1Decay(0.5)), is_bias=True)
    params.create_parameter([0, 2], "empty")
    params.create_parameter([], "scale", Constant(2.0))
    params.create_parameter([3, 2], "out.weight", NORMED(dim=None, initializer=Normal()))
    params.create_parameter([2], "out.bias", PLAIN(trainable=False), is_bias=True)
    if sealed:
        _ = params.flat  # lays the storage out
    return params


NAMES = ["fc.weight", "fc.bias", "empty", "scale", "out.weight", "out.bias"]
MOVED = [
    "fc.weight_g",
    "fc.weight_v",
    "fc.bias",
    "empty",
    "scale",
    "out.weight_g",
    "out.weight_v",
    "out.bias",
]


def every(params):
    return [params[name] for name in dict.fromkeys([*NAMES, *MOVED])]


# --- the buffer itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, float, np.dtype("f4"), "=f8"], ids=str)
def test_dtypes(dtype):
    params = nb.ParameterBuffer(dtype, device="cpu", seed=0)
    w = params.create_parameter([2])
    assert params.dtype == w.dtype == params.flat.dtype == params.flat_grad.dtype == np.dtype(dtype)
    assert params.device == w.device == "cpu"


CONSTRUCTION_ERRORS = {
    "half": (lambda: nb.ParameterBuffer("float16"), TypeError, ["dtype", "float32", "float16"]),
    "int": (lambda: nb.ParameterBuffer(int), TypeError, ["dtype", "float64", "int"]),
    "no dtype": (lambda: nb.ParameterBuffer("floaty"), TypeError, ["dtype", "'floaty'"]),
    "None": (lambda: nb.ParameterBuffer(None), TypeError, ["dtype", "None"]),
    "big-endian": (lambda: nb.ParameterBuffer(">f4"), TypeError, ["dtype", ">f4"]),
    "device": (lambda: nb.ParameterBuffer(device="gpu"), ParameterError, ["device", "'gpu'", "'cuda'"]),
    "no device": (lambda: nb.ParameterBuffer(device=0), TypeError, ["device", "0"]),
    "negative seed": (lambda: nb.ParameterBuffer(seed=-1), ParameterError, ["seed", ">= 0", "-1"]),
    "seed is a float": (lambda: nb.ParameterBuffer(seed=1.5), TypeError, ["seed", "integer", "1.5"]),
    "seed is a bool": (lambda: nb.ParameterBuffer(seed=True), TypeError, ["seed", "True"]),
}


@pytest.mark.parametrize(("call", "error", "words"), CONSTRUCTION_ERRORS.values(), ids=CONSTRUCTION_ERRORS)
def test_errors_of_construction(call, error, words):
    refused(call, error, words)


def test_a_buffer_is_a_mapping_in_creation_order():
    params = network()
    assert list(params) == list(params.keys()) == NAMES
    assert len(params) == 6
    assert [name for name, p in params.items() if params[name] is p and p.name == name] == NAMES
    assert [p.name for p in params.values()] == NAMES
    assert "fc.bias" in params
    assert "nothing" not in params
    assert params.get("nothing") is None
    assert params != copy.deepcopy(params)
    assert {params: 1}[params] == 1


def test_g_and_v_resolve_but_are_not_counted():
    params = network()
    assert params["fc.weight_v"] is params["fc.weight"].weight_v
    assert params["fc.weight_g"] is params["fc.weight"].weight_g
    assert "fc.weight_v" in params
    assert not {"fc.weight_v", "fc.weight_g"} & {*params, *params.slices, *params.numpy()}


def test_an_unknown_name_is_a_key_error_that_helps():
    refused(lambda: network()["fc.wieght"], KeyError, ["fc.wieght", "did you mean 'fc.weight'?"])


def test_draws_depend_on_the_seed_and_the_name_alone():
    def drawn(seed, *names, attr=Normal(), **options):  # noqa: B008
        params = nb.ParameterBuffer(seed=seed, **options)
        for name in names:
            params.create_parameter([4], name, attr)
        return params["b"].numpy()

    first = drawn(7, "a", "b")
    np.random.seed(0)  # noqa: NPY002  touches nothing
    for other in (drawn(7, "b"), drawn(7, "c", "b", "a"), drawn(np.int64(7), "b", "x"), drawn(7, "a", "b")):
        assert_array_equal(other, first)
    assert_array_equal(drawn(7, "b", dtype="float64").astype(np.float32), first)
    assert_allclose(drawn(7, "b", attr=NORMED(initializer=Normal())), first, rtol=1e-6)
    assert not np.any(drawn(8, "a", "b") == first)
    assert not np.any(drawn(None, "b") == drawn(None, "b"))
    params = nb.ParameterBuffer(seed=7)
    params.create_parameter([4], "b", Normal())
    assert not np.any(params.create_parameter([4], "B", Normal()).numpy() == first)


# --- sealing ---------------------------------------------------------------------------------------

KEEPS_OPEN = {
    "numpy": lambda s, w: (s.numpy(), w.numpy(), w.weight_v.numpy()),
    "set_value": lambda s, w: (w.set_value(w.numpy()), w.weight_g.set_value(w.weight_g.numpy())),
    "value = ": lambda s, w: setattr(s["fc.bias"], "value", np.ones(7)),
    "summary": lambda s, w: str(s.summary()),
    "vectors": lambda s, w: s.from_vector(s.to_vector(space="trainable"), space="trainable"),
    "fingerprint": lambda s, w: s.fingerprint(),
    "mapping": lambda s, w: (list(s.items()), len(s), "x" in s, repr(s), repr(w)),
    "select": lambda s, w: (s.select("*"), s.freeze("*"), s.unfreeze("*")),
    "attributes": lambda s, w: (setattr(w, "learning_rate", 2.0), w.regularizer, w.has_grad, w.attr, w.size),
    "np.asarray": lambda s, w: (np.asarray(w), np.asarray(w.weight_v)),
    "recompose": lambda s, w: s.recompose(),
    "pickle": lambda s, w: pickle.loads(pickle.dumps((s, w))),
    "deepcopy": lambda s, w: copy.deepcopy((s, w)),
    "sharing": lambda s, w: s.create_parameter([5, 7], "fc.weight"),
}
SEALS = {
    "value": lambda s, w: w.value,
    "value of g": lambda s, w: w.weight_g.value,
    "grad": lambda s, w: s["fc.bias"].grad,
    "grad of v": lambda s, w: w.weight_v.grad,
    "grad = ": lambda s, w: setattr(w, "grad", np.ones((5, 7))),
    "flat": lambda s, w: s.flat,
    "flat_grad": lambda s, w: s.flat_grad,
    "trainable_flat": lambda s, w: s.trainable_flat,
    "slices": lambda s, w: s.slices,
    "gradients": lambda s, w: s.to_vector("grad"),
    "dlpack": lambda s, w: np.from_dlpack(s["fc.bias"]),
    "optimizer": lambda s, w: nb.optimizer.Momentum(parameters=s),
    "optimizer of one": lambda s, w: nb.optimizer.SGD(parameters=[w]),
}
CALLS = [(name, call, False) for name, call in KEEPS_OPEN.items()]
CALLS += [(name, call, True) for name, call in SEALS.items()]


@pytest.mark.parametrize(("call", "seals"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_what_lays_the_storage_out(call, seals):
    params = network()
    before = params.numpy()
    call(params, params["fc.weight"])
    assert params.is_sealed is seals
    if not seals:
        params.create_parameter([2], "late")
        return
    for name, values in before.items():
        assert_array_equal(params[name].numpy(), values)
    refused(
        lambda: params.create_parameter([2], "late"),
        ParameterError,
        ["'late'", "laid out", "first view", "optimizer", "create every parameter before"],
    )
    assert "late" not in params
    assert params.create_parameter([7], "fc.bias") is params["fc.bias"]
    assert params.create_parameter([2], "late", attr=False) is None


# --- views -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_lie_in_the_flat_arrays_on_boundaries(dtype):
    params = network(dtype)
    for p in params.values():
        where = params.slices[p.name]
        for view, flat in ((p.value, params.flat), (p.grad, params.flat_grad)):
            assert_array_equal(view.reshape(-1), flat[where])
            assert view.__array_interface__["data"][0] == flat[where].__array_interface__["data"][0]
            assert view.ctypes.data % 128 == 0
            assert view.flags.c_contiguous
    for name in MOVED:
        view = params[name].value
        assert view.ctypes.data % 128 == 0
        assert np.shares_memory(view, params.trainable_flat) == bool(view.size)
    assert list(params.slices) == NAMES
    assert params.flat.shape == params.flat_grad.shape == (params.flat.size,)
    plain = [n for n in NAMES if params[n].size and params[n].weight_v is None]
    both = [n for n in NAMES if np.shares_memory(params[n].value, params.trainable_flat)]
    assert both == plain  # a derived w is read, not moved


def test_views_never_go_stale():
    params = network()
    held = {p.name: (p.value, p.grad) for p in params.values()}
    flat, flat_grad, moved = params.flat, params.flat_grad, params.trainable_flat
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    actions = [
        lambda: params.from_vector(np.arange(51.0) + 1),
        lambda: params.from_vector(np.arange(51.0) + 1, "grad"),
        opt.step,
        lambda: params["fc.weight"].weight_v.set_value(np.ones((5, 7))),
        lambda: params.set_grads({"fc.bias": np.ones(7)}),
        opt.step,
        lambda: (moved.__imul__(2.0), params.recompose()),
        lambda: params["scale"].set_value(5.0),
        params.clear_grad,
    ]
    for action in actions:
        before = flat.copy(), flat_grad.copy()
        action()
        assert np.any(flat != before[0]) or np.any(flat_grad != before[1])
        fresh = pickle.loads(pickle.dumps(params))
        for name, (value, grad) in held.items():
            assert params[name].value is value
            assert params[name].grad is grad
            assert_array_equal(value, fresh[name].value)
            assert_array_equal(grad, fresh[name].grad)
    for one, other in ((flat, params.flat), (flat_grad, params.flat_grad), (moved, params.trainable_flat)):
        assert one.__array_interface__ == other.__array_interface__


def padding_of(params):
    """Each flat array, and where its padding lies."""
    flats = [(params.flat, NAMES, "value"), (params.flat_grad, NAMES, "grad")]
    for flat, names, part in [*flats, (params.trainable_flat, MOVED, "value")]:
        padding = np.ones(flat.size, bool)
        for view in (getattr(params[name], part) for name in names):
            begin = (view.ctypes.data - flat.ctypes.data) // flat.itemsize
            padding[begin : begin + view.size] = False
        yield flat, padding


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_is_zero_and_never_read_into_a_result(dtype):
    clean, dirty = network(dtype), network(dtype)
    for flat, padding in padding_of(dirty):
        assert np.any(padding)
        assert_array_equal(flat[padding], np.zeros(padding.sum()))
    for flat, padding in padding_of(dirty):
        flat[padding] = np.nan
    results = []
    for params in (clean, dirty):
        clip = nb.ClipGradByGlobalNorm(0.5)
        opt = nb.optimizer.Momentum(0.1, weight_decay=0.1, grad_clip=clip, parameters=params)
        for _ in range(2):
            params.from_vector(np.linspace(-1.0, 1.0, 51), "grad")
            opt.step()
            params.recompose()
        norms = [opt.grad_norm, nb.clip_grad_norm_(params, 0.1)]
        vectors = [params.to_vector(w, s) for w in ("value", "grad") for s in ("effective", "trainable")]
        results.append(np.concatenate([norms, *vectors, *map(np.ravel, params.numpy().values())]))
    assert_array_equal(results[0], results[1])
    assert np.all(np.isfinite(results[0]))
    assert clean.fingerprint() == dirty.fingerprint()
    for flat, padding in padding_of(clean):
        assert not np.any(flat[padding])  # nor is it written


# --- vectors and gradients -------------------------------------------------------------------------

TRAINED = [name for name in MOVED if name not in ("fc.weight_g", "out.bias")]
VECTORS = [
    ("effective", True, NAMES),
    ("effective", False, NAMES[:-1]),
    ("trainable", True, MOVED),
    ("trainable", False, TRAINED),
]
vectors = pytest.mark.parametrize(
    ("space", "frozen", "names"), VECTORS, ids=[f"{v[0]} {'all' if v[1] else 'trained'}" for v in VECTORS]
)


@sealing
@vectors
@pytest.mark.parametrize("what", ["value", "grad"])
def test_vectors_are_dense_copies_in_creation_order(what, space, frozen, names, sealed):
    params = network(sealed=sealed)
    params["fc.weight"].weight_g.trainable = False
    if what == "grad":
        params.set_grads({name: np.full(params[name].shape, 1.0 + i) for i, name in enumerate(NAMES)})
    parts = [params[name].grad if what == "grad" else params[name].numpy() for name in names]
    vector = params.to_vector(what, space, frozen)
    assert vector.dtype == np.float32
    assert_array_equal(vector, np.concatenate([part.reshape(-1) for part in parts]))
    vector[:] = 99.0
    assert not np.any(params.to_vector(what, space, frozen) == 99.0)


@sealing
@vectors
@pytest.mark.parametrize("what", ["value", "grad"])
def test_vectors_go_back(what, space, frozen, names, sealed):
    params = network(sealed=sealed)
    params["fc.weight"].weight_g.trainable = False
    frozen_before = params["out.bias"].numpy(), params["fc.weight_g"].numpy()
    vector = np.arange(1.0, params.to_vector(what, space, frozen).size + 1)
    if (what, space) == ("grad", "trainable"):
        params.set_grads({"fc.bias": np.full(7, 0.5)})
        before = params.to_vector("grad")
        words = ["gradient", "computed", "effective"]
        refused(lambda: params.from_vector(vector, what, space, frozen), ParameterError, words)
        assert_array_equal(params.to_vector("grad"), before)
        return
    params.from_vector(vector, what, space, frozen)
    # An effective w goes through g and v, and comes back rounded.
    rtol = 1e-6 if (what, space) == ("value", "effective") else 0.0
    assert_allclose(params.to_vector(what, space, frozen), vector, rtol=rtol)
    if not frozen:
        assert_array_equal(params["out.bias"].numpy(), frozen_before[0])
        if space == "trainable":
            assert_array_equal(params["fc.weight_g"].numpy(), frozen_before[1])


def test_an_empty_buffer_has_empty_vectors():
    params = nb.ParameterBuffer("float64")
    assert params.to_vector().shape == params.to_vector("grad").shape == params.flat.shape == (0,)
    params.from_vector([])


@pytest.mark.parametrize("what", ["value", "grad"])
def test_sources_may_overlap_the_buffer(what):
    params = nb.ParameterBuffer.from_arrays({"a": np.arange(16.0), "b": np.arange(16.0, 32.0)})
    params.from_vector(np.arange(32.0), what)
    flat = params.flat if what == "value" else params.flat_grad
    assert flat.size == 32  # no padding: a vector may be made of the storage itself
    params.from_vector(flat[::-1], what)
    assert_array_equal(params.to_vector(what), np.arange(32.0)[::-1])


def test_gradients_can_be_exchanged():
    params = nb.ParameterBuffer.from_arrays({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    params.set_grads([1.0, 2.0, 3.0, 4.0])
    params.set_grads({"a": params["b"].grad, "b": params["a"].grad})
    assert_array_equal(params.to_vector("grad"), [3.0, 4.0, 1.0, 2.0])


def test_set_grads():
    params = network()
    params.set_grads(np.arange(51))
    assert_array_equal(params.to_vector("grad"), np.arange(51))
    params.clear_grad(set_to_zero=False)
    params.set_grads({"fc.bias": np.ones(7), "scale": 2, "out.bias": None})
    assert_array_equal(params["fc.bias"].grad, np.ones(7))
    assert [p.name for p in params.values() if p.has_grad] == ["fc.bias", "scale"]
    params.set_grads({"scale": None})
    assert (params["scale"].grad, params["scale"].has_grad) == (0.0, False)
    params.set_grads({})
    params.set_grads(np.zeros(51))
    assert all(p.has_grad for p in every(params))


@sealing
@pytest.mark.parametrize("keep", [True, False], ids=["zeros", "absent"])
def test_clear_grad(keep, sealed):
    params = network(sealed=sealed)
    params.set_grads(np.ones(51))
    params.clear_grad(set_to_zero=keep)
    assert not np.any(params.flat_grad)
    assert [p.has_grad for p in every(params)] == [keep] * len(every(params))


def test_select_freeze_unfreeze():
    params = network()
    assert [p.name for p in params.select("*.bias")] == ["fc.bias", "out.bias"]
    assert params.select("*.BIAS") == []
    params.freeze("fc.*")
    assert [p.name for p in every(params) if not p.trainable] == [
        "fc.weight",
        "fc.bias",
        "out.bias",
        "fc.weight_g",
        "fc.weight_v",
    ]
    params.unfreeze("*")
    assert all(p.trainable for p in every(params))


BAD_CALLS = {
    "short vector": (lambda s: s.from_vector(np.ones(50)), ParameterError, ["value", "(50,)", "(51,)"]),
    "matrix": (lambda s: s.from_vector(np.ones((51, 1))), ParameterError, ["(51, 1)", "(51,)"]),
    "complex vector": (lambda s: s.from_vector(np.ones(51) * 1j), TypeError, ["vector", "complex128"]),
    "large vector": (lambda s: s.from_vector([0, 1e39] + [1] * 49), ParameterError, ["(1,)", "float32"]),
    "zero w": (lambda s: s.from_vector([1] * 43 + [0] * 6 + [1, 1]), ParameterError, ["'out.weight'"]),
    "zeros": (lambda s: s.from_vector(np.zeros(51)), ParameterError, ["'fc.weight'", "slice 0", "axis 1"]),
    "what": (lambda s: s.to_vector("values"), ParameterError, ["what", "'value'", "'grad'", "'values'"]),
    "space": (lambda s: s.to_vector(space="all"), ParameterError, ["space", "'trainable'", "'all'"]),
    "frozen": (lambda s: s.to_vector(frozen=0), TypeError, ["frozen", "True or False"]),
    "short grads": (lambda s: s.set_grads(np.ones(50)), ParameterError, ["grad", "(50,)", "(51,)"]),
    "grads None": (lambda s: s.set_grads(None), TypeError, ["grads", "None"]),
    "unknown grad": (
        lambda s: s.set_grads({"scale": 3.0, "fc.bia": np.ones(7)}),
        ParameterError,
        ["'fc.bia'", "did you mean 'fc.bias'?"],
    ),
    "grad of v": (
        lambda s: s.set_grads({"scale": 3.0, "fc.weight_v": np.ones((5, 7))}),
        ParameterError,
        ["'fc.weight_v'", "'fc.weight'"],
    ),
    "grad shape": (
        lambda s: s.set_grads({"scale": 3.0, "fc.bias": np.ones(6)}),
        ParameterError,
        ["gradient", "'fc.bias'", "(6,)", "(7,)"],
    ),
    "grad overflow": (
        lambda s: s.set_grads({"fc.bias": np.ones(7), "scale": 1e40}),
        ParameterError,
        ["gradient", "'scale'", "float32"],
    ),
    "grad None then bool": (
        lambda s: s.set_grads({"fc.bias": None, "scale": True}),
        TypeError,
        ["gradient", "'scale'", "bool"],
    ),
    "clear": (lambda s: s.clear_grad(0), TypeError, ["set_to_zero", "True or False"]),
    "select": (lambda s: s.select(3), TypeError, ["pattern", "string", "3"]),
    "freeze": (lambda s: s.freeze("fc_*"), ParameterError, ["'fc_*'", "fc.weight"]),
    "unfreeze": (lambda s: s.unfreeze("*.b"), ParameterError, ["'*.b'", "fc.bias"]),
    "select v": (lambda s: s.select("*_v"), ParameterError, ["'*_v'", "params['fc.weight'].weight_v"]),
    "freeze g": (
        lambda s: s.freeze("*_g"),
        ParameterError,
        ["params['fc.weight'].weight_g.trainable = False"],
    ),
    "unfreeze a g": (lambda s: s.unfreeze("out*_g"), ParameterError, ["params['out.weight'].weight_g"]),
    "numpy": (lambda s: s.numpy(None), TypeError, ["pattern", "None"]),
}


@pytest.mark.parametrize(("call", "error", "words"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_calls_that_are_refused_change_nothing(call, error, words):
    params = network()
    params.set_grads(np.full(51, 0.25))
    before = params.fingerprint(), params.to_vector("grad").tobytes(), [p.trainable for p in every(params)]
    refused(lambda: call(params), error, words)
    after = params.fingerprint(), params.to_vector("grad").tobytes(), [p.trainable for p in every(params)]
    assert after == before
    assert all(p.has_grad for p in every(params))
