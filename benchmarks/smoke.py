"""Run every benchmark once, and check that the NumPy loops take the same steps."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

import benchmarks.benchmarks as suite
import nbopt as nb
from benchmarks.benchmarks.average import KINDS, NumPyAverage, nbopt_average
from benchmarks.benchmarks.common import LAYOUTS, SETTINGS, NumPyMomentum, nbopt_momentum
from benchmarks.benchmarks.weight_norm import DIMS, NORMED, nbopt_weight_norm, numpy_weight_norm

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


def three_steps(*steppers: Any) -> None:
    for _ in range(3):
        for stepper in steppers:
            stepper.step()


def same(what: str, ours: Iterable[np.ndarray], theirs: Iterable[np.ndarray]) -> None:
    """Assert that two results are one, up to rounding in float32."""
    a, b = (np.concatenate([array.ravel() for array in arrays]) for arrays in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max(), err_msg=what)


def velocities(opt: nb.optimizer.Momentum, parameters: Iterable[nb.Parameter]) -> list[np.ndarray]:
    state = opt.state_dict()
    return [state[f"{p.name}.velocity"] for p in parameters]


def check_plain(layout: str, setting: str) -> None:
    opt, loop = nbopt_momentum(layout, setting), NumPyMomentum(layout, setting)
    three_steps(opt, loop)
    params = list(opt.parameters)
    same("values", [p.numpy() for p in params], loop.values)
    same("velocities", velocities(opt, params), loop.velocities)


def check_weight_norm(layout: str, dim: int | None) -> None:
    opt, loop = nbopt_weight_norm(layout, dim), numpy_weight_norm(layout, dim)
    three_steps(opt, loop)
    params, count = list(opt.parameters), len(loop.w)
    v, g = [p.weight_v for p in params], [p.weight_g for p in params]
    same("w", [p.numpy() for p in params], loop.w)
    for name, ours, theirs in (("v", v, slice(count)), ("g", g, slice(count, None))):
        same(name, [p.numpy() for p in ours], loop.moved[theirs])
        same(f"velocities of {name}", velocities(opt, ours), loop.velocities[theirs])


def check_average(layout: str, kind: str) -> None:
    average, loop = nbopt_average(layout, kind), NumPyAverage(layout, kind)
    for _ in range(3):
        getattr(average, "step", getattr(average, "update", None))()
        loop.update()
    state = average.state_dict()
    sums = [state[f"{p.name}.{'sum_1' if kind == 'mean' else 'ema'}"] for p in average.parameters]
    same(kind, sums, loop.sums)


def main() -> None:
    plain, normed = (list(itertools.product(*table)) for table in ((LAYOUTS, SETTINGS), (NORMED, DIMS)))
    averages = list(itertools.product(LAYOUTS, KINDS))
    for case in plain:
        check_plain(*case)
    for case in normed:
        check_weight_norm(*case)
    for case in averages:
        check_average(*case)
    print(f"NumPy takes the same steps in {len(plain) + len(normed) + len(averages)} cases")
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
