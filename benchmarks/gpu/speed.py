"""What steps cost on the GPU, beside a copy of as many bytes, and beside torch.

All run in turn, so that a slow moment of the machine hits all alike. A fraction of the floor is the time that
a device-to-device copy of as many bytes takes, by the bandwidth measured here, over the time of the step.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import numpy as np

import nbopt as nb
from benchmarks.gpu import graph
from benchmarks.gpu.common import (
    Clock,
    noise,
    seconds_on_device,
    seconds_on_host,
    seconds_to_end,
    synchronize,
)
from benchmarks.gpu.peers import DECAY, FORMS, MOMENTUM, RATE, Step, Task, torch_momentum, torch_weight_norm
from benchmarks.gpu.report import LeftOut, Report
from nbopt.kernels.cuda.device import import_cuda

PART = "speed"
OURS = "nbopt"
PLAIN_BYTES, NORMED_BYTES = 24, 32  # per element of float32, see DESIGN: reads and writes of a step
Samples = dict[str, list[float]]


def bandwidth(report: Report, quick: bool) -> float:
    """Return the bytes per second, read and written, of a device-to-device copy."""
    count, rounds = (1024, 3) if quick else (1 << 28, 21)
    with import_cuda().gpus[0]:
        source = import_cuda().to_device(np.resize(noise(1 << 10), count))
        target = import_cuda().device_array_like(source)
        work: Callable[[], object] = lambda: target.copy_to_device(source)  # noqa: E731
        seconds_on_device(work, 3)
        rates = [2 * source.nbytes / seconds_on_device(work, 4) / 1e12 for _ in range(rounds)]
    report.figure(PART, "device-to-device copy", rates, "TB/s")
    return statistics.median(rates) * 1e12


def nbopt_step(task: Task) -> tuple[nb.ParameterBuffer, nb.optimizer.Momentum]:
    params = nb.ParameterBuffer(device="cuda")
    draw = nb.initializer.Assign(task.values.reshape(task.shape))
    for i in range(task.count):
        if task.dim is not None or len(task.shape) > 1:
            attr: nb.ParamAttr = nb.WeightNormParamAttr(task.dim, initializer=draw)
        elif task.own:
            share = i / task.count
            decay = nb.regularizer.L2Decay(DECAY * 2 * share)
            attr = nb.ParamAttr(None, draw, 0.5 + share, decay, need_clip=i % 5 != 0)
        else:
            attr = nb.ParamAttr(None, draw)
        params.create_parameter(task.shape, f"p{i}", attr)
    for parameter in params.values():
        parameter.grad = task.grads.reshape(task.shape)
    clip = nb.ClipGradByGlobalNorm(task.limit)
    opt = nb.optimizer.Momentum(RATE, MOMENTUM, params, weight_decay=DECAY, grad_clip=clip)
    opt.compile()
    return params, opt


def task_of(count: int, shape: tuple[int, ...], own: bool = False, dim: int | None = None) -> Task:
    """Draw a task; the limit leaves a tenth of the gradient."""
    size = int(np.prod(shape))
    values, grads = (
        np.resize(noise(min(size, 10_000_019)), size),
        np.resize(noise(min(size, 9_999_991)), size),
    )
    return Task(count, shape, values, grads[::-1].copy(), 0.1 * (count * size) ** 0.5, own, dim)


def peers_of(report: Report, name: str, task: Task, make: Callable[..., Step]) -> dict[str, Step]:
    steps = {}
    for form, options in FORMS.items():
        with report.item(PART, f"{name}: {form}"):
            steps[form] = make(task, options)
    return steps


def in_turn(
    steps: dict[str, Step], quick: bool, timer: Callable[[Step, int], float], calls: int = 0
) -> Samples:
    """Time everyone once per round; batches of 5 ms if `calls` is 0."""
    batch = {}
    for name, step in steps.items():
        for _ in range(1 if quick else 3):
            step()
        synchronize()
        batch[name] = calls or max(1, round(5e-3 / timer(step, 1)))
    rounds = 2 if quick else 15
    samples: Samples = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            samples[name].append(timer(step, 1 if quick else batch[name]))
    return samples


def tell(report: Report, name: str, samples: Samples, least: float) -> None:
    """Add what peers took over what nbopt took, round by round."""
    for peer in samples:
        if peer != OURS:
            ratios = [a / b for a, b in zip(samples[peer], samples[OURS], strict=True)]
            report.figure(PART, f"{name}: time of {peer} over nbopt's", ratios, "times", least=least)


def floor(report: Report, name: str, samples: Samples, moved: int, rate: float, least: float) -> None:
    report.figure(PART, f"{name}: time", [s * 1e3 for s in samples[OURS]], "ms")
    fractions = [moved / rate / seconds for seconds in samples[OURS]]
    report.figure(PART, f"{name}: fraction of the floor", fractions, "", least=least)


def large(report: Report, total: int, quick: bool, rate: float) -> None:
    """Clip, L2 and momentum over a hundred parameters."""
    name = f"{total:,} float32, clip, L2, momentum"
    count = 2 if quick else 100
    task = task_of(count, (total // count,))
    _, opt = nbopt_step(task)
    steps = {OURS: opt.step, **peers_of(report, name, task, torch_momentum)}
    samples = in_turn(steps, quick, seconds_on_device)
    floor(report, name, samples, PLAIN_BYTES * task.elements, rate, 0.90)
    tell(report, name, samples, 1.5)


def many(report: Report, quick: bool) -> None:
    """465 small parameters, each with a policy of its own."""
    name = "465 parameters, 465 policies"
    task = task_of(5 if quick else 465, (20 if quick else 2000,), own=True)
    params, opt = nbopt_step(task)
    steps = {OURS: opt.step, **peers_of(report, name, task, torch_momentum)}
    calls = 1 if quick else 50
    samples = in_turn({OURS: opt.step}, quick, seconds_on_host, calls)
    report.figure(PART, f"{name}: host time", [s * 1e6 for s in samples[OURS]], "us", most=150)
    samples = in_turn(steps, quick, seconds_to_end, calls)
    report.figure(PART, f"{name}: time to the end", [s * 1e6 for s in samples[OURS]], "us")
    tell(report, name, samples, 5)
    with report.item(PART, f"{name}: a captured graph"):
        replay = graph.torch_graph(params, opt)
        samples = in_turn({OURS: replay}, quick, seconds_on_host, calls)
        report.figure(PART, f"{name}: host time of a replay", [s * 1e6 for s in samples[OURS]], "us", most=40)
        samples = in_turn({OURS: replay}, quick, seconds_to_end, calls)
        report.figure(PART, f"{name}: time to the end of a replay", [s * 1e6 for s in samples[OURS]], "us")
    edits = in_turn({OURS: lambda: opt.set_lr(RATE)}, quick, seconds_on_host, calls)
    report.figure(PART, f"{name}: host time of set_lr", [s * 1e6 for s in edits[OURS]], "us")


def normed(report: Report, side: int, dim: int | None, quick: bool, rate: float) -> None:
    """One weight-normed matrix."""
    name = f"weight norm {side} x {side}, dim {dim}, clip, L2, momentum"
    task = task_of(1, (side, side), dim=dim)
    _, opt = nbopt_step(task)
    steps = {OURS: opt.step, **peers_of(report, name, task, torch_weight_norm)}
    samples = in_turn(steps, quick, seconds_on_device)
    floor(report, name, samples, NORMED_BYTES * task.elements, rate, 0.80)
    tell(report, name, samples, 3)


def run(report: Report, quick: bool, clock: Clock) -> None:
    """Measure every row for which there is time, the small ones first."""
    rate = bandwidth(report, quick)
    rows: list[tuple[str, Callable[[], None]]] = [
        ("465 parameters", lambda: many(report, quick)),
        ("100M", lambda: large(report, 200 if quick else 100_000_000, quick, rate)),
    ]
    side = 6 if quick else 8192
    for dim in (0, 1, None):
        rows.append((f"weight norm, dim {dim}", functools.partial(normed, report, side, dim, quick, rate)))
    rows.append(("1B", lambda: large(report, 400 if quick else 1_000_000_000, quick, rate)))
    for name, row in rows:
        with report.item(PART, name):
            if clock.is_over():
                raise LeftOut("no time is left")
            row()
