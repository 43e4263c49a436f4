"""Which CUDA devices can be used, and what is missing where none can."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np

__all__ = ["count", "describe", "has_driver", "import_cuda", "is_simulated", "small_grids", "what_is_missing"]

INSTALL = 'pip install "nbopt[cuda]"'


@functools.cache
def import_cuda() -> Any:
    """Return the module numba.cuda; the first call imports it, none starts the driver.

    Its array functions, loaded at the first compilation, read ``numpy.row_stack``, which NumPy 2.5 has not:
    it is lent while they load.
    """
    from numba import cuda

    if getattr(cuda, "implementation", "") == "NVIDIA" and not is_simulated():
        lend = not hasattr(np, "row_stack")
        if lend:
            setattr(np, "row_stack", np.vstack)  # noqa: B010
        try:
            import numba.cuda.np.arrayobj  # noqa: F401
        finally:
            if lend:
                delattr(np, "row_stack")
    return cuda


def is_simulated() -> bool:
    """Whether Numba's simulator stands in for a GPU, as NUMBA_ENABLE_CUDASIM=1 says at the first import."""
    return bool(_setting("ENABLE_CUDASIM"))


def _setting(name: str) -> Any:
    return getattr(numba.config, name, None)


@functools.cache
def what_is_missing(number: int = 0) -> str:
    """Say why a CUDA device cannot be used, and the mend; nothing if it can. This starts the driver."""
    if _setting("DISABLE_CUDA") and not is_simulated():
        return "the environment variable NUMBA_DISABLE_CUDA switches CUDA off; unset it"
    try:
        cuda = import_cuda()
    except Exception as error:  # of any kind, where packages do not fit each other
        said = _line(f"{type(error).__name__}: {error}")
        return f"the package numba-cuda cannot be imported ({said}); install it anew: {INSTALL}"
    if getattr(cuda, "implementation", "") != "NVIDIA":
        package = f"the package numba-cuda is not installed: {INSTALL}"
        return package if has_driver() or is_simulated() else f"{_NO_DRIVER}; besides, {package}"
    if is_simulated():
        return "" if number == 0 else "the simulator of NUMBA_ENABLE_CUDASIM=1 has one device, cuda:0"
    return _missing_of(cuda, number)


_NO_DRIVER = (
    "no NVIDIA driver was found. This needs a machine with an NVIDIA GPU and its driver, where the command "
    "nvidia-smi lists the GPU"
)


def _missing_of(cuda: Any, number: int) -> str:
    """Go on where the package is installed."""
    if not has_driver():
        return _NO_DRIVER
    try:
        found = _driver_of().is_available
    except ImportError as error:  # how numba-cuda says that the driver cannot be loaded
        return f"the NVIDIA driver cannot be used ({_line(error)})"
    if not found:
        said = _line(cuda.cuda_error())
        return f"the NVIDIA driver found no GPU that it can use ({said}); the command nvidia-smi tells more"
    if not cuda.is_available():
        return f"the CUDA compiler, NVVM, was not found: {INSTALL}"
    count = len(cuda.gpus)
    if number >= count:
        have = "one GPU, cuda:0" if count == 1 else f"{count} GPUs, cuda:0 to cuda:{count - 1}"
        return f"this machine has {have}"
    return ""


def _driver_of() -> Any:
    from numba.cuda.cudadrv import driver

    return driver.driver


def _line(said: object) -> str:
    return " ".join(str(said).split()).rstrip(" :.")


def has_driver() -> bool:
    """Whether the library of the NVIDIA driver can be loaded; loading does not start it."""
    names = ["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so.1", "libcuda.so"]
    if _setting("CUDA_DRIVER"):
        names.insert(0, _setting("CUDA_DRIVER"))
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


_launching = threading.Lock()


@contextmanager
def small_grids() -> Iterator[None]:
    """Let kernels of few threads be launched without the warning of numba-cuda, whose class has moved.

    One thread at a time: what is done to warnings, and what the simulator does to launch, is seen by all.
    """
    with _launching, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grid size .* will likely result in GPU under-utilization")
        yield


def count() -> int:
    """Return how many devices there are, where one can be used."""
    return 1 if is_simulated() else len(import_cuda().gpus)


def describe(number: int = 0) -> str:
    """Name a device that can be used."""
    if is_simulated():
        return "simulated on the CPU, as NUMBA_ENABLE_CUDASIM=1 asks"
    device = import_cuda().gpus[number]
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"
