"""Tables that are edited on the host, and arrays that are lent: what is sent, and what is fetched."""

import gc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import nbopt as nb
from nbopt.errors import DeviceError, ParameterError
from nbopt.kernels.cuda import dlpack
from nbopt.kernels.cuda import memory as memory_module
from nbopt.kernels.cuda.memory import CudaMemory
from nbopt.memory import HOST, find_memory

SHAPE, STEPPED = (12, 5), (1, 3)


class Spy(CudaMemory):
    """A memory that notes what is sent and fetched."""

    def __init__(self):
        super().__init__(0)
        self.sent, self.fetched = [], 0

    def write(self, target, values):
        self.sent.append(target.size)
        super().write(target, values)

    def fill(self, table, start, step, count, bits):
        self.sent.append((start, step, count))
        super().fill(table, start, step, count, bits)

    def read(self, array):
        self.fetched += 1
        return super().read(array)


def table(dtype=np.float64):
    memory = Spy()
    mirror = memory.table(np.arange(60).reshape(SHAPE).astype(dtype), STEPPED)
    memory.sent.clear()
    return memory, mirror


# --- tables ---------------------------------------------------------------------------------------

ROW, COLUMN = st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1)
ROWS = st.one_of(ROW, st.just(slice(None)), st.slices(SHAPE[0]), st.lists(ROW, min_size=1, unique=True))
KEYS = st.one_of(ROWS, st.tuples(ROWS, st.one_of(COLUMN, st.slices(SHAPE[1]))))
EDITS = st.tuples(st.just("edit"), KEYS, st.integers(0, 3))
STEPS = st.tuples(st.just("step"), ROW, st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(EDITS, STEPS), max_size=12), st.sampled_from([np.float64, np.int64]))
def test_edits_and_steps_are_seen_in_their_order(events, dtype):
    """Both halves and a plain array that sees the same; steps write to the device alone."""
    memory, mirror = table(dtype)
    plain = np.arange(60).reshape(SHAPE).astype(dtype)
    for kind, where, value in events:
        if kind == "edit":
            mirror[where] = value
            plain[where] = value
        else:
            for column in STEPPED:
                mirror.array[where, column] = plain[where, column] = value
        np.testing.assert_array_equal(memory.read(mirror.array), plain)
    np.testing.assert_array_equal(mirror[:], plain)
    np.testing.assert_array_equal(mirror[2], plain[2])
    assert mirror[3, 3] == plain[3, 3]


def test_only_what_changed_is_sent():
    memory, mirror = table()
    mirror[4, 2] = 99.0
    assert memory.sent == [1]
    mirror[4, 2] = 99.0
    assert memory.sent == [1]
    mirror[5, 2:5] = [27.0, -1.0, -2.0]  # the first is the same
    assert memory.sent == [1, 2]
    mirror[6] = -3.0
    assert memory.sent == [1, 2, 5]
    mirror[0, 0] = -0.0  # equal, but other bits
    assert memory.sent == [1, 2, 5, 1]


def test_what_steps_write_is_sent_also_where_it_seems_the_same():
    memory, mirror = table()
    mirror.array[4, 1] = -1.0
    mirror[4, 1] = 21.0
    assert memory.sent == [1]
    assert mirror.array[4, 1] == 21.0


def test_a_column_is_written_at_once():
    memory, mirror = table()
    mirror[:, 3] = 7.5
    assert memory.sent == [(3, 5, 12)]
    mirror[:, 2] = np.arange(12.0)
    assert memory.sent[1:] == [1] * 12
    plain = np.arange(60.0).reshape(SHAPE)
    plain[:, 3], plain[:, 2] = 7.5, np.arange(12.0)
    np.testing.assert_array_equal(memory.read(mirror.array), plain)


def test_only_what_steps_write_is_fetched():
    memory, mirror = table()
    assert mirror[3, 2] == 17.0
    assert mirror[:, 4].sum() == 378.0
    assert not memory.fetched
    assert mirror[3, 3] == 18.0
    assert memory.fetched == 1
    mirror[3]
    assert memory.fetched == 2


def test_an_edit_of_what_was_read_is_refused():
    """It would be lost."""
    _, mirror = table()
    with pytest.raises(ValueError, match="read-only"):
        mirror[2][1] = 5.0
    row = CudaMemory(0).row(mirror, 2)
    row[1] = 5.0
    assert mirror[2, 1] == 5.0
    assert row[1] == 5.0


def test_edits_fetch_nothing():
    """Else each would wait for the steps before it."""
    params = nb.ParameterBuffer(device="cuda", seed=0)
    spy = params._memory = Spy()
    for i in range(10):
        params.create_parameter([2], f"p{i}")
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByNorm(1.0))
    spy.fetched = 0
    params["p0"].learning_rate = 2.0
    params["p1"].trainable = False
    params["p2"].grad = [1.0, 2.0]
    params.set_grads({"p3": [1.0, 2.0], "p4": None})
    params.clear_grad(set_to_zero=False)
    opt.zero_grad()
    opt.set_lr(0.5)
    opt.param_groups[0]["weight_decay"] = 0.5
    assert params["p0"].learning_rate == 2.0
    assert opt.get_lr() == 0.5
    opt.param_groups[0]["grad_clip"] = None
    assert not spy.fetched
    opt.step()
    opt.step({"p1": [1.0, 1.0]})
    assert not spy.fetched
    assert opt.step_count == 2
    assert spy.fetched


# --- arrays ---------------------------------------------------------------------------------------


def test_a_value_of_the_device_stays_there():
    params = nb.ParameterBuffer("float64", device="cuda")
    spy = params._memory = Spy()
    w = params.create_parameter([2, 3], "w")
    params.create_parameter([1], "b")
    grad = spy.upload(np.full((2, 3), 4.0))
    w.grad = grad
    w.value = grad
    params.set_grads({"w": grad})
    params.from_vector(spy.upload(np.arange(7.0)))
    params.from_vector(spy.upload(np.arange(7.0)), what="grad")
    assert not spy.fetched
    np.testing.assert_array_equal(w.numpy(), np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(params.to_vector("grad"), np.arange(7.0))


def test_other_arrays_of_the_device_are_converted():
    memory = CudaMemory(0)
    w = nb.ParameterBuffer.from_arrays({"w": np.zeros((2, 3))}, device="cuda")["w"]
    whole = np.arange(12.0).reshape(2, 6)
    w.value = memory.upload(whole.astype("float32"))[:, :3]
    np.testing.assert_array_equal(w.numpy(), whole[:, :3])
    w.value = memory.upload(whole)[:, ::2]
    np.testing.assert_array_equal(w.numpy(), whole[:, ::2])


def test_an_array_of_the_device_is_checked_as_any_other():
    memory = CudaMemory(0)
    params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]}, dtype="float32", device="cuda")
    with pytest.raises(ParameterError, match=r"gradient of 'w' has shape \(3,\), but \(2,\) is needed"):
        params["w"].grad = memory.upload(np.zeros(3, "float32"))
    with pytest.raises(ParameterError, match="does not fit float32"):
        params["w"].value = memory.upload(np.array([1e300, 0.0]))
    with pytest.raises(TypeError, match="real numbers"):
        params["w"].value = memory.upload(np.array([1j, 0.0]))
    np.testing.assert_array_equal(params["w"].numpy(), [1.0, 2.0])


def test_a_parameter_of_one_device_can_be_given_to_another():
    here, there = (nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]}, device=d) for d in ("cpu", "cuda"))
    there["w"].value = 2 * here["w"].value
    here["w"].value = there["w"]
    there["w"].grad = here["w"]
    np.testing.assert_array_equal(here["w"].value, [2.0, 4.0])
    np.testing.assert_array_equal(there["w"].grad.copy_to_host(), [2.0, 4.0])


def test_a_view_of_the_buffer_can_be_its_source():
    params = nb.ParameterBuffer.from_arrays({"w": np.arange(32.0), "b": np.arange(32.0)}, device="cuda")
    here = nb.ParameterBuffer.from_arrays({"w": np.arange(32.0), "b": np.arange(32.0)})
    for p in (params, here):
        assert p.owns(p.flat[3:5])
        p.from_vector(p.flat[:64])
        p["w"].value = p.flat[8:40]
    assert not params.owns(here.flat)
    np.testing.assert_array_equal(params.to_vector(), here.to_vector())


def test_the_norm_of_an_array_of_the_device():
    memory = CudaMemory(0)
    values = np.random.default_rng(0).normal(size=(3, 7)).astype("float32")
    there = nb.ParameterBuffer.from_arrays({"w": values}, device="cuda")["w"]
    for array in (memory.upload(values), there, there.value):
        assert nb.norm(array) == nb.norm(values)
        np.testing.assert_array_equal(nb.norm(array, dim=1), nb.norm(values, dim=1))


def test_no_copy_is_no_array_of_the_host():
    w = nb.ParameterBuffer.from_arrays({"w": [1.0]}, device="cuda")["w"]
    with pytest.raises(ValueError, match="'w' is on cuda:0"):
        np.asarray(w, copy=False)


@pytest.mark.parametrize("shapes", [{}, {"a": (0,), "b": (2, 0)}], ids=["no parameters", "empty ones"])
def test_a_buffer_without_elements_is_refused(shapes):
    params = nb.ParameterBuffer(device="cuda")
    for name, shape in shapes.items():
        params.create_parameter(shape, name)
    with pytest.raises(ParameterError, match="a buffer on cuda:0 must hold at least one element"):
        len(params.flat)


# --- exchange -------------------------------------------------------------------------------------


@pytest.fixture
def params():
    values = {
        "w": np.arange(6.0, dtype="float32").reshape(2, 3),
        "s": np.float32(3.0),
        "z": np.zeros((0, 2), "f"),
    }
    return nb.ParameterBuffer.from_arrays(values, device="cuda")


@pytest.mark.parametrize("name", ["w", "s", "z"])
def test_dlpack_gives_the_memory_itself(params, name):
    p = params[name]
    p.learning_rate = 2.0
    view = np.from_dlpack(p)
    assert (view.shape, view.dtype) == (p.shape, p.dtype)
    np.testing.assert_array_equal(view, p.numpy())
    p.value = p.numpy() + 1
    np.testing.assert_array_equal(view, p.numpy())


def test_dlpack_gives_a_copy_where_one_is_asked_for(params):
    copied = np.from_dlpack(params["w"], copy=True)
    params["w"].value = np.zeros((2, 3))
    np.testing.assert_array_equal(copied, np.arange(6.0).reshape(2, 3))


def test_dlpack_lets_go_of_what_it_lent(params):
    view = np.from_dlpack(params["w"])
    assert len(dlpack._held) == 1
    capsule = params["w"].__dlpack__()
    assert len(dlpack._held) == 2
    del capsule  # nobody took it
    assert len(dlpack._held) == 1
    data = params["w"].numpy()
    params = None
    gc.collect()
    np.testing.assert_array_equal(view, data)  # it outlives the buffer
    del view
    assert not dlpack._held


def test_dlpack_refuses_other_devices(params):
    with pytest.raises(BufferError, match="cuda:0"):
        params["w"].__dlpack__(dl_device=(2, 5))


def test_the_cuda_array_interface(params):
    w = params["w"]
    found = w.__cuda_array_interface__
    assert found.pop("data") == (w.value.__array_interface__["data"][0], False)
    assert found == {"shape": (2, 3), "strides": None, "typestr": "<f4", "stream": 1, "version": 3}
    assert not hasattr(nb.ParameterBuffer.from_arrays({"w": [1.0]})["w"], "__cuda_array_interface__")


@pytest.mark.parametrize("stream", [-2, "a", 1.5])
def test_dlpack_refuses_what_is_no_stream(params, stream):
    with pytest.raises((TypeError, ValueError), match="CUDA stream"):
        params["w"].__dlpack__(stream=stream)


def test_while_a_graph_is_captured_nothing_passes_between_host_and_device(params, monkeypatch):
    """A copy would be made at each replay, of memory that is gone; waiting would break the capture."""
    opt = nb.optimizer.SGD(0.1, params)
    params["w"].grad = np.ones((2, 3))
    opt.step()
    before = params.to_vector()
    with monkeypatch.context() as patch:
        patch.setattr(memory_module, "is_capturing", lambda handle: True)
        opt.step()
        for ask in (
            lambda: opt.set_lr(0.5),
            lambda: opt.step_count,
            lambda: params["w"].numpy(),
            lambda: params["w"].set_value(np.zeros((2, 3))),
        ):
            with pytest.raises(DeviceError, match="while a CUDA graph is captured"):
                ask()
    assert (opt.get_lr(), opt.step_count) == (0.1, 2)
    assert (params.to_vector() != before).any()


# --- devices --------------------------------------------------------------------------------------


def test_requests_and_what_they_stand_for():
    assert (
        find_memory("cuda").device == find_memory("cuda:0").device == find_memory("auto").device == "cuda:0"
    )
    assert find_memory("cpu") is HOST
    with pytest.raises(DeviceError, match=r"device 'cuda:1' cannot be used: .* has one device, cuda:0"):
        find_memory("cuda:1")


def test_compiled_code_of_the_cpu_cannot_step_a_device(params):
    opt = nb.optimizer.SGD(0.1, params)
    with pytest.raises(DeviceError, match=r"jit_step\(\) is for compiled code of the CPU"):
        opt.jit_step()
