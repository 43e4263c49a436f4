"""From the start of Python to the end of the first step, for `benchmarks.compare`: processes of their own.

Cold is the first step of a machine, with an empty kernel cache; warm are all processes after it. The others
compile nothing that they keep, but optax, which compiles every time.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Callable

from benchmarks.benchmarks.bench_import import ATTRS, NBOPT, NUMPY_PLAIN, seconds
from benchmarks.compare_peers import Runner, Task

TORCH = """
import torch
p = torch.ones(10, 10, requires_grad=True)
opt = torch.optim.SGD([p], lr=0.1, momentum=0.9, fused=True)
p.grad = torch.ones(10, 10)
opt.step()
print("stepped", flush=True)
"""
PADDLE = """
import warnings
warnings.simplefilter("ignore")  # about a missing ccache
import paddle
p = paddle.create_parameter([10, 10], "float32")
opt = paddle.optimizer.Momentum(0.1, 0.9, [p])
p.grad = paddle.ones([10, 10])
opt.step()
print("stepped", flush=True)
"""
OPTAX = """
import jax, optax
p = grad = jax.numpy.ones((10, 10))
opt = optax.sgd(0.1, 0.9)
state = opt.init(p)
update, state = jax.jit(opt.update)(grad, state)
jax.block_until_ready(optax.apply_updates(p, update))
print("stepped", flush=True)
"""


def nbopt_start(task: Task, cold: bool) -> Runner:
    """Every process with a cache of its own, or all with one that is full."""
    code = NBOPT.format(attr=ATTRS["plain"])
    kept = tempfile.TemporaryDirectory()
    seconds(code, kept.name)

    def step() -> None:
        with tempfile.TemporaryDirectory() as folder:
            seconds(code, folder if cold else kept.name)

    return Runner(step)


def start(task: Task, code: str, module: str) -> Runner:
    if importlib.util.find_spec(module) is None:
        raise ImportError(module)
    folder = tempfile.gettempdir()
    return Runner(lambda: seconds(code, folder))


PEERS: dict[str, Callable[[Task], Runner]] = {
    "NumPy loop": functools.partial(start, code=NUMPY_PLAIN, module="numpy"),
    "torch fused": functools.partial(start, code=TORCH, module="torch"),
    "Paddle": functools.partial(start, code=PADDLE, module="paddle"),
    "optax": functools.partial(start, code=OPTAX, module="optax"),
}
