"""Whether steps on the GPU have the bits of the CPU, and what their kernels are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import nbopt as nb
from benchmarks.gpu.common import SEED, SIMULATED, Clock
from benchmarks.gpu.report import LeftOut, Report
from nbopt.kernels import rules

PART = "bits"
UNKNOWN = "unknown"
ULPS = 2  # what exp and pow may differ by

Make = Callable[[nb.ParameterBuffer], nb.Optimizer]


@nb.rule
def rooted(param, scale, grad, lr, decay):  # type: ignore[no-untyped-def]
    """What a user may write with roots, quotients, powers and choices."""
    scale = decay * scale + (1 - decay) * grad**2
    return param - lr * grad / (math.sqrt(scale) + 0.125) * (1 if grad > 0 else 0.5), scale


@nb.rule
def exponential(param, grad, lr):  # type: ignore[no-untyped-def]
    return math.exp(grad)


@nb.rule
def power(param, grad, lr):  # type: ignore[no-untyped-def]
    return abs(grad) ** 1.25


class Model(NamedTuple):
    """Shapes of plain parameters, and shapes and kept axes of those with weight norm."""

    plain: tuple[tuple[int, ...], ...]
    normed: tuple[tuple[tuple[int, ...], int | None], ...] = ()


MODELS = {
    "one": Model(((1000003,),)),
    "many": Model(tuple((1 + 37 * i % 5000,) for i in range(300))),
    "odd": Model(((1,), (), (3,), (4097,), (8191,), (5, 7, 3), (0, 3), (70001,))),
    "large": Model(((3_000_000,), (17,))),
    "rows": Model(((11,),), (((70, 100), 0), ((5, 4096), 0), ((33, 7, 3), 0))),
    "pieces": Model(((11,),), (((9, 10000), 0), ((300, 301), None), ((2, 3, 1500), 1))),
    "tiles": Model(((11,),), (((1000, 77), 1), ((130, 33, 5), 1), ((3, 2), 1))),
}
QUICK = {
    "odd": Model(((1,), (), (3,), (300,), (0, 3))),
    "normed": Model(((5,),), (((3, 7), 0), ((6, 5), 1), ((4, 3), None))),
}
PLAIN = ("one", "many", "odd", "large")


class Case(NamedTuple):
    about: str
    models: tuple[str, ...]
    make: Make
    dtypes: tuple[str, ...] = ("float32",)
    scale: float = 1.0  # of the gradients
    exact: bool = True


def momentum(**more: Any) -> Make:
    return lambda params: nb.optimizer.Momentum(0.1, 0.9, params, **more)


def whole(limit: float) -> dict[str, Any]:
    return {"weight_decay": 0.01, "grad_clip": nb.ClipGradByGlobalNorm(limit)}


CASES = [
    Case("Momentum, clip, L2", PLAIN, momentum(**whole(1.0)), ("float32", "float64")),
    Case("Momentum, Nesterov, no clip", ("odd",), momentum(use_nesterov=True, nonfinite="propagate")),
    Case("Momentum, clip by value, L1", ("odd",), momentum(grad_clip=nb.ClipGradByValue(0.5))),
    Case("Momentum, clip by norm", ("many",), momentum(grad_clip=nb.ClipGradByNorm(0.5))),
    Case("Momentum, gradients of 1e30", ("odd",), momentum(**whole(1.0)), scale=1e30),
    Case("Momentum, weight norm", ("rows", "pieces", "tiles"), momentum(**whole(1.0))),
    Case("SGD", ("many",), lambda params: nb.optimizer.SGD(0.1, params)),
    Case("a rule with roots", ("odd",), lambda p: nb.Optimizer(rooted, 0.1, p, decay=0.9, **whole(1.0))),
    Case("Adam", ("many",), lambda p: nb.optimizer.Adam(0.1, parameters=p, **whole(1.0)), exact=False),
    Case("AdamW", ("many",), lambda p: nb.optimizer.AdamW(0.1, parameters=p, **whole(1.0)), exact=False),
    Case("exp", ("odd",), lambda p: nb.Optimizer(exponential, 0.1, p), exact=False),
    Case("pow", ("odd",), lambda p: nb.Optimizer(power, 0.1, p), exact=False),
    Case("Momentum, gradients of 1e200", ("odd",), momentum(**whole(1.0)), ("float64",), 1e200),
    Case("Momentum, weight norm", ("rows", "pieces", "tiles"), momentum(**whole(1.0)), ("float64",)),
]


def build(model: Model, dtype: str, device: str) -> nb.ParameterBuffer:
    params = nb.ParameterBuffer(dtype, device, seed=SEED)
    draw = nb.initializer.Normal()
    for i, shape in enumerate(model.plain):
        decay = nb.regularizer.L1Decay(0.001) if i % 7 == 3 else None
        attr = nb.ParamAttr(None, draw, 1.0 + i % 3, decay, need_clip=i % 5 != 4)
        params.create_parameter(shape, f"p{i}", attr)
    for i, (shape, dim) in enumerate(model.normed):
        params.create_parameter(shape, f"n{i}", nb.WeightNormParamAttr(dim, initializer=draw))
    return params


def results(case: Case, model: Model, dtype: str, device: str, steps: int) -> dict[str, Any]:
    """Take some steps; return every array that they leave, and what they measured."""
    params = build(model, dtype, device)
    opt = case.make(params)
    generator = np.random.default_rng(SEED)
    for step in range(steps):
        opt.set_lr(0.1 / (1 + step))
        draws = {name: generator.standard_normal(p.shape) for name, p in params.items()}
        params.set_grads({name: (draw * case.scale).astype(dtype) for name, draw in draws.items()})
        opt.step()
    state = {name: value for name, value in opt.state_dict().items() if isinstance(value, np.ndarray)}
    norm = opt.grad_norm
    return {**params.numpy(), **state, "norm": np.array(math.nan if norm is None else norm)}


def ulps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how many floats lie between, element by element; two NaN are one."""
    kind = f"i{one.dtype.itemsize}"
    lowest = np.iinfo(kind).min
    a, b = (np.ascontiguousarray(x).reshape(-1).view(kind) for x in (one, other))
    a, b = (np.where(x < 0, lowest - x, x).astype(np.float64) for x in (a, b))
    both = np.isnan(one).reshape(-1) & np.isnan(other).reshape(-1)
    return np.where(both, 0.0, np.abs(a - b))


def compare(report: Report, case: Case, name: str, model: Model, dtype: str, steps: int) -> None:
    title = f"{case.about}; {name}; {dtype}"
    with report.item(PART, title):
        ours, theirs = (results(case, model, dtype, device, steps) for device in ("cuda", "cpu"))
        assert ours.keys() == theirs.keys()
        floats = [key for key in ours if ours[key].dtype.kind == "f" and ours[key].size]
        gaps = {key: ulps(ours[key], theirs[key]) for key in floats}
        differ = sum(int((gap > 0).sum()) for gap in gaps.values())
        worst = max(gaps, key=lambda key: gaps[key].max())
        most, total = gaps[worst].max(), sum(gap.size for gap in gaps.values())
        holds = differ == 0 if case.exact else bool(most <= ULPS)
        where = f", at most {most:.0f} ulp in {worst}" if differ else ""
        report.check(PART, title, holds, f"{differ} of {total:,} numbers differ{where}")


def fused(kernel: Any) -> int | str:
    """Count the products that the linker joined with sums; those with zero are a part of a division."""
    try:
        text = kernel.inspect_sass()
    except Exception as error:  # nvdisasm is not everywhere
        print(error)
        return UNKNOWN
    return sum("RZ" not in line for line in re.findall(r"\bFFMA\b.*", text))


def kernels(report: Report) -> None:
    """Registers, memory and roundings of the kernels."""
    if SIMULATED:
        raise LeftOut("the simulator compiles nothing")
    from nbopt.kernels.cuda.launch import compile_launches
    from nbopt.kernels.cuda.memory import CudaMemory

    memory = CudaMemory(0)
    kinds = [("momentum", "float32", False), ("momentum", "float32", True), ("adamw", "float32", False)]
    kinds += [("momentum", "float64", False)]
    for rule, dtype, normed in kinds:
        with memory.context:
            for kernel in compile_launches(getattr(rules, rule), np.dtype(dtype), normed, 0):
                text = kernel.inspect_asm(None)
                # The power of Adam's bias correction, a call of a library, joins float64 of its own.
                kinds_joined = r"\bfma\S*\.f32" if rule == "adamw" else r"\bfma\."
                joined = len(re.findall(kinds_joined + r"|\b(?:mul|add|sub)\.f32", text))
                vectors = len(re.findall(r"(?:ld|st)\.global(?:\.\w+)*\.v[24]\.", text))
                linked = fused(kernel) if rule == "momentum" else UNKNOWN
                title = (
                    f"{kernel.entry_name.split('step')[1][2:9]}; {rule}; {dtype}{'; weight norm' * normed}"
                )
                report.check(
                    "code",
                    title,
                    joined == 0 and vectors > 0 and linked in (0, UNKNOWN),
                    f"{kernel.regs_per_thread} registers, {kernel.local_mem_per_thread} bytes of local "
                    f"memory, {kernel.shared_mem_per_block} shared; {vectors} accesses of 16 bytes; "
                    f"roundings joined or left open: {joined} in PTX, {linked} in machine code",
                )


def run(report: Report, quick: bool, clock: Clock) -> None:
    """Compare every case, and look at the kernels."""
    for case in CASES:
        names = tuple(QUICK) if quick else case.models
        for name in names:
            if quick and (name == "normed") != ("weight norm" in case.about):
                continue
            for dtype in case.dtypes:
                if clock.is_over():
                    report.add(PART, f"{case.about}; {name}; {dtype}", "left out", "no time is left")
                    continue
                model = (QUICK if quick else MODELS)[name]
                compare(report, case, name, model, dtype, 1 if quick else 3)
    with report.item("code", "kernels"):
        kernels(report)
