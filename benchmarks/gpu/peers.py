"""The same steps by torch on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.interop import library

RATE, MOMENTUM, DECAY = 0.01, 0.9, 0.01
FORMS: dict[str, dict[str, bool]] = {"torch fused": {"fused": True}, "torch foreach": {"foreach": True}}

Step = Callable[[], object]


class Task(NamedTuple):
    """Parameters of one shape, their values and gradients all alike; `own` gives each a policy of its own."""

    count: int
    shape: tuple[int, ...]
    values: np.ndarray
    grads: np.ndarray
    limit: float
    own: bool = False
    dim: int | None = None

    @property
    def elements(self) -> int:
        return self.count * int(np.prod(self.shape))


def torch_momentum(task: Task, form: dict[str, bool]) -> Step:
    torch = library("torch")
    tensors = []
    for _ in range(task.count):
        tensor = torch.tensor(task.values, device="cuda").reshape(task.shape).requires_grad_()
        tensor.grad = torch.tensor(task.grads, device="cuda").reshape(task.shape)
        tensors.append(tensor)
    groups: list[Any] = tensors
    if task.own:
        groups = [
            {
                "params": [tensor],
                "lr": RATE * (0.5 + i / task.count),
                "weight_decay": DECAY * 2 * i / task.count,
            }
            for i, tensor in enumerate(tensors)
        ]
    opt = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, **form)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(tensors, task.limit, foreach=True)
        opt.step()

    return step


def torch_weight_norm(task: Task, form: dict[str, bool]) -> Step:
    """Backward to v and g, clip, step, w: what `torch.nn.utils.parametrizations.weight_norm` calls."""
    torch = library("torch")
    dim = -1 if task.dim is None else task.dim
    slope = torch.tensor(task.grads, device="cuda").reshape(task.shape)
    v = torch.tensor(task.values, device="cuda").reshape(task.shape).requires_grad_()
    g = torch.norm_except_dim(v.detach(), 2, dim).requires_grad_()
    opt = torch.optim.SGD([v, g], lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, **form)
    w = torch._weight_norm(v, g, dim)

    def step() -> None:
        nonlocal w
        opt.zero_grad()
        w.backward(slope)
        torch.nn.utils.clip_grad_norm_([v, g], task.limit, foreach=True)
        opt.step()
        w = torch._weight_norm(v, g, dim)

    return step
