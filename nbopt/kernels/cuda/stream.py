"""Streams of other libraries: how they are named, and whether a graph is being captured in one."""

from __future__ import annotations

from typing import Any

from nbopt.kernels.cuda.device import import_cuda, is_simulated

__all__ = ["DEFAULT", "handle_of", "is_capturing", "stream_of"]

DEFAULT = 1  # the handle of the default stream, which 0 means too; 2 is that of a thread, then come addresses
# What PyTorch, CuPy and Numba call a handle, where they do not follow the protocol of cuda.core.
_ATTRIBUTES = "cuda_stream", "ptr", "handle"


def handle_of(stream: Any) -> int:
    """Return the handle of a stream of any library.

    Parameters
    ----------
    stream : int, or a stream
        Of PyTorch, CuPy, cuda.core, Numba, or whatever else has ``__cuda_stream__``.
    """
    handle = stream
    if hasattr(stream, "__cuda_stream__"):
        given = stream.__cuda_stream__
        _, handle = given() if callable(given) else given
    elif isinstance(stream, bool) or not hasattr(stream, "__index__"):
        found = [getattr(stream, name) for name in _ATTRIBUTES if hasattr(stream, name)]
        handle = found[0] if found else None
    try:
        number = int(handle)
    except (TypeError, ValueError):
        raise TypeError(
            f"expected a CUDA stream (of PyTorch, CuPy, cuda.core, Numba, or its handle), got {stream!r}"
        ) from None
    if number < 0:
        raise ValueError(f"the handle of a CUDA stream is not negative, got {number}")
    return number or DEFAULT


def stream_of(handle: int) -> Any:
    """Return a stream of numba.cuda by its handle, for the current device; the simulator has but one."""
    cuda = import_cuda()
    return cuda.stream() if is_simulated() else cuda.external_stream(handle)


def is_capturing(handle: int) -> bool:
    """Whether a CUDA graph is being captured in a stream: what is put there now runs when it is replayed.

    In the default stream none can be, and asking is an error while one is captured elsewhere.
    """
    if is_simulated() or handle == DEFAULT:
        return False
    from numba.cuda.cudadrv.driver import binding, driver

    return bool(driver.cuStreamIsCapturing(handle) != binding.CUstreamCaptureStatus(0))
