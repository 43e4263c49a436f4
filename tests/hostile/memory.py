"""Arrays that an optimizer is given: of other types and shapes, shared, overlapping, read-only."""

import itertools

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import ParameterError
from tests.hostile import F32, F64, buffer, pair, refused, same


def step_from(array):
    """A parameter of these values, moved by a step; the array itself stays as it is."""
    before = array.tobytes()
    params = nb.ParameterBuffer.from_arrays({"w": array})
    nb.optimizer.SGD(0.5, params).step({"w": np.ones(array.shape)})
    assert array.tobytes() == before
    return params["w"].numpy()


def integers():
    """Values are copied, and moved as floats; storage is never of integers."""
    same(step_from(np.array([5, 5])), F64([4.5, 4.5]))
    same(step_from(np.array([5, 5], np.int16)), F32([4.5, 4.5]))
    refused(lambda: nb.ParameterBuffer(dtype="int32"), TypeError, "float32 or float64")
    refused(lambda: nb.ParameterBuffer.from_arrays({"w": [True]}), TypeError, "'w'", "bool")


def complex_numbers():
    refused(lambda: nb.ParameterBuffer.from_arrays({"w": [1 + 2j]}), TypeError, "'w'", "complex128")
    refused(lambda: nb.ParameterBuffer(dtype="complex64"), TypeError, "float32 or float64")
    refused(lambda: pair()["w"].set_value([1j, 0]), TypeError, "'w'", "complex128")


def no_elements():
    params = buffer(none=np.zeros((0, 3)), w=[1.0])
    opt = nb.optimizer.SGD(0.5, params)
    opt.step({"none": np.zeros((0, 3)), "w": [1.0]})
    assert params["none"].numpy().shape == (0, 3)
    assert opt.grad_norm == 1.0
    same(params["w"].value, F32([0.5]))
    nb.optimizer.SGD(0.5, [params["none"]]).step()


def a_number():
    same(step_from(np.float32(1.0)), F32(0.5))


def an_expression():
    params = pair()
    refused(lambda: nb.optimizer.SGD(0.1, [params["w"].value * 2]), TypeError, "Parameter objects", "ndarray")
    refused(lambda: nb.optimizer.SGD(0.1, {"w": np.ones(2)}), TypeError, "from_arrays")


def gradient_of_another_dtype():
    """Cast as NumPy casts the same kind, rounded once; what does not fit is refused."""
    params = pair()
    for grad in (
        [0.1, 0.2],
        np.float16([0.1, 0.2]),
        np.longdouble([0.1, 0.2]),
        np.array([3, 4]),
        np.uint8([3, 4]),
    ):
        params.set_grads({"w": grad})
        same(params["w"].grad, np.asarray(grad).astype(F32))
    before = params["w"].grad.copy()
    refused(lambda: params.set_grads({"w": [0.0, 1e300]}), ParameterError, "'w'", "(1,)", "1e+300")
    for grad in ([1j, 0], [True, False], ["1", "2"], [None, 1]):
        refused(lambda g=grad: params.set_grads({"w": g}), TypeError, "'w'", "real numbers")
    same(params["w"].grad, before)


def gradient_of_another_shape():
    params = pair()
    opt = nb.optimizer.SGD(0.1, params)
    for grad in ([1.0, 2.0, 3.0], [1.0], 1.0, [[1.0, 2.0]]):
        refused(lambda g=grad: opt.step({"w": g}), ParameterError, "'w'", str(np.shape(grad)), "(2,)")
    same(params["w"].value, F32([1, 2]))
    assert opt.step_count == 0


def gradient_broadcast():
    """A gradient that NumPy has broadcast is copied; nothing is broadcast on the way in."""
    params = pair()
    params.set_grads({"w": np.broadcast_to(F32(3), (2,))})
    same(params["w"].grad, F32([3, 3]))
    refused(lambda: params.set_grads({"w": np.ones((2, 1))}), ParameterError, "'w'", "(2, 1)", "(2,)")
    with pytest.raises(ValueError, match="broadcast"):
        params["w"].grad[:] = np.ones((2, 2))


def gradient_is_the_parameter():
    params = buffer(w=[1.0, 2.0])
    weight = params["w"]
    weight.grad = weight.value
    nb.optimizer.SGD(0.25, params).step()
    same(weight.value, F32([0.75, 1.5]))
    same(weight.grad, F32([1, 2]))


def gradient_of_two_parameters():
    params = buffer(a=np.zeros(4), b=np.zeros(4))
    shared = np.ones(4)
    params.set_grads({"a": shared, "b": shared})
    assert nb.clip_grad_norm_(params, 2.0) == np.sqrt(8)
    same(params["a"].grad, params["b"].grad)
    assert abs(nb.norm(params.to_vector("grad")) - 2.0) < 1e-6
    same(shared, np.ones(4))


def a_set_of_parameters():
    params = pair()
    for group in (set(params.values()), frozenset(params.values())):
        refused(lambda g=group: nb.optimizer.SGD(0.1, g), TypeError, "set", "list")
        refused(lambda g=group: nb.optimizer.SGD(0.1, [{"params": g}]), TypeError, "set", "list")


def one_name_twice():
    """Shares the parameter where it is the same one, and is refused where it is not."""
    params = nb.ParameterBuffer()
    weight = params.create_parameter([2], "w")
    assert params.create_parameter([2], "w") is weight
    refused(lambda: params.create_parameter([3], "w"), ParameterError, "'w'", "(2,)", "(3,)")
    attr = nb.ParamAttr(learning_rate=2.0)
    refused(lambda: params.create_parameter([2], "w", attr), ParameterError, "'w'", "conflicts")


def overlapping_views():
    room = np.zeros(8, F32)
    params = buffer(a=room[0:5], b=room[3:8])
    nb.optimizer.SGD(1.0, params).step({"a": np.ones(5), "b": np.full(5, 2.0)})
    same(params["a"].value, F32([-1] * 5))
    same(params["b"].value, F32([-2] * 5))
    same(room, np.zeros(8, F32))


def a_broadcast_parameter():
    same(step_from(np.broadcast_to(F32(1), (3,))), F32([0.5, 0.5, 0.5]))


def a_read_only_array():
    array = np.ones(3, F32)
    array.flags.writeable = False
    same(step_from(array), F32([0.5, 0.5, 0.5]))
    params = buffer(w=np.zeros(3))
    params.set_grads({"w": array})
    assert nb.clip_grad_norm_(params, 0.0) == np.sqrt(3)  # writes to its own copy
    same(array, np.ones(3, F32))


def a_read_only_file(tmp_path):
    np.ones(1000, F32).tofile(tmp_path / "values")
    mapped = np.memmap(tmp_path / "values", F32, "r")
    same(step_from(mapped), np.full(1000, 0.5, F32))
    same(np.fromfile(tmp_path / "values", F32), np.ones(1000, F32))
    assert abs(nb.norm(mapped) - np.sqrt(1000)) < 1e-12


def big_endian():
    """Swapped exactly: the numbers are the same."""
    array = np.array([1.0, 2.0], ">f4")
    same(step_from(array), F32([0.5, 1.5]))
    assert nb.norm(np.array([3.0, 4.0], ">f4")) == nb.norm(np.array([3.0, 4.0], ">f8")) == 5.0
    same(nb.ClipGradByValue(1.0)({"w": array})["w"], F64([1, 1]))


def half_precision():
    """No storage of it: such values are taken as float32, which holds them exactly."""
    for dtype in ("float16", np.float16):
        refused(lambda d=dtype: nb.ParameterBuffer(dtype=d), TypeError, "float32 or float64", "float16")
    same(step_from(np.float16([1.0, 0.1])), F32([0.5, F32(np.float16(0.1)) - F32(0.5)]))


def bfloat16():
    raw = np.zeros(2, "V2")  # as ml_dtypes shows bfloat16 to NumPy
    refused(lambda: nb.ParameterBuffer.from_arrays({"w": raw}), TypeError, "'w'", "V2")
    refused(lambda: pair().set_grads({"w": raw}), TypeError, "'w'", "V2")


def beyond_a_view():
    """A step reads and writes inside the parameters alone: what pads them may hold anything."""
    params = buffer(a=[1.0, 2.0, 3.0], b=np.ones(40), c=1.0)
    padding = np.ones(params.flat.size, bool)
    for piece in params.slices.values():
        padding[piece] = False
    assert padding.any()
    params.flat[padding] = 7.0
    params.flat_grad[:] = np.nan
    params.set_grads({"a": np.ones(3), "b": np.ones(40), "c": 1.0})
    assert np.isnan(params.flat_grad[padding]).all()
    opt = nb.optimizer.SGD(1.0, params, grad_clip=nb.ClipGradByGlobalNorm(100.0))
    opt.step()
    same(params.to_vector(), F32([0, 1, 2] + [0] * 41))
    same(params.flat[padding], np.full(padding.sum(), 7.0, F32))
    assert opt.grad_norm == np.sqrt(44)
    with pytest.raises(IndexError):
        params["a"].value[3] = 0.0


def slices_lie_apart():
    """Values are copied into one array, so parameters cannot overlap."""
    rng = np.random.default_rng(0)
    params = buffer(**{f"p{i}": np.zeros(int(rng.integers(0, 100))) for i in range(1000)})
    ends = sorted((piece.start, piece.stop) for piece in params.slices.values())
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(ends))
