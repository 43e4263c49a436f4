"""The same bits for the same numbers: however they lie, in whatever order and how often."""

import threading
import warnings

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import FloatEnvironmentWarning, ParameterError
from tests.floats import BITS, can_flush, control_word, flushing
from tests.hostile import F32, F64, buffer, refused, same


def sensitive(count, dtype=F32):
    """Numbers whose sum of squares depends on the order of summation."""
    array = np.random.default_rng(0).standard_normal(count).astype(dtype)
    array *= np.exp2(np.arange(count) % 23 - 11).astype(dtype)
    return array


def run_to_run():
    array = sensitive(50_001)
    first = nb.norm(array)
    assert {nb.norm(array) for _ in range(50)} == {first}
    values = []
    for _ in range(3):
        params = buffer(w=array)
        opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
        for _ in range(4):
            opt.step({"w": array})
        values.append(params.fingerprint())
    assert len(set(values)) == 1


def alignments():
    for dtype in (F32, F64):
        array = sensitive(20_011, dtype)
        room = np.zeros(array.size + 32, dtype)
        found = set()
        for shift in range(32):
            room[shift : shift + array.size] = array
            found.add(nb.norm(room[shift : shift + array.size]))
        assert found == {nb.norm(array)}


def memory_orders():
    differ = 0
    for rows in range(90, 110):
        array = sensitive(rows * 211).reshape(rows, 211)
        strided = np.zeros((rows, 422), F32)
        strided[:, ::2] = array
        backwards = np.ascontiguousarray(array[::-1])[::-1]
        for form in (array.copy(), np.asfortranarray(array), strided[:, ::2], backwards, array.ravel()):
            assert nb.norm(form) == nb.norm(array)
        transposed = np.ascontiguousarray(array.T)
        assert nb.norm(array.T) == nb.norm(transposed)
        differ += nb.norm(transposed) != nb.norm(array)
    assert differ  # or these numbers would show nothing


def order_of_parameters():
    rng = np.random.default_rng(0)
    arrays = {f"p{i}": sensitive(int(rng.integers(1, 400)), F64) * rng.uniform(0.5, 2) for i in range(60)}
    found, clipped = set(), set()
    for _ in range(20):
        names = [str(name) for name in rng.permutation(list(arrays))]
        params = buffer(F64, **{name: np.zeros_like(arrays[name]) for name in names})
        params.set_grads(arrays)
        found.add(nb.clip_grad_norm_(params, np.inf))
        clips = [nb.ClipGradByGlobalNorm(limit) for limit in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)]
        each = [clip({name: arrays[name] for name in names}) for clip in clips]
        clipped.add(b"".join(one[name].tobytes() for one in each for name in arrays))
    assert len(found) == len(clipped) == 1
    (norm,) = found
    together = np.concatenate(list(arrays.values()))
    assert abs(nb.norm(together) - norm) < 1e-14 * norm


def trained(array):
    params = buffer(w=array)
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    for _ in range(3):
        opt.step({"w": array})
    return params.fingerprint(), opt.grad_norm


def needs_flushing():
    if not BITS:
        pytest.skip(can_flush.kwargs["reason"])


def subnormal_numbers_off():
    """Told by a warning; normal numbers keep their bits, and nbopt leaves the control word as it is."""
    needs_flushing()
    array = sensitive(5000)
    expected = trained(array), nb.norm(array)
    opt = nb.optimizer.SGD(0.1, buffer(w=array))
    with flushing():
        word = control_word()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FloatEnvironmentWarning)
            assert (trained(array), nb.norm(array)) == expected
            opt.step()
        with pytest.warns(FloatEnvironmentWarning, match="subnormal numbers"):
            opt.check()
        assert control_word() == word
    opt.step()
    opt.check()  # a warning would be an error
    assert nb.norm(F32([1e-45] * 4)) == 2 * float(F32(1e-45))


def subnormal_numbers_off_elsewhere():
    """The word is one of each thread: that of another one changes nothing here, and gives no warning."""
    needs_flushing()
    ready, done = threading.Event(), threading.Event()

    def work():
        with flushing():
            ready.set()
            done.wait(60)

    expected = trained(sensitive(5000))
    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(60)
    try:
        assert nb.norm(F32([1e-45] * 4)) == 2 * float(F32(1e-45))
        assert trained(sensitive(5000)) == expected
    finally:
        done.set()
        thread.join()


def never_narrowed():
    params = nb.ParameterBuffer.from_arrays({"w": np.array([1e200, 1.0])})
    same(params["w"].value, F64([1e200, 1.0]))
    assert nb.ParameterBuffer.from_arrays({"w": [0.1], "b": F32([0.5])}).dtype == F64
    single = buffer(w=[1.0, 2.0])
    for call in (
        lambda: single["w"].set_value([1e200, 1.0]),
        lambda: single.set_grads({"w": [1e200, 1.0]}),
        lambda: buffer(w=[1e200]),
    ):
        refused(call, ParameterError, "does not fit float32", "'w'", "1e+200")
    same(single["w"].value, F32([1, 2]))
