"""Run every benchmark once, and check that the NumPy loop takes the same steps."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np

import benchmarks.benchmarks as suite
from benchmarks.benchmarks.common import LAYOUTS, SETTINGS, NumPyMomentum, nbopt_momentum

PREFIXES = ("time_", "track_", "timeraw_")


def run(name: str, benchmark: Callable[..., object], args: tuple[object, ...] = ()) -> None:
    """Call the benchmark; a `timeraw_` one returns code for a new process."""
    result = benchmark(*args)
    if name.startswith("timeraw_"):
        subprocess.run([sys.executable, "-c", str(result)], check=True)


def benchmarks_of(owner: object) -> Iterator[tuple[str, Callable[..., object]]]:
    for name, member in inspect.getmembers(owner, callable):
        if name.startswith(PREFIXES):
            yield name, member


def run_module(module: ModuleType) -> int:
    """Run the functions and classes of one module; return how many benchmarks that were."""
    count = 0
    for name, function in benchmarks_of(module):
        run(name, function)
        count += 1
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ != module.__name__:
            continue
        for args in itertools.product(*getattr(cls, "params", [])):
            instance = cls()
            instance.setup(*args)
            for name, method in benchmarks_of(instance):
                run(name, method, args)
                count += 1
            if hasattr(instance, "teardown"):
                instance.teardown(*args)
    return count


def check_baseline(layout: str, setting: str, steps: int = 3) -> None:
    """Assert that nbopt and the loop of NumPy take the same steps, up to rounding in float32."""
    opt, loop = nbopt_momentum(layout, setting), NumPyMomentum(layout, setting)
    for _ in range(steps):
        opt.step()
        loop.step()
    for parameter, value in zip(opt.parameters, loop.values, strict=True):
        np.testing.assert_allclose(parameter.numpy(), value, rtol=1e-5, atol=1e-6, err_msg=parameter.name)


def main() -> None:
    for layout, setting in itertools.product(LAYOUTS, SETTINGS):
        check_baseline(layout, setting)
    print(f"baseline agrees on {len(LAYOUTS) * len(SETTINGS)} configurations")
    for info in pkgutil.iter_modules(suite.__path__):
        if not info.name.startswith("bench_"):
            continue
        start = time.perf_counter()
        count = run_module(importlib.import_module(f"{suite.__name__}.{info.name}"))
        if not count:
            sys.exit(f"{info.name} holds no benchmark")
        print(f"{info.name}: {count} benchmarks ran in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
