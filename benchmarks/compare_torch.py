"""One step on the parameters of a small torch module, for `benchmarks.compare`: adopted, and under torch.

The module is a stack of linear layers. Gradients stay as they are: only the clip and the step are timed, and
of the adopted module the look at torch's tensors that a step begins with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import nbopt as nb
from benchmarks.compare_adam import BETA1, BETA2, EPSILON
from benchmarks.compare_adam import RATE as ADAM_RATE
from benchmarks.compare_peers import DECAY, MOMENTUM, RATE, Runner, Task


def module_of(task: Task) -> Any:
    """Return a layer for each parameter of the task; its bias is the first column of the weight."""
    import torch

    layers = [torch.nn.Linear(*reversed(p.value.shape)) for p in task.params]
    for layer, p in zip(layers, task.params, strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(p.value), torch.tensor(p.value[:, 0])
        layer.weight.grad, layer.bias.grad = torch.tensor(p.grad), torch.tensor(p.grad[:, 0])
    return torch.nn.Sequential(*layers)


def reader(module: Any) -> Callable[[], list[Any]]:
    return lambda: [tensor.detach().numpy().copy() for tensor in module.parameters()]


def adopted(task: Task, decoupled: bool, facade: bool = False) -> Runner:
    module = module_of(task)
    params = nb.torch.adopt(module)
    settings = {"weight_decay": DECAY, "grad_clip": nb.ClipGradByGlobalNorm(task.limit)}
    if decoupled:
        opt: Any = nb.optimizer.AdamW(ADAM_RATE, BETA1, BETA2, EPSILON, params, **settings)
    else:
        opt = nb.optimizer.Momentum(RATE, MOMENTUM, params, **settings)
    return Runner(nb.torch.Optimizer(opt).step if facade else opt.step, reader(module))


def under_torch(task: Task, decoupled: bool, **form: bool) -> Runner:
    import torch

    module = module_of(task)
    tensors = list(module.parameters())
    if decoupled:
        settings = {"lr": ADAM_RATE, "betas": (BETA1, BETA2), "eps": EPSILON}
        opt: Any = torch.optim.AdamW(tensors, weight_decay=DECAY, **settings, **form)
    else:
        opt = torch.optim.SGD(tensors, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, **form)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(tensors, task.limit)
        opt.step()

    return Runner(step, reader(module))


def peers_of(decoupled: bool) -> dict[str, Callable[[Task], Runner]]:
    return {
        "nb.torch.Optimizer": functools.partial(adopted, decoupled=decoupled, facade=True),
        "torch fused": functools.partial(under_torch, decoupled=decoupled, fused=True),
        "torch foreach": functools.partial(under_torch, decoupled=decoupled, foreach=True),
    }
