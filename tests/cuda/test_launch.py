"""Launches and streams, as far as they show without a GPU: what the driver is given."""

import contextlib
import ctypes
import subprocess
import sys
import types

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import DeviceError
from nbopt.kernels.cuda.stream import DEFAULT, handle_of
from tests.cuda import SIMULATED, needs_numba_cuda

START = 2**40


class Protocol:
    def __cuda_stream__(self):
        return 0, 0x7F00


def named(**attributes):
    return types.SimpleNamespace(**attributes)


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (0, DEFAULT),
        (1, DEFAULT),
        (2, 2),
        (0x7F00, 0x7F00),
        (Protocol(), 0x7F00),
        (named(cuda_stream=0x7F00), 0x7F00),  # torch
        (named(cuda_stream=0), DEFAULT),
        (named(ptr=0x7F00), 0x7F00),  # CuPy
        (named(handle=ctypes.c_int64(0x7F00).value), 0x7F00),  # Numba
        (named(__cuda_stream__=(0, 0x7F00)), 0x7F00),
    ],
)
def test_handle_of_a_stream(stream, handle):
    assert handle_of(stream) == handle


@pytest.mark.parametrize("stream", [None, "a", 1.5, True, named(), named(ptr=None)])
def test_what_is_no_stream(stream):
    with pytest.raises(TypeError, match="expected a CUDA stream"):
        handle_of(stream)


def test_a_handle_is_not_negative():
    with pytest.raises(ValueError, match="not negative"):
        handle_of(-1)


def test_a_buffer_of_the_cpu_has_no_stream():
    params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    with pytest.raises(DeviceError, match="device='cpu'"), params.use_stream(1):
        pass


@needs_numba_cuda
@pytest.mark.skipif(SIMULATED, reason="the simulator has no driver")
class TestDriver:
    """What the driver is given and asked, by one that is made up."""

    @pytest.fixture
    def given(self, monkeypatch):
        from numba.cuda.cudadrv.driver import driver

        given = []

        def launch(function, *rest):
            # The driver reads the arguments where the one before the last points to.
            pointer = ctypes.cast(rest[-2], ctypes.POINTER(ctypes.c_void_p))[0]
            argument = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int64))[0]
            given.append((int(function), rest[:8], argument))

        monkeypatch.setitem(vars(driver), "cuLaunchKernel", launch)
        monkeypatch.setitem(vars(driver), "cuKernelGetFunction", lambda kernel: int(kernel) + 1)
        return given

    def kernel(self, handle):
        library = named(get_cufunc=lambda: named(handle=handle))
        return named(library=library)

    @pytest.mark.parametrize("kind", ["CUfunction", "CUkernel"])
    def test_what_the_driver_is_given(self, given, kind):
        from numba.cuda.cudadrv.driver import binding

        from nbopt.kernels.cuda.run import THREADS, launch_of

        address = 2**47 - 16
        launch = launch_of(self.kernel(getattr(binding, kind)(1000)), 7, address)
        launch(named(handle=5))
        launch(named(handle=6))
        function = 1001 if kind == "CUkernel" else 1000
        grid = 7, 1, 1, THREADS, 1, 1, 0
        assert given == [(function, (*grid, 5), address), (function, (*grid, 6), address)]

    @pytest.mark.parametrize(("kind", "locked"), [(0, False), (1, True), (4, True)])
    def test_page_locked_memory_is_told_by_its_kind(self, kind, locked, monkeypatch):
        from numba.cuda.cudadrv.driver import binding, driver

        from nbopt.kernels.cuda.memory import is_page_locked

        array, asked = np.ones(3), binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE

        def answer(count, attributes, pointer):
            assert (count, attributes, pointer) == (1, [asked], array.ctypes.data)
            return [kind]

        monkeypatch.setitem(vars(driver), "cuPointerGetAttributes", answer)
        assert is_page_locked(array) is locked

    @pytest.mark.parametrize(("handle", "captured"), [(1, False), (2, True), (0x7F00, True)])
    def test_a_capture_is_asked_for_in_every_stream_that_can_hold_one(self, handle, captured, monkeypatch):
        """The default stream of a thread can; of the default one, asking would be an error."""
        from numba.cuda.cudadrv.driver import binding, driver

        from nbopt.kernels.cuda.stream import is_capturing

        active = binding.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE
        monkeypatch.setitem(vars(driver), "cuStreamIsCapturing", lambda stream: active)
        assert is_capturing(handle) is captured

    def test_views_of_arrays_lie_where_they_should(self, monkeypatch):
        """What the simulator has of NumPy, for arrays of numba.cuda themselves; nothing is read of them."""
        from numba.cuda.cudadrv import devicearray, devices, driver

        from nbopt.kernels.cuda.memory import address

        def array(shape, dtype):
            host = np.empty(shape, dtype)
            data = driver.MemoryPointer(context, driver.binding.CUdeviceptr(START), host.nbytes)
            return devicearray.DeviceNDArray(host.shape, host.strides, host.dtype, gpu_data=data)

        context = types.SimpleNamespace()
        monkeypatch.setattr(devices._runtime, "ensure_context", contextlib.nullcontext)
        monkeypatch.setattr(devices, "get_context", lambda: context)
        flat, table = array(64, "f4"), array((4, 3), "f8")
        value = flat[32:38].reshape((2, 3))
        assert (value.shape, value.is_c_contiguous(), address(value)) == ((2, 3), True, START + 128)
        assert (flat[32:33].reshape(()).shape, address(flat[:0]), flat[8:8].reshape((0, 2)).shape) == (
            (),
            0,
            (0, 2),
        )
        row = array((2, 64), "f4")[1]
        assert (row.shape, address(row[4:8])) == ((64,), START + 64 * 4 + 16)
        line = table.reshape(table.size)
        assert (line.shape, address(line[5:7]), line.view(np.int64).dtype) == ((12,), START + 40, np.int64)
        assert flat.nbytes == 256

    def test_other_versions_of_numba_cuda_launch_themselves(self):
        from nbopt.kernels.cuda.run import PlainLaunch, launch_of

        assert isinstance(launch_of(named(), 7, 0), PlainLaunch)

    def test_the_linker_does_not_optimize(self):
        """It would join products and sums again, unseen in the PTX; and `jit` loses options on one way."""
        from numba import cuda

        from nbopt.kernels.cache import Cached
        from nbopt.kernels.cuda.launch import OPTIONS

        options = Cached(handle_of, cuda.jit, **OPTIONS)._dispatcher.targetoptions
        assert options["lto"] is False
        assert options["max_registers"] == 80


LENT = """
import numpy as np
if hasattr(np, "row_stack"):
    del np.row_stack  # as in NumPy 2.5
from nbopt.kernels.cuda.device import import_cuda
assert import_cuda().implementation == "NVIDIA"
import numba.cuda.np.arrayobj
assert not hasattr(np, "row_stack")
"""


@needs_numba_cuda
@pytest.mark.skipif(SIMULATED, reason="the simulator does not load it")
def test_a_name_that_numpy_lost_is_lent():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LENT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
