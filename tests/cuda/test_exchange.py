"""The order of streams where arrays change hands, with a driver that is made up and notes what it is told."""

import contextlib
import types

import pytest

from nbopt.kernels.cuda import memory as cuda_memory

OWN, OTHER = 1, 77


class Array:
    """An array of another library: what it publishes, and by which protocols."""

    def __init__(self, stream=None, dlpack=False, log=None):
        self.__cuda_array_interface__ = {"stream": stream}
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
        return types.SimpleNamespace(stream=stream, is_c_contiguous=lambda: True, owner=value)

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
