"""Whether other libraries and nbopt share arrays without a copy, and go on in each other's order."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import nbopt as nb
from benchmarks.gpu.common import SEED, SIMULATED, Clock, noise
from benchmarks.gpu.report import LeftOut, Report

PART = "interop"
RATE, STEPS, SIZE = 0.5, 3, 4097


def library(name: str) -> Any:
    """Import a library that works on this device."""
    if SIMULATED:
        raise LeftOut(f"{name} needs a GPU")
    found = importlib.import_module(name)
    if name == "torch" and not found.cuda.is_available():
        raise LeftOut("torch sees no GPU")
    return found


def pair() -> tuple[nb.ParameterBuffer, nb.Optimizer]:
    params = nb.ParameterBuffer(device="cuda", seed=SEED)
    params.create_parameter([SIZE], "w")
    params.create_parameter([3, 5], "b")
    return params, nb.optimizer.SGD(RATE, params)


def address(array: Any) -> int:
    return int(array.__cuda_array_interface__["data"][0])


def expect(
    report: Report, name: str, params: nb.ParameterBuffer, before: np.ndarray, grad: np.ndarray
) -> None:
    """Check a value after `STEPS` steps of SGD."""
    value = before.copy()
    for _ in range(STEPS):
        value = value - np.float32(RATE) * grad
    report.check(PART, name, bool((params["w"].numpy() == value).all()), "values after steps")


def torch_arrays(report: Report) -> None:
    torch = library("torch")
    params, opt = pair()
    before = params["w"].numpy()
    for way, view in (
        ("from_dlpack", torch.from_dlpack(params["w"])),
        ("as_tensor", torch.as_tensor(params["w"], device="cuda")),
    ):
        same = view.data_ptr() == address(params["w"]) and tuple(view.shape) == (SIZE,)
        report.check(PART, f"torch.{way} copies nothing", same, f"{view.dtype}, {view.device}")
    grad = torch.as_tensor(params["w"].grad, device="cuda")
    grad.copy_(torch.as_tensor(noise(SIZE)))
    for _ in range(STEPS):
        opt.step()
    expect(report, "torch writes .grad, nbopt steps", params, before, noise(SIZE))
    leaf = torch.as_tensor(noise(SIZE), device="cuda")
    before = params["w"].numpy()
    for _ in range(STEPS):
        opt.step({"w": leaf * 2})
    expect(report, "step takes tensors of torch", params, before, 2 * noise(SIZE))


def torch_streams(report: Report) -> None:
    torch = library("torch")
    params, opt = pair()
    opt.compile()
    before, stream = params["w"].numpy(), torch.cuda.Stream()
    grad, source = (
        torch.as_tensor(params["w"].grad, device="cuda"),
        torch.as_tensor(noise(SIZE), device="cuda"),
    )
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), params.use_stream(torch.cuda.current_stream()):
        for k in range(STEPS):
            grad.fill_(1e9 + k)
            torch.cuda._sleep(20_000_000)  # what comes too early sees the wrong gradient
            grad.copy_(source)
            opt.step()
            torch.cuda._sleep(20_000_000)
    # Read in the default stream, after the with.
    expect(report, "steps in a stream of torch, read in another", params, before, noise(SIZE))


def cupy_arrays(report: Report) -> None:
    cupy = library("cupy")
    params, opt = pair()
    before = params["w"].numpy()
    for way, view in (
        ("from_dlpack", cupy.from_dlpack(params["w"])),
        ("asarray", cupy.asarray(params["w"])),
    ):
        report.check(
            PART, f"cupy.{way} copies nothing", address(view) == address(params["w"]), str(view.dtype)
        )
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, params.use_stream(stream):
        grad = cupy.asarray(params["w"].grad)
        for _ in range(STEPS):
            grad[...] = cupy.asarray(noise(SIZE))
            opt.step()
    expect(report, "CuPy writes .grad in its stream, nbopt steps", params, before, noise(SIZE))


def numba_arrays(report: Report) -> None:
    params, opt = pair()
    before = params["w"].numpy()
    opt.compile()
    for _ in range(STEPS):
        opt.step({"w": noise(SIZE)})
    expect(report, "step takes arrays of the host", params, before, noise(SIZE))
    other = nb.ParameterBuffer(device="cuda", seed=SEED + 1)
    other.create_parameter([SIZE], "w")
    other["w"].value = params["w"].value
    same = bool((other["w"].numpy() == params["w"].numpy()).all())
    report.check(PART, "a value of one buffer is given to another", same)


def graphs_and_handles(report: Report) -> None:
    params, opt = pair()
    before = params["w"].numpy()
    params["w"].grad = noise(SIZE)
    with params.use_stream(0):
        for _ in range(STEPS):
            opt.step()
    expect(report, "the default stream by its handle 0", params, before, noise(SIZE))
    try:
        with params.use_stream("no stream"):
            refused = False
    except TypeError:
        refused = True
    report.check(PART, "what is no stream is refused", refused)


def run(report: Report, quick: bool, clock: Clock) -> None:
    """Try every library that is here."""
    for name, work in (
        ("arrays of numba and the host", numba_arrays),
        ("handles", graphs_and_handles),
        ("arrays of torch", torch_arrays),
        ("streams of torch", torch_streams),
        ("CuPy", cupy_arrays),
    ):
        with report.item(PART, name):
            work(report)
