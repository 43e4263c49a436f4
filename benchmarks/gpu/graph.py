"""Whether steps that a CUDA graph replays, with rates that change, have the bits of steps; and the guard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nbopt as nb
from benchmarks.gpu.bits import MODELS, QUICK, Model, build
from benchmarks.gpu.common import SEED, SIMULATED, Clock, synchronize
from benchmarks.gpu.interop import library
from benchmarks.gpu.report import LeftOut, Report

PART = "graph"
STEPS = 6
Replay = Callable[[], object]


def pair(model: Model, device: str) -> tuple[nb.ParameterBuffer, nb.optimizer.Momentum]:
    params = build(model, "float32", device)
    clip = nb.ClipGradByGlobalNorm(1.0)
    return params, nb.optimizer.Momentum(
        0.1, 0.9, params, weight_decay=0.01, grad_clip=clip, nonfinite="skip"
    )


def torch_graph(params: nb.ParameterBuffer, opt: nb.Optimizer) -> Replay:
    torch = library("torch")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), params.use_stream(torch.cuda.current_stream()):
        opt.step()
    replay: Replay = graph.replay
    return replay


def cupy_graph(params: nb.ParameterBuffer, opt: nb.Optimizer) -> Replay:
    cupy = library("cupy")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with params.use_stream(stream):
            opt.step()
        graph = stream.end_capture()
    default = cupy.cuda.Stream.null
    return lambda: graph.launch(default)


def core_graph(params: nb.ParameterBuffer, opt: nb.Optimizer) -> Replay:
    core = library("cuda.core")
    device = core.Device(0)
    device.set_current()
    builder = device.create_graph_builder().begin_building()
    with params.use_stream(builder if hasattr(builder, "__cuda_stream__") else builder.stream):
        opt.step()
    graph = builder.end_building().complete()
    stream = device.default_stream
    return lambda: graph.launch(stream)


def plain(params: nb.ParameterBuffer, opt: nb.Optimizer) -> Replay:
    """No graph: what the others are compared with, in the simulator too."""
    return opt.step


def drive(params: nb.ParameterBuffer, opt: nb.optimizer.Momentum, replay: Replay) -> dict[str, np.ndarray]:
    """Replay steps while everything that may change does; return what they leave."""
    generator = np.random.default_rng(SEED)
    for k in range(STEPS):
        draws = {name: generator.standard_normal(p.shape).astype("f4") for name, p in params.items()}
        if k == 3:
            draws["p0"].reshape(-1)[-1] = np.nan  # skipped
        params.set_grads(draws)
        opt.set_lr(0.1 / (1 + k))
        opt.param_groups[0]["momentum"] = 0.9 - 0.1 * k
        opt.param_groups[0]["weight_decay"] = 0.01 * k
        if k == 2:
            params["p2"].learning_rate = 3.0
            params["p0"].trainable = False
        if k == 4:
            params["p0"].trainable = True
        replay()
    state = {name: value for name, value in opt.state_dict().items() if isinstance(value, np.ndarray)}
    counts = np.array([opt.step_count, opt.steps_skipped])
    return {**params.numpy(), **state, "counts": counts}


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> str:
    """Return the first array that differs; nothing if none does."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        if array.tobytes() != other[name].tobytes():
            return name
    return ""


def compare(report: Report, name: str, capture: Any, model_name: str, model: Model) -> None:
    title = f"{name} replays a step; {model_name}"
    with report.item(PART, title):
        params, opt = pair(model, "cuda")
        opt.compile()
        replay = capture(params, opt)
        ours = drive(params, opt, replay)
        params, opt = pair(model, "cpu")
        theirs = drive(params, opt, opt.step)
        wrong = same_bits(ours, theirs)
        report.check(PART, title, not wrong, f"{wrong} differs" if wrong else "the bits of the CPU")


def refusal(report: Report) -> None:
    """What a graph cannot hold is refused while it is captured."""
    torch = library("torch")
    params, opt = pair(QUICK["odd"], "cuda")
    opt.compile()
    refused = False
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), params.use_stream(torch.cuda.current_stream()):
        opt.step()
        try:
            opt.set_lr(0.5)
        except nb.errors.DeviceError:
            refused = True
    report.check(PART, "an edit during a capture is refused", refused and opt.get_lr() == 0.1)


def guard(report: Report) -> None:
    """A gradient that is not finite is reported late, and nothing changes until then."""
    params, opt = pair(QUICK["odd"], "cuda")
    opt = nb.optimizer.Momentum(0.1, 0.9, params, nonfinite="raise")
    before = {name: array.copy() for name, array in params.numpy().items()}
    bad = np.zeros(params["p3"].shape, "f4")
    bad[7] = np.inf
    params["p3"].grad = bad
    for _ in range(3):
        opt.step()
    try:
        opt.check()
        said = ""
    except nb.errors.NonFiniteGradientError as error:
        said = str(error)
    kept = not same_bits(before, params.numpy())
    report.check(PART, "a gradient with Inf changes nothing", kept)
    report.check(PART, "check() names parameter and index", "p3" in said and "7" in said, said)
    params["p3"].grad = np.ones(params["p3"].shape, "f4")
    opt.step()
    report.check(
        PART, "steps go on after check()", opt.step_count == 1 and bool(same_bits(before, params.numpy()))
    )


def no_wait(report: Report) -> None:
    """A step does not wait for the device."""
    torch = library("torch")
    _, opt = pair(MODELS["many"], "cuda")
    opt.step()
    synchronize()
    torch.cuda._sleep(400_000_000)  # about 0.2 s
    start = time.perf_counter()
    for _ in range(5):
        opt.step()
    spent = time.perf_counter() - start
    synchronize()
    total = time.perf_counter() - start
    note = f"5 steps were given in {spent * 1e3:.2f} ms, and done after {total * 1e3:.0f} ms"
    report.check(PART, "a step does not wait for the device", spent < total / 5, note)


def run(report: Report, quick: bool, clock: Clock) -> None:
    """Capture by every library that can, and try the guard."""
    models = {"odd": QUICK["odd"]} if quick else {name: MODELS[name] for name in ("odd", "pieces", "tiles")}
    for model_name, model in models.items():
        if len(model.plain) < 3:
            model = Model(((5,), (3,), (4097,)), model.normed)
        for name, capture in (
            ("nothing", plain),
            ("torch.cuda.graph", torch_graph),
            ("CuPy", cupy_graph),
            ("cuda.core", core_graph),
        ):
            if clock.is_over():
                raise LeftOut("no time is left")
            compare(report, name, capture, model_name, model)
    for name, work in (("refusal", refusal), ("guard", guard), ("no wait", no_wait)):
        with report.item(PART, name):
            work(report)
    if SIMULATED:
        report.add(PART, "graphs", "left out", "the simulator has none")
