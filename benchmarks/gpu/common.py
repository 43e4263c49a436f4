"""What the parts of the check share: the device, its clock, arrays of random numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nbopt.kernels.cuda.device import import_cuda, is_simulated

SEED = 2024
SIMULATED = is_simulated()


class Clock:
    """How much time a part has."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def is_over(self) -> bool:
        return time.monotonic() > self.end


def synchronize() -> None:
    import_cuda().synchronize()


def seconds_on_device(work: Callable[[], object], calls: int) -> float:
    """Return the seconds of one call, of a row of calls, between two events of the default stream."""
    if SIMULATED:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls
    cuda = import_cuda()
    first, last = cuda.event(timing=True), cuda.event(timing=True)
    first.record()
    for _ in range(calls):
        work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1000 / calls


def seconds_on_host(work: Callable[[], object], calls: int) -> float:
    """Return the seconds that the host is busy with one call, of a row of calls that nothing waits for."""
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    spent = (time.perf_counter() - start) / calls
    synchronize()
    return spent


def seconds_to_end(work: Callable[[], object], calls: int) -> float:
    """Return the seconds of one call, of a row of calls, until the device is done."""
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize()
    return (time.perf_counter() - start) / calls


def noise(size: int) -> np.ndarray:
    """Return random numbers of float32."""
    return np.random.default_rng(SEED).standard_normal(size, dtype=np.float32)


def gpu() -> dict[str, Any]:
    """Return what is known of the device."""
    if SIMULATED:
        return {"device": "the simulator"}
    cuda = import_cuda()
    from numba.cuda.cudadrv.driver import driver

    device = cuda.gpus[0]
    with device:
        name = device.name
        free, total = cuda.current_context().get_memory_info()
    return {
        "device": name.decode() if isinstance(name, bytes) else name,
        "compute_capability": list(device.compute_capability),
        "multiprocessors": device.MULTIPROCESSOR_COUNT,
        "memory_bytes": int(total),
        "free_bytes": int(free),
        "driver_cuda": list(driver.get_version()),
        "implementation": cuda.implementation,
        "CUDA_HOME": os.environ.get("CUDA_HOME"),
    }
