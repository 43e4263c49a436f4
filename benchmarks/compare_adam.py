"""One step of Adam or AdamW, and many inside compiled code, for `benchmarks.compare`.

All clip by the global norm first. Adam's decay is a part of the gradient, AdamW's is decoupled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numba
import numpy as np

import nbopt as nb
from benchmarks.compare_peers import DECAY, Runner, Task

RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
STEPS = 100  # in one call, of the rows with `jit_step`


def nbopt_optimizer(task: Task, kind: type[nb.Optimizer]) -> tuple[nb.ParameterBuffer, nb.Optimizer]:
    params = nb.ParameterBuffer.from_arrays(
        {f"p{i}": p.value for i, p in enumerate(task.params)}, dtype="float32"
    )
    params.set_grads({f"p{i}": p.grad for i, p in enumerate(task.params)})
    clip = None if task.limit is None else nb.ClipGradByGlobalNorm(task.limit)
    settings = {"weight_decay": DECAY, "grad_clip": clip, "nonfinite": task.nonfinite}
    return params, kind(RATE, BETA1, BETA2, EPSILON, params, **settings)


def reader(params: nb.ParameterBuffer) -> Callable[[], list[np.ndarray]]:
    return lambda: list(params.numpy().values())


def nbopt_adam(task: Task, kind: type[nb.Optimizer]) -> Runner:
    params, opt = nbopt_optimizer(task, kind)
    return Runner(opt.step, reader(params))


def numpy_adam(task: Task, decoupled: bool) -> Runner:
    """One parameter after the other, in place, the norm by BLAS."""
    rows = [(p.value.copy(), np.zeros_like(p.value), np.zeros_like(p.value), p.grad) for p in task.params]
    work, term = np.empty((2, *task.params[0].value.shape), np.float32)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        factor, root = 1.0, math.sqrt(1 - BETA2**steps)
        if task.limit is not None:
            norm = math.sqrt(sum(float(np.dot(grad, grad)) for *_, grad in rows))
            factor = task.limit / max(norm, task.limit)
        for value, first, second, grad in rows:
            np.multiply(grad, factor, out=work)
            if decoupled:
                np.multiply(value, 1 - RATE * DECAY, out=value)
            else:
                np.multiply(value, DECAY, out=term)
                np.add(work, term, out=work)
            np.multiply(work, 1 - BETA1, out=term)
            np.multiply(first, BETA1, out=first)
            np.add(first, term, out=first)
            np.multiply(work, work, out=term)
            np.multiply(term, 1 - BETA2, out=term)
            np.multiply(second, BETA2, out=second)
            np.add(second, term, out=second)
            np.sqrt(second, out=term)
            np.add(term, EPSILON * root, out=term)
            np.divide(first, term, out=term)
            np.multiply(term, RATE * root / (1 - BETA1**steps), out=term)
            np.subtract(value, term, out=value)

    return Runner(step, lambda: [value for value, *_ in rows])


def torch_adam(task: Task, decoupled: bool, **form: bool) -> Runner:
    import torch

    tensors = [torch.tensor(p.value, requires_grad=True) for p in task.params]
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    opt = kind(tensors, lr=RATE, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=DECAY, **form)
    for tensor, p in zip(tensors, task.params, strict=True):
        tensor.grad = torch.tensor(p.grad)

    def step() -> None:
        if task.limit is not None:
            torch.nn.utils.clip_grad_norm_(tensors, task.limit)
        opt.step()

    return Runner(step, lambda: [tensor.detach().numpy() for tensor in tensors])


def peers_of(decoupled: bool) -> dict[str, Callable[[Task], Runner]]:
    return {
        "NumPy loop": functools.partial(numpy_adam, decoupled=decoupled),
        "torch fused": functools.partial(torch_adam, decoupled=decoupled, fused=True),
        "torch foreach": functools.partial(torch_adam, decoupled=decoupled, foreach=True),
    }


# --- many steps in one call


@numba.njit(nogil=True)
def run_steps(take, state, steps):
    refused = 0
    for _ in range(steps):
        refused += take(state)
    return refused


def nbopt_jit(task: Task) -> Runner:
    params, opt = nbopt_optimizer(task, nb.optimizer.AdamW)
    take, state = opt.jit_step()
    return Runner(lambda: run_steps(take, state, STEPS), reader(params))


def repeated(make: Callable[[Task], Runner], task: Task) -> Runner:
    """The same number of steps by a loop in Python."""
    runner = make(task)

    def steps() -> None:
        for _ in range(STEPS):
            runner.step()

    return runner._replace(step=steps)


JIT_PEERS: dict[str, Callable[[Task], Runner]] = {
    "opt.step": functools.partial(repeated, functools.partial(nbopt_adam, kind=nb.optimizer.AdamW)),
    **{name: functools.partial(repeated, make) for name, make in peers_of(decoupled=True).items()},
}
