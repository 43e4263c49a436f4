"""How fast a step is on this machine, beside what its memory allows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

import nbopt as nb

__all__ = ["Measured", "measure", "table"]

BYTES = 24  # that a clipped step of momentum moves per element of float32
ROUNDS = 9
BATCH = 0.02  # seconds


class Model(NamedTuple):
    """A layout of parameters; `own` gives each a policy of its own."""

    parameters: int
    size: int
    own: bool = False

    def __str__(self) -> str:
        return f"{self.parameters:,} x {self.size:,}{', own policies' * self.own}"

    @property
    def elements(self) -> int:
        return self.parameters * self.size


SMALL = (Model(10, 100), Model(100, 1000), Model(465, 2000, own=True))
LARGE = (Model(1, 4_000_000), Model(1, 25_000_000))


class Measured(NamedTuple):
    """One row: medians over the rounds, and the quartiles of the step.

    Attributes
    ----------
    model : str
    elements, threads : int
    seconds, low, high : float
        Of a step.
    bandwidth : float
        Bytes that the step moves per second.
    share : float
        Of the speed at which as many bytes are copied; the median of what each round shows.
    """

    model: str
    elements: int
    threads: int
    seconds: float
    low: float
    high: float
    bandwidth: float
    share: float


def measure(quick: bool = False) -> Iterator[Measured]:
    """Time steps of momentum with a clip and decay, float32, each in turn with a copy of as many bytes.

    Parameters
    ----------
    quick : bool
        Leave out the two large models, which take 0.4 GB.

    Yields
    ------
    Measured
        One per model with one thread, and per large model with all threads.

    Examples
    --------
    >>> from nbopt.bench import measure
    >>> [row.model for row in measure(quick=True)]
    ['10 x 100', '100 x 1,000', '465 x 2,000, own policies']
    """
    from nbopt.kernels import machine

    most = machine.threads()["used"]
    for model in SMALL if quick else SMALL + LARGE:
        for threads in sorted({1, most}) if model in LARGE else (1,):
            with machine.limited(threads):
                row = _row(model, threads)
            yield row


def table(rows: list[Measured]) -> str:
    """Return the rows for people."""
    head = ("parameters", "threads", "step", "quartiles", "GB/s", "of a copy")
    cells = [
        (
            row.model,
            str(row.threads),
            _time(row.seconds),
            f"{_time(row.low)} to {_time(row.high)}",
            f"{row.bandwidth / 1e9:.1f}",
            f"{row.share:.2f}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in (head, *cells)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(model: Model, threads: int) -> Measured:
    step, copy = _step(model), _copy(model, threads)
    counts = []
    for work in (step, copy):
        work()
        start = time.perf_counter()
        work()
        counts.append(max(1, int(BATCH / max(time.perf_counter() - start, 1e-7))))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for work, count, found in zip((step, copy), counts, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                work()
            found.append((time.perf_counter() - start) / count)
    low, seconds, high = statistics.quantiles(times[0], n=4, method="inclusive")
    speed = BYTES * model.elements / seconds
    share = statistics.median(copied / stepped for stepped, copied in zip(*times, strict=True))
    return Measured(str(model), model.elements, threads, seconds, low, high, speed, share)


def _step(model: Model) -> Callable[[], Any]:
    params = nb.ParameterBuffer(dtype="float32", seed=0)
    for i in range(model.parameters):
        attr = None
        if model.own:
            kind = nb.regularizer.L1Decay if i % 2 else nb.regularizer.L2Decay
            attr = nb.ParamAttr(
                learning_rate=0.5 + i / model.parameters, regularizer=kind(1e-6 * i), need_clip=i % 5 > 0
            )
        params.create_parameter([model.size], name=f"p{i}", attr=attr, default_initializer=_NORMAL)
    params.flat_grad[:] = params.flat
    opt = nb.optimizer.Momentum(
        1e-3, 0.9, parameters=params, weight_decay=1e-4, grad_clip=nb.ClipGradByGlobalNorm(1.0)
    )
    return opt.step


_NORMAL = nb.initializer.Normal()


def _copy(model: Model, threads: int) -> Callable[[], Any]:
    """Return copies that read and write as many bytes as the step moves, in as much memory.

    A step holds half of the bytes that it moves: so does an array and its copy, made twice.
    """
    target, source = np.ones((2, BYTES * model.elements // 16), np.float32)
    pieces = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    pool = ThreadPoolExecutor(threads)

    def copies() -> None:
        for _ in range(2):
            if threads == 1:
                np.copyto(target, source)
            else:
                list(pool.map(lambda piece: np.copyto(*piece), pieces))

    return copies


def _time(seconds: float) -> str:
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
