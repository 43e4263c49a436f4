"""One step of Momentum on weight-normed parameters, for `benchmarks.compare`.

From dL/dw to the next w: backward to v and g, clip by the norm over both, decay, Momentum, ``w = g v / |v|``.
All read the same dL/dw in every step, and must agree in w, v and g.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

import nbopt as nb
from benchmarks.benchmarks.weight_norm import NumPyWeightNorm
from benchmarks.compare_peers import DECAY, MOMENTUM, RATE, Runner, Task


def nbopt_weight_norm(task: Task) -> Runner:
    params = nb.ParameterBuffer(dtype="float32")
    for i, p in enumerate(task.params):
        attr = nb.WeightNormParamAttr(dim=task.dim)
        params.create_parameter(p.value.shape, f"p{i}", attr).set_value(p.value)
    params.set_grads({f"p{i}": p.grad for i, p in enumerate(task.params)})
    clip = None if task.limit is None else nb.ClipGradByGlobalNorm(task.limit)
    guard = {"nonfinite": task.nonfinite}
    opt = nb.optimizer.Momentum(RATE, MOMENTUM, params, weight_decay=DECAY, grad_clip=clip, **guard)

    def read() -> list[np.ndarray]:
        return [a for p in params.values() for a in (p.value, p.weight_v.value, p.weight_g.value.ravel())]

    return Runner(opt.step, read)


def numpy_weight_norm(task: Task) -> Runner:
    """One array after the other, in place, with the norms of the last forward kept for the backward."""
    values, grads = [p.value for p in task.params], [p.grad for p in task.params]
    settings = {"rate": RATE, "momentum": MOMENTUM, "decay": DECAY, "limit": task.limit}
    loop = NumPyWeightNorm(values, grads, task.dim, **settings)
    return Runner(loop.step, lambda: [array for arrays in loop.read() for array in arrays])


def torch_weight_norm(task: Task, **form: bool) -> Runner:
    """`torch._weight_norm`, which both `weight_norm` of `torch.nn.utils` and its parametrization call.

    Both give it -1 for the norm over the whole tensor.
    """
    import torch

    dim = -1 if task.dim is None else task.dim
    compose = torch._weight_norm
    slopes = [torch.tensor(p.grad) for p in task.params]
    v = [torch.tensor(p.value, requires_grad=True) for p in task.params]
    g = [torch.norm_except_dim(tensor.detach(), 2, dim).requires_grad_() for tensor in v]
    moved = [*v, *g]
    opt = torch.optim.SGD(moved, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, **form)
    w = [compose(*pair, dim) for pair in zip(v, g, strict=True)]

    def step() -> None:
        nonlocal w
        opt.zero_grad()
        torch.autograd.backward(w, slopes)
        if task.limit is not None:
            torch.nn.utils.clip_grad_norm_(moved, task.limit)
        opt.step()
        w = [compose(*pair, dim) for pair in zip(v, g, strict=True)]

    def read() -> list[np.ndarray]:
        arrays = [a.detach().numpy() for triple in zip(w, v, g, strict=True) for a in triple]
        return [a.ravel() if i % 3 == 2 else a for i, a in enumerate(arrays)]

    return Runner(step, read)


PEERS: dict[str, Callable[[Task], Runner]] = {
    "NumPy loop": numpy_weight_norm,
    "torch fused": functools.partial(torch_weight_norm, fused=True),
    "torch foreach": functools.partial(torch_weight_norm, foreach=True),
}
