"""What Numba makes of this machine: the processor, the threads, the compiled code on disk."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba

__all__ = ["cache", "cpu", "cuda", "limited", "threads"]

# The widest instructions first: what a feature is called, and bits of a vector.
_SIMD = (("avx512f", "AVX-512", 512), ("avx2", "AVX2", 256), ("avx", "AVX", 256), ("neon", "NEON", 128))
_POOLS = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cpu() -> dict[str, Any]:
    """Return the processor that code is compiled for, its widest vectors, and their bits.

    `chosen` says whether NUMBA_CPU_NAME chose it, `compiles` whether Numba may compile at all.
    """
    from numba.core.registry import cpu_target

    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    present = set(features.split(","))
    found = (pair for feature, *pair in _SIMD if f"+{feature}" in present)
    simd, bits = next(found, ["SSE2", 128])
    chosen, compiles = bool(numba.config.CPU_NAME), not numba.config.DISABLE_JIT
    return {"name": name, "simd": simd, "bits": bits, "chosen": chosen, "compiles": compiles}


def threads() -> dict[str, Any]:
    """Return how many threads a large step takes, of how many cores, and which layer runs them."""
    return {"used": numba.get_num_threads(), "cores": _cores(), "quota": _quota(), "layer": _layer()}


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Let large steps of this thread take so many threads at most."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(count, before))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota() -> float | None:
    """Return how many cores' worth of time a container gets, if that is limited."""
    try:
        share, period = _QUOTA.read_text().split()
        return float(share) / float(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _layer() -> str:
    """Return the layer that runs, or the one that would."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        pass
    wanted = str(numba.config.THREADING_LAYER)
    for name in [wanted] if wanted in _POOLS else numba.config.THREADING_LAYER_PRIORITY:
        try:
            importlib.import_module(f"numba.np.ufunc.{_POOLS[name]}")
        except ImportError:
            continue
        return str(name)
    return "none"


def cache() -> dict[str, Any]:
    """Return where compiled code of the CPU is kept, how many files there are, and their bytes."""
    from nbopt.kernels.cpu.step import step

    try:
        folder = numba.njit(cache=True)(step).stats.cache_path
    except (RuntimeError, AttributeError):  # no directory can be written, or compiling is switched off
        return {"folder": None, "files": 0, "bytes": 0}
    files = [path for kind in ("*.nbi", "*.nbc") for path in Path(folder).glob(kind)]
    return {"folder": folder, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def cuda() -> dict[str, Any]:
    """Return what the usable devices are called, what is missing if none is, and if there is a driver."""
    from nbopt.kernels.cuda import device

    missing = device.what_is_missing()
    devices = [] if missing else [device.describe(number) for number in range(device.count())]
    return {"devices": devices, "missing": missing, "driver": device.has_driver()}
