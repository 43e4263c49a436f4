"""What leaves a buffer: its summary, its fingerprint, plain arrays, and copies of all of it."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.regularizer import L1Decay, L2Decay

PLAIN, NORMED = nb.ParamAttr, nb.WeightNormParamAttr
DTYPES = ["float32", "float64"]


def network(dtype="float32", order=("w", "b", "s", "e")):
    """A buffer of every kind of parameter, created in some order."""
    declared = {
        "w": ([3, 40], NORMED(dim=0, learning_rate=0.5, regularizer=L2Decay(1e-4))),
        "b": ([40], PLAIN(regularizer=L1Decay(0.25), need_clip=False)),
        "s": ([], PLAIN(trainable=False)),
        "e": ([0, 7], None),
    }
    params = nb.ParameterBuffer(dtype, seed=3)
    for name in order:
        params.create_parameter(declared[name][0], name, declared[name][1])
    return params


# --- summary ---------------------------------------------------------------------------------------

# name, shape, kind, trainable, lr, regularizer, clip, elements that an optimizer moves
ROWS = [
    ("w", (3, 40), "weight norm, dim=0", True, 0.5, "L2 0.0001", True, 123),
    ("b", (40,), "plain", True, 1.0, "L1 0.25", False, 40),
    ("s", (), "plain", False, 1.0, "inherited", True, 1),
    ("e", (0, 7), "plain", True, 1.0, "inherited", True, 0),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
def test_rows(dtype, sealed):
    params = network(dtype)
    if sealed:
        _ = params.flat  # lays the storage out
    summary = params.summary()
    assert params.is_sealed is sealed
    found = [
        (r.name, r.shape, r.kind, r.trainable, r.lr, r.regularizer, r.clip, r.bytes) for r in summary.rows
    ]
    itemsize = np.dtype(dtype).itemsize
    assert found == [(*row[:-1], row[-1] * itemsize) for row in ROWS]
    assert (summary.elements, summary.bytes) == (161, 164 * itemsize)


def test_the_text_is_a_table():
    head, line, *body, total = str(network().summary()).splitlines()
    assert head.split() == ["name", "shape", "kind", "trainable", "lr", "regularizer", "clip", "bytes"]
    assert set(line) == {"-"}
    assert [" ".join(row.split()) for row in body] == [
        "w 3x40 weight norm, dim=0 yes x 0.5 L2 0.0001 yes 492",
        "b 40 plain yes x 1 L1 0.25 no 160",
        "s scalar plain frozen x 1 inherited yes 4",
        "e 0x7 plain yes x 1 inherited yes 0",
    ]
    assert len({len(row) for row in (head, *body)}) == 1  # columns stand under their heads
    assert total == "4 parameters, 161 elements, 656 bytes"
    assert repr(network().summary()) == str(network().summary())


def test_the_summary_shows_what_was_set_and_does_not_follow():
    params = network()
    before = params.summary()
    params["w"].learning_rate = 3.0
    params["w"].regularizer = None
    params["b"].trainable = False
    params["s"].need_clip = False
    rows = {row.name: row for row in params.summary().rows}
    assert (rows["w"].lr, rows["w"].regularizer) == (3.0, "inherited")
    assert (rows["b"].trainable, rows["s"].clip) == (False, False)
    assert before.rows[0].lr == 0.5


def test_v_and_g_are_told_apart_where_they_differ():
    params = network()
    g, v = params["w"].weight_g, params["w"].weight_v
    v.regularizer, g.learning_rate, g.need_clip, v.trainable = L2Decay(0.0), 2.0, False, False
    row = params.summary().rows[0]
    assert [(part.name, part.shape, part.kind) for part in row.parts] == [
        ("w_v", (3, 40), "direction, dim=0"),
        ("w_g", (3, 1), "magnitude, dim=0"),
    ]
    found = [(r.trainable, r.lr, r.regularizer, r.clip, r.bytes) for r in (row, *row.parts)]
    assert found == [
        (True, 0.5, "L2 0", True, 492),
        (False, 0.5, "L2 0", True, 480),
        (True, 2.0, "L2 0.0001", False, 12),
    ]
    text = " ".join(str(params.summary()).splitlines()[2].split())
    assert text == (
        "w 3x40 weight norm, dim=0 v: frozen, g: yes v: x 0.5, g: x 2 v: L2 0, g: L2 0.0001 v: yes, g: no 492"
    )
    assert [other.parts for other in params.summary().rows[1:]] == [()] * 3
    params["w"].trainable = params["w"].need_clip = False
    text = " ".join(str(params.summary()).splitlines()[2].split())
    assert text.endswith("dim=0 frozen v: x 0.5, g: x 2 v: L2 0, g: L2 0.0001 no 492")


def test_an_empty_buffer_has_an_empty_table():
    summary = nb.ParameterBuffer().summary()
    assert (summary.rows, summary.elements, summary.bytes) == ((), 0, 0)
    assert str(summary).endswith("0 parameters, 0 elements, 0 bytes")


def test_the_repr_of_a_buffer():
    assert repr(network()) == "ParameterBuffer(4 parameters, 161 elements, float32, cpu)"


# --- fingerprint -----------------------------------------------------------------------------------


def test_equal_bits_have_equal_fingerprints():
    params = network()
    fingerprint = params.fingerprint()
    assert isinstance(fingerprint, str)
    assert not params.is_sealed
    assert network().fingerprint() == fingerprint
    assert network(order=("e", "b", "w", "s")).fingerprint() == fingerprint
    _ = params.flat
    assert params.fingerprint() == fingerprint
    params.flat_grad[:] = 1.0  # gradients do not belong to it
    params["b"].learning_rate = 0.0  # nor do policies
    params.recompose()
    params.from_vector(params.to_vector(space="trainable"), space="trainable")
    assert params.fingerprint() == fingerprint


def test_padding_is_left_out_of_the_fingerprint():
    params = network()
    fingerprint = params.fingerprint()
    real = np.zeros(params.flat.size, bool)
    for where in params.slices.values():
        real[where] = True
    assert not real.all()
    params.flat[~real] = np.nan
    assert params.fingerprint() == fingerprint


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["w", "w_v", "w_g", "b", "s"])
@pytest.mark.parametrize("bit", [0, 7, -1], ids=["lowest", "middle", "sign"])
def test_one_bit_changes_the_fingerprint(name, bit, dtype):
    params = network(dtype)
    before = params.fingerprint()
    values = params[name].numpy()
    bits = values.reshape(-1).view(f"u{values.itemsize}")
    bits[-1] ^= bits.dtype.type(1 << (bit % (8 * values.itemsize)))
    if name == "w":
        params.flat[params.slices["w"]] = values.reshape(-1)
    else:
        params[name].set_value(values)
    assert params.fingerprint() != before


def test_what_else_changes_the_fingerprint():
    base = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    others = [
        {"a": [3.0, 4.0], "b": [1.0, 2.0]},
        {"a": [1.0, 2.0, 3.0], "b": [4.0]},
        {"a": [1.0, 2.0], "c": [3.0, 4.0]},
        {"a": [1.0, 2.0]},
        {"a": [0.0, 2.0], "b": [3.0, 4.0]},
        {"a": [-0.0, 2.0], "b": [3.0, 4.0]},
        {"a": [[1.0], [2.0]], "b": [3.0, 4.0]},
    ]
    prints = [nb.ParameterBuffer.from_arrays(arrays).fingerprint() for arrays in (base, *others)]
    prints.append(nb.ParameterBuffer.from_arrays(base, dtype="float32").fingerprint())
    assert len(set(prints)) == len(prints)


# --- as arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
def test_numpy_gives_copies_by_name(sealed):
    params = network()
    if sealed:
        _ = params.flat
    arrays = params.numpy()
    assert params.is_sealed is sealed
    assert list(arrays) == ["w", "b", "s", "e"]
    assert list(params.numpy("[wb]")) == ["w", "b"]
    assert params.numpy("nothing*") == {}
    before = params.to_vector()
    for name, array in arrays.items():
        assert (array.shape, array.dtype) == (params[name].shape, np.float32)
        array[...] = 9.0
    assert_array_equal(params.to_vector(), before)


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize("name", ["w", "w_v", "b"])
def test_as_a_numpy_array(name, sealed):
    params = network()
    if sealed:
        _ = params.flat
    p = params[name]
    expected = p.numpy()
    for copied in (p.numpy(), np.array(p), np.asarray(p), p.__array__(copy=True)):
        assert copied.dtype == np.float32
        assert_array_equal(copied, expected)
        copied[:] = 0.0  # a copy, also where the view is read-only
    assert_array_equal(p.numpy(), expected)
    assert params.is_sealed is sealed
    assert np.asarray(p, dtype=np.float64).dtype == np.float64
    assert np.sum(p) == expected.sum()
    with pytest.raises(ValueError, match=rf"'{name}'.*float64.*copy"):
        p.__array__(dtype=np.float64, copy=False)


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize("name", ["w", "w_v", "b"])
def test_an_array_without_a_copy_is_the_view(name, sealed):
    params = network()
    if sealed:
        _ = params.flat
    array = params[name].__array__(copy=False)
    params.from_vector(2 * params.to_vector())
    assert_array_equal(array, params[name].numpy())
    assert array.__array_interface__["data"] == params[name].value.__array_interface__["data"]


@pytest.mark.parametrize("name", ["w", "w_v", "w_g", "b"])
def test_dlpack_shares_memory(name):
    p = network()[name]
    assert p.__dlpack_device__() == (1, 0)
    if p.value.flags.writeable or np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        shared = np.from_dlpack(p)
        p.set_value(2 * p.numpy())
        assert_array_equal(shared, p.value)
        assert shared.flags.writeable is p.value.flags.writeable
    else:  # older DLPack has no read-only arrays
        with pytest.raises(BufferError, match="readonly"):
            np.from_dlpack(p)


# --- copies ----------------------------------------------------------------------------------------


def out_of_band(thing):
    """Pickle with the arrays out of band, and load from other memory."""
    buffers = []
    data = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


def shared_band(thing):
    """Pickle with the arrays out of band, and load from the very same memory."""
    buffers = []
    data = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=buffers)


COPIES = {
    "deepcopy": copy.deepcopy,
    "out of band": out_of_band,
    "the same memory": shared_band,
    **{f"protocol {n}": lambda x, n=n: pickle.loads(pickle.dumps(x, protocol=n)) for n in range(2, 6)},
}
copies = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
FIELDS = (
    "name",
    "shape",
    "attr",
    "learning_rate",
    "regularizer",
    "need_clip",
    "trainable",
    "do_model_average",
)


def facts(params):
    parts = [params[name] for name in ("w", "w_g", "w_v", "b", "s", "e")]
    return [tuple(getattr(part, field) for field in FIELDS) for part in parts]


@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@copies
def test_copies_keep_everything_and_stand_alone(duplicate, sealed):
    params = network()
    params["w"].weight_g.learning_rate = 7.0
    params["w"].weight_v.trainable = False
    params["b"].regularizer = None
    params["b"].do_model_average = False
    params["w"].weight_g.set_value(-2 * params["w"].weight_g.numpy())
    if sealed:
        params.set_grads({"w": np.ones((3, 40)), "b": np.full(40, 0.5), "s": None})
    before = facts(params), params.fingerprint(), params.to_vector(space="trainable")
    other = duplicate(params)
    assert other is not params
    assert list(other) == list(params)
    assert (facts(other), other.fingerprint(), other.is_sealed) == (*before[:2], sealed)
    assert (other.dtype, other.device, other.seed) == (params.dtype, params.device, params.seed)
    if sealed:
        assert_array_equal(other.to_vector("grad"), params.to_vector("grad"))
        assert [p.has_grad for p in other.values()] == [True, True, False, True]
        params.flat[:] = 0.0
        params.flat_grad[:] = 9.0
        assert not np.any(other.flat_grad == 9.0)
    else:
        made = [p.create_parameter([5]) for p in (params, other)]
        assert made[0].name == made[1].name == "param_0"
        assert_array_equal(made[0].numpy(), made[1].numpy())
        params["b"].set_value(np.zeros(40))
        other.create_parameter([1], "last")
        assert "last" not in params
    assert_array_equal(other.to_vector(space="trainable")[: before[2].size], before[2])
    other["b"].value += 1  # writable, and on a boundary
    other["w"].learning_rate = 1.0
    assert params["w"].weight_g.learning_rate == 7.0
    assert all(p.value.ctypes.data % 128 == 0 for p in other.values())


@copies
@pytest.mark.parametrize("name", ["w", "w_v", "b"])
def test_one_parameter_brings_its_buffer(duplicate, name):
    params = network()
    one, buffer, two = duplicate((params[name], params, params[name]))
    assert one is two is buffer[name]
    assert one is not params[name]
    alone = duplicate(params[name])
    assert_array_equal(alone.numpy(), params[name].numpy())
    assert alone.attr == params[name].attr
    assert copy.copy(params[name]) is params[name]


def test_arrays_travel_out_of_band():
    for params in (network(), network()):
        params.create_parameter([1000], "large")
        arrays = sum(p.numpy().nbytes for p in params.values())
        for _ in range(2):
            buffers = []
            data = pickle.dumps(params, protocol=5, buffer_callback=buffers.append)
            assert sum(buffer.raw().nbytes for buffer in buffers) >= arrays
            assert len(data) < 3000
            _ = params.flat


@pytest.mark.parametrize("duplicate", [copy.deepcopy, out_of_band], ids=["deepcopy", "pickle"])
def test_an_optimizer_and_its_buffer_stay_tied(duplicate):
    params = network()
    opt = nb.optimizer.Momentum(0.1, parameters=params)
    params.set_grads({"b": np.ones(40)})
    opt.step()
    other, tied = duplicate((params, opt))
    assert [p is other[p.name] for p in tied.parameters] == [True] * 4
    (alone,) = duplicate([opt])  # copies its buffer
    before = params.fingerprint()
    tied.step()
    alone.step()
    assert params.fingerprint() == before
    opt.step()
    assert params.fingerprint() == other.fingerprint() != before
    assert_array_equal(alone.parameters[1].numpy(), params["b"].numpy())
