"""How arrays change hands, and in what order, with a driver that is made up and notes what it is told."""

import contextlib
import types

import numpy as np
import pytest

from nbopt.errors import DeviceError
from nbopt.kernels.cuda import memory as cuda_memory

OWN, OTHER = 1, 77


class Array:
    """An array of another library: what it publishes, and by which protocols."""

    def __init__(self, stream=None, dlpack=False, log=None, place=None, strides=None):
        self.__cuda_array_interface__ = {"stream": stream}
        self.strides = strides  # None if there are no gaps
        if place:
            self.__dlpack_device__ = lambda: place
        if dlpack:
            self.__dlpack__ = lambda stream: log.append(("asked", stream))


class Event:
    def __init__(self, log):
        self.log = log

    def record(self, stream):
        self.log.append(("record", stream))

    def wait(self, stream):
        self.log.append(("wait", stream))


@pytest.fixture
def log(monkeypatch):
    found = []

    def as_cuda_array(value, sync):
        assert not sync  # would stop the program
        stream = value.__cuda_array_interface__["stream"]
        return types.SimpleNamespace(
            stream=stream, is_c_contiguous=lambda: value.strides is None, owner=value, strides=value.strides
        )

    cuda = types.SimpleNamespace(
        as_cuda_array=as_cuda_array,
        external_stream=lambda handle: handle,
        legacy_default_stream=lambda: OWN,
        event=lambda timing: Event(found),
        gpus=[contextlib.nullcontext()],
    )
    monkeypatch.setattr(cuda_memory, "import_cuda", lambda: cuda)
    monkeypatch.setattr(cuda_memory, "is_simulated", lambda: False)
    return found


@pytest.mark.parametrize("stream", [None, OWN])
def test_an_array_of_the_same_stream_is_not_waited_for(log, stream):
    array = Array(stream)
    assert cuda_memory.CudaMemory(0).borrow(array).owner is array
    assert log == []


def test_an_array_of_another_stream_is_waited_for(log):
    cuda_memory.CudaMemory(0).borrow(Array(OTHER))
    assert log == [("record", OTHER), ("wait", OWN)]


@pytest.mark.parametrize("stream", [None, OTHER])
def test_a_library_that_can_order_streams_is_asked_to(log, stream):
    """PyTorch publishes no stream, but knows in which it works."""
    cuda_memory.CudaMemory(0).borrow(Array(stream, dlpack=True, log=log))
    assert log == [("asked", OWN)]


def test_what_is_no_array_of_a_device_is_not_borrowed(log):
    assert cuda_memory.CudaMemory(0).borrow([1.0]) is None


@pytest.mark.parametrize("handle", [None, 0, OWN, -1])
def test_lending_to_the_same_stream_or_to_none_waits_for_nothing(log, handle):
    cuda_memory.CudaMemory(0).lend(handle)
    assert log == []


def test_lending_to_another_stream_lets_it_wait(log):
    cuda_memory.CudaMemory(0).lend(OTHER)
    assert log == [("record", OWN), ("wait", OTHER)]


@pytest.mark.parametrize("place", [(2, 0), (13, 1), (3, 0)], ids=["its own", "managed", "of the host"])
def test_an_array_that_the_device_can_order_is_taken(log, place):
    array = Array(place=place)
    assert cuda_memory.CudaMemory(0).borrow(array).owner is array


def test_an_array_of_another_device_is_refused(log):
    """Its streams cannot be waited for, so that it would be read too early."""
    with pytest.raises(DeviceError, match="an array on cuda:1 was given where cuda:0 is used: copy it there"):
        cuda_memory.CudaMemory(0, DeviceError).borrow(Array(OTHER, True, log, place=(2, 1)))
    assert log == []


def test_an_array_that_runs_backwards_is_refused(log):
    """Which numba-cuda cannot copy."""
    with pytest.raises(DeviceError, match="give a copy"):
        cuda_memory.CudaMemory(0, DeviceError).borrow(Array(strides=(-4,)))


@pytest.mark.parametrize("locked", [False, True])
def test_page_locked_memory_may_change_as_soon_as_it_was_given(log, locked, monkeypatch):
    """The driver reads it later; other memory is staged before the call returns."""
    monkeypatch.setattr(cuda_memory, "is_page_locked", lambda array: locked)
    given, seen = np.ones(3), []
    target = types.SimpleNamespace(
        size=3, shape=(3,), copy_to_device=lambda values, stream: seen.append(values)
    )
    cuda_memory.CudaMemory(0).write(target, given)
    assert np.shares_memory(seen[0], given) is not locked
    np.testing.assert_array_equal(seen[0], given)
