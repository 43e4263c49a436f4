"""What is saved comes back, to the bit, here and in other programs."""

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import nbopt as nb
from nbopt.errors import CheckpointError
from tests.checkpoint import Counter, bits, gradients, model, momentum
from tests.kernels import python

NAMES = {
    "plain": ["w", "b"],
    "dots": ["a.b.c", "a.b", "a"],
    "slashes": ["a/b", "/a", "a/", "../x"],
    "unicode": ["weight-ä", "重み", "🦉", "e\u0301", "\u00e9"],
    "escapes": ['quo"te', "back\\slash", "tab\t", "line\n", "nul\0", "\x7f", "\u2028", "\\ud800"],
    "like ours": ["sha256", "nbopt", "objects", "0" * 64, '{"__metadata__":', "data_offsets", "__metadata"],
    "long": ["x" * 5000],
    "blank": [" ", "  "],
}
SHAPES = [(), (1,), (0,), (3, 0, 2), (2, 3), (1, 1, 1, 1, 1), (4, 1, 3), (300_000,)]
AWKWARD = [0.0, -0.0, 1e-45, 1.5, -3.25, np.inf, -np.inf, np.nan]


def filled(names_or_shapes, dtype, seed):
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=shape).astype(dtype) for name, shape in names_or_shapes.items()}
    return nb.ParameterBuffer.from_arrays(values, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", NAMES)
def test_names(kind, dtype, tmp_path):
    shapes = {name: (index + 1, 2) for index, name in enumerate(NAMES[kind])}
    params, other = filled(shapes, dtype, 0), filled(shapes, dtype, 1)
    nb.save(tmp_path / "a", params)
    nb.restore(tmp_path / "a", other)
    assert other.fingerprint() == params.fingerprint()
    found = nb.load(tmp_path / "a")
    assert list(found) == list(params)
    assert bits(found) == bits(params.numpy())
    assert bits(safetensors.numpy.load_file(tmp_path / "a")) == bits(found)


def test_an_object_that_has_the_buffer_laid_out(tmp_path):
    """Its state_dict is the first to look at a value, after the arrays to fill were found."""

    class Watching(Counter):
        def __init__(self, params):
            super().__init__()
            self.params = params

        def state_dict(self):
            return {**super().state_dict(), "count": self.params["out.weight"].value.size}

    params, other = model(), model(seed=1)
    nb.save(tmp_path / "a", params, Watching(params))
    assert not other.is_sealed
    nb.restore(tmp_path / "a", other, Watching(other))
    assert other.fingerprint() == params.fingerprint()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, dtype, tmp_path):
    params, other = filled({"w": shape, "z": (2,)}, dtype, 0), filled({"w": shape, "z": (2,)}, dtype, 1)
    opt, opt_other = momentum(params), momentum(other)
    opt.step(gradients(params, 0))
    nb.save(tmp_path / "a", params, opt)
    nb.restore(tmp_path / "a", other, opt_other)
    assert other.fingerprint() == params.fingerprint()
    assert bits(opt_other.state_dict()) == bits(opt.state_dict())
    assert nb.load(tmp_path / "a")["w.velocity"].shape == shape
    assert bits(safetensors.numpy.load_file(tmp_path / "a")).items() <= bits(nb.load(tmp_path / "a")).items()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_of_a_value(dtype, tmp_path):
    """Signs of zero, subnormal numbers and the payload of NaN."""
    params = nb.ParameterBuffer.from_arrays({"w": np.zeros(9)}, dtype=dtype)
    unsigned = np.uint32 if dtype == "float32" else np.uint64
    params["w"].value[:8] = AWKWARD
    params["w"].value.view(unsigned)[8] = unsigned(0x7FC12345)
    nb.save(tmp_path / "a", params)
    other = nb.ParameterBuffer.from_arrays({"w": np.ones(9)}, dtype=dtype)
    nb.restore(tmp_path / "a", other)
    assert other["w"].value.tobytes() == params["w"].value.tobytes()


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weight_norm_is_stored_as_v_and_g(dtype, dim, tmp_path):
    params, other = model(dtype, 0, dim), model(dtype, 1, dim)
    momentum(params).step(gradients(params, 0))
    nb.save(tmp_path / "a", params)
    found = nb.load(tmp_path / "a")
    w = params["fc.weight"]
    assert "fc.weight" not in found
    np.testing.assert_array_equal(found["fc.weight_v"], w.weight_v.value)
    np.testing.assert_array_equal(found["fc.weight_g"], w.weight_g.value)
    composed = other["fc.weight"].value
    nb.restore(tmp_path / "a", other)
    assert composed.tobytes() == w.value.tobytes()  # the view is filled, and w recomposed


@pytest.mark.parametrize("laid_out", [False, True])
def test_a_buffer_is_not_laid_out_by_saving_and_restoring(laid_out, tmp_path):
    params, other = model(seed=0), model(seed=1)
    if laid_out:
        assert params.flat.size == other.flat.size
    nb.save(tmp_path / "a", params)
    nb.restore(tmp_path / "a", other)
    assert params.is_sealed is other.is_sealed is laid_out
    assert other.fingerprint() == params.fingerprint()
    assert bits(other.numpy()) == bits(params.numpy())
    assert other.flat.tobytes() == params.flat.tobytes()


def test_views_stay_valid(tmp_path):
    params, other = model(seed=0), model(seed=1)
    views = {name: p.value for name, p in other.items()}
    flat = other.flat
    nb.save(tmp_path / "a", params)
    nb.restore(tmp_path / "a", other)
    assert all(other[name].value is view for name, view in views.items())
    assert flat.tobytes() == params.flat.tobytes()


def test_gradients_become_zero_and_absent_ones_absent(tmp_path):
    params, other = model(seed=0), model(seed=1)
    params["fc.bias"].grad = None
    params["fc.weight"].grad = None
    nb.save(tmp_path / "a", params)
    other.set_grads({name: np.full(p.shape, np.nan) for name, p in other.items()})
    other["scale"].grad = None
    nb.restore(tmp_path / "a", other)
    assert not other.flat_grad.any()
    assert {name for name, p in other.items() if not p.has_grad} == {"fc.bias", "fc.weight"}


def test_policies_stay(tmp_path):
    params, other = model(seed=0), model(seed=1)
    opt = momentum(other, weight_decay=0.25)
    other.freeze("fc.*")
    other["scale"].learning_rate = 3.0
    nb.save(tmp_path / "a", params, momentum(params, use_nesterov=True))
    nb.restore(tmp_path / "a", other, opt)
    assert [p.trainable for p in other.values()] == [False, False, True, True, True]
    assert other["scale"].learning_rate == 3.0
    assert opt.param_groups[0]["weight_decay"] == 0.25
    assert opt.param_groups[0]["use_nesterov"] is False


def test_saving_changes_nothing(tmp_path):
    params = model()
    opt = momentum(params)
    opt.step(gradients(params, 0))
    params.set_grads(gradients(params, 1))
    before = params.fingerprint(), params.flat_grad.tobytes(), bits(opt.state_dict())
    nb.save(tmp_path / "a", params, opt)
    assert (params.fingerprint(), params.flat_grad.tobytes(), bits(opt.state_dict())) == before


def test_the_same_objects_give_the_same_bytes(tmp_path):
    for name, params in (("a", model()), ("b", model())):
        nb.save(tmp_path / name, params, momentum(params))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- objects and keywords --------------------------------------------------------------------------


def test_keys(tmp_path):
    params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    nb.save(tmp_path / "a", params, momentum(params), ema=Counter(3), old=nb.optimizer.SGD(0.5, params))
    common = ["learning_rate", "rule", "step_count", "steps_skipped", "steps_skipped_in_a_row"]
    old = ["old/w.step", *(f"old/{key}" for key in common)]
    ema = ["ema/best", "ema/count", "ema/history"]
    assert sorted(nb.load(tmp_path / "a")) == sorted(["w", "w.velocity", "w.step", *common, *ema, *old])


def test_matched_by_kind_and_order_else_by_keyword(tmp_path):
    first, second, third = (nb.ParameterBuffer.from_arrays({name: [1.0]}) for name in "abc")
    nb.save(tmp_path / "a", first, Counter(5), second, third=third, note=Counter(6))
    counter, named = Counter(), Counter()
    again = [nb.ParameterBuffer.from_arrays({name: [0.0]}) for name in "abc"]
    nb.restore(tmp_path / "a", again[0], again[1], counter, third=again[2], note=named)
    assert [b.to_vector().item() for b in again] == [1.0, 1.0, 1.0]
    assert (counter.count, named.count) == (5, 6)
    again[0]["a"].value = [0.0]
    nb.restore(tmp_path / "a", again[0])  # a subset
    assert again[0].to_vector().item() == 1.0


def test_any_keyword(tmp_path):
    params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    keywords = ["path", "self", "a/b", "ü", " ", "__metadata__"]
    nb.save(tmp_path / "a", **{key: Counter(index) for index, key in enumerate(keywords)}, model=params)
    found = {key: Counter() for key in keywords}
    nb.restore(tmp_path / "a", **found)
    assert [counter.count for counter in found.values()] == list(range(6))


VALUES = [None, True, False, 0, -5, 2**100, 0.1, -0.0, 1e-320, float("inf"), float("-inf"), "", "tëxt\n"]
VALUES += [[], {}, [1, [2.5, None]], {"a": {"b": [1]}, "": 2}, {"float": "nan"}, {"dict": {}}, float("nan")]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_of_the_users_objects(value, tmp_path):
    counter, other = Counter(value), Counter()
    nb.save(tmp_path / "a", counter)
    nb.restore(tmp_path / "a", other)
    assert repr(other.count) == repr(value)
    assert type(other.count) is type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int8(3), 3),
        (np.bool_(True), True),
        ((1, 2.0), [1, 2.0]),
    ],
    ids=repr,
)
def test_values_take_their_plain_form(value, plain, tmp_path):
    nb.save(tmp_path / "a", Counter(value))
    found = nb.load(tmp_path / "a")["count"]
    assert (repr(found), type(found)) == (repr(plain), type(plain))


DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_the_users_objects(dtype, order, tmp_path):
    counter, other = Counter(), Counter()
    whole = np.arange(24).reshape(4, 6).astype(np.dtype(dtype).newbyteorder(order))
    for array in (whole, whole.T, whole[::2, 1::2], whole[1, 1], np.asfortranarray(whole), whole[:, :0]):
        counter.history = np.asarray(array)
        nb.save(tmp_path / "a", counter)
        nb.restore(tmp_path / "a", other)
        assert other.history.dtype == np.dtype(dtype).newbyteorder("<")
        np.testing.assert_array_equal(other.history, array)
        safe = safetensors.numpy.load_file(tmp_path / "a")
        np.testing.assert_array_equal(safe["history"], array)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(2, complex), "complex128"),
        (np.array([None]), "object"),
        (np.array(["a"]), "<U1"),
        ([np.zeros(2)], "ndarray; arrays are stored where state_dict"),
        ({1: 2}, "the key 1, no text"),
        (object(), "object"),
        (b"bytes", "bytes"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (np.longdouble(1), "longdouble"),
        ({1, 2}, "set"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_stored_is_named(value, words, tmp_path):
    with pytest.raises(TypeError, match="'count' cannot be stored: ") as caught:
        nb.save(tmp_path / "a", Counter(value))
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def nested(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: {"a": x}], ids=["list", "dictionary"])
def test_values_nest_64_deep(wrap, tmp_path):
    nb.save(tmp_path / "a", Counter(nested(64, wrap)))
    assert nb.load(tmp_path / "a")["count"] == nested(64, wrap)
    with pytest.raises(TypeError, match=r"'count' cannot be stored: .* deeper than 64"):
        nb.save(tmp_path / "a", Counter(nested(65, wrap)))
    endless = []
    endless.append(endless)
    with pytest.raises(TypeError, match=r"'count' cannot be stored: .* deeper than 64"):
        nb.save(tmp_path / "a", Counter(endless))


def test_text_that_is_none(tmp_path):
    with pytest.raises(CheckpointError, match=r"'count' cannot be stored: .* no text: surrogates"):
        nb.save(tmp_path / "a", Counter("\ud800"))
    with pytest.raises(CheckpointError, match="no text: surrogates"):
        nb.save(tmp_path / "a", **{"\udfff": Counter()})
    counter = Counter()
    counter.state_dict = lambda: {"\ud800": np.zeros(1)}
    with pytest.raises(CheckpointError, match="no text: surrogates"):
        nb.save(tmp_path / "a", counter)
    assert not list(tmp_path.iterdir())


# --- surroundings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_path", [str, Path, os.fsencode], ids=["str", "path", "bytes"])
def test_paths(as_path, tmp_path):
    params = model()
    path = as_path(tmp_path / "ünï")
    nb.save(path, params)
    nb.export(path, params)
    assert "fc.weight" in nb.load(path)
    with pytest.raises(CheckpointError, match="ünï"):
        nb.restore(path, params)


def test_loading_imports_no_other_reader(tmp_path):
    nb.save(tmp_path / "a", model())
    code = f"nbopt.load({str(tmp_path / 'a')!r}); print({{'safetensors', 'torch'}} & set(sys.modules))"
    assert python("-c", f"import sys, nbopt; {code}").strip() == "set()"
