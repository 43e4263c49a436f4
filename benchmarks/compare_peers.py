"""One step of Momentum in each library that `benchmarks.compare` times, and the floors beside it.

Every one takes a `Task` and returns a `Runner`. It imports its library itself, so that a missing one is
its own ImportError. All do the same mathematics: clip the clipped gradients by their global norm, add decay
times value, ``v = MOMENTUM * v + g``, ``p -= RATE * rate * v``.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

import nbopt as nb

RATE, MOMENTUM, DECAY = 0.01, 0.9, 0.01
PACKAGES = ("nbopt", "numba", "numpy", "torch", "paddlepaddle", "jax", "jaxlib", "optax")


class Parameter(NamedTuple):
    value: np.ndarray
    grad: np.ndarray
    rate: float = 1.0
    decay: float = DECAY
    clipped: bool = True


class Task(NamedTuple):
    params: list[Parameter]
    own: bool  # whether their policies differ
    limit: float | None  # of the global norm; None: no clip
    nonfinite: str  # for nbopt, which alone looks for NaN
    dim: int | None = None  # of weight norm


class Runner(NamedTuple):
    step: Callable[[], object]
    read: Callable[[], list[np.ndarray]] | None = None  # what must agree


def nbopt_momentum(task: Task) -> Runner:
    params = nb.ParameterBuffer(dtype="float32")
    for i, p in enumerate(task.params):
        attr = nb.ParamAttr(None, None, p.rate, nb.regularizer.L2Decay(p.decay), need_clip=p.clipped)
        params.create_parameter(p.value.shape, f"p{i}", attr if task.own else None).set_value(p.value)
    params.set_grads({f"p{i}": p.grad for i, p in enumerate(task.params)})
    clip = None if task.limit is None else nb.ClipGradByGlobalNorm(task.limit)
    guard = {"nonfinite": task.nonfinite}
    opt = nb.optimizer.Momentum(RATE, MOMENTUM, params, weight_decay=DECAY, grad_clip=clip, **guard)
    return Runner(opt.step, lambda: list(params.numpy().values()))


def numpy_loop(task: Task) -> Runner:
    """One parameter after the other, in place, the norm by BLAS."""
    rows = [(p.value.copy(), np.zeros_like(p.value), p) for p in task.params]
    measured = [p.grad for p in task.params if p.clipped]
    work, term = np.empty((2, *task.params[0].value.shape), np.float32)

    def step() -> None:
        factor = 1.0
        if task.limit is not None:
            norm = math.sqrt(sum(float(np.dot(grad, grad)) for grad in measured))
            factor = task.limit / max(norm, task.limit)
        for value, velocity, p in rows:
            np.multiply(p.grad, factor if p.clipped else 1.0, out=work)
            np.multiply(value, p.decay, out=term)
            np.add(work, term, out=work)
            np.multiply(velocity, MOMENTUM, out=velocity)
            np.add(velocity, work, out=velocity)
            np.multiply(velocity, RATE * p.rate, out=work)
            np.subtract(value, work, out=value)

    return Runner(step, lambda: [value for value, _, _ in rows])


def torch_sgd(task: Task, **form: bool) -> Runner:
    import torch

    tensors = [torch.tensor(p.value, requires_grad=True) for p in task.params]
    groups = [{"params": tensors}]
    if task.own:
        rows = zip(tensors, task.params, strict=True)
        groups = [{"params": [t], "lr": RATE * p.rate, "weight_decay": p.decay} for t, p in rows]
    for tensor, p in zip(tensors, task.params, strict=True):
        tensor.grad = torch.tensor(p.grad)
    measured = [tensor for tensor, p in zip(tensors, task.params, strict=True) if p.clipped]
    opt = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, **form)

    def step() -> None:
        if task.limit is not None:
            torch.nn.utils.clip_grad_norm_(measured, task.limit)
        opt.step()

    return Runner(step, lambda: [tensor.detach().numpy() for tensor in tensors])


def paddle_momentum(task: Task) -> Runner:
    import paddle

    paddle.set_device("cpu")
    tensors = []
    for p in task.params:
        decay = paddle.regularizer.L2Decay(p.decay)
        attr = paddle.ParamAttr(learning_rate=p.rate, regularizer=decay, need_clip=p.clipped)
        tensor = paddle.create_parameter([p.value.size], "float32", attr=attr if task.own else None)
        tensor.set_value(p.value)
        tensor.grad = paddle.to_tensor(p.grad)
        tensors.append(tensor)
    clip = None if task.limit is None else paddle.nn.ClipGradByGlobalNorm(task.limit)
    opt = paddle.optimizer.Momentum(RATE, MOMENTUM, tensors, weight_decay=DECAY, grad_clip=clip)
    return Runner(opt.step, lambda: [tensor.numpy() for tensor in tensors])


def optax_chain(task: Task) -> Runner:
    import jax
    import optax

    clip = optax.identity() if task.limit is None else optax.clip_by_global_norm(task.limit)
    if task.own:  # rates and decays are constants of the compiled step
        rates, decays, clipped = ([p[i] for p in task.params] for i in (2, 3, 4))
        transform = optax.chain(
            optax.masked(clip, clipped),
            optax.stateless(lambda g, p: jax.tree.map(lambda g, p, decay: g + decay * p, g, p, decays)),
            optax.trace(MOMENTUM),
            optax.stateless(lambda v, _: jax.tree.map(lambda v, rate: -RATE * rate * v, v, rates)),
        )
    else:
        transform = optax.chain(clip, optax.add_decayed_weights(DECAY), optax.sgd(RATE, MOMENTUM))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def advance(params, state, grads):
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, grads = ([jax.numpy.array(p[i]) for p in task.params] for i in (0, 1))
    state = transform.init(params)

    def step() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(advance(params, state, grads))

    return Runner(step, lambda: [np.asarray(leaf) for leaf in params])


PEERS: dict[str, Callable[[Task], Runner]] = {
    "NumPy loop": numpy_loop,
    "torch fused": functools.partial(torch_sgd, fused=True),
    "torch foreach": functools.partial(torch_sgd, foreach=True),
    "Paddle": paddle_momentum,
    "optax": optax_chain,
}


def nbopt_norm(task: Task) -> Runner:
    array = task.params[0].grad
    return Runner(lambda: nb.norm(array), lambda: [np.array(nb.norm(array))])


@numba.njit(fastmath=True)
def sum_of_squares(array):
    total = 0.0
    for i in range(array.size):
        value = np.float64(array[i])
        total += value * value
    return total


def fastmath_norm(task: Task) -> Runner:
    array = task.params[0].grad
    return Runner(lambda: sum_of_squares(array) ** 0.5, lambda: [np.sqrt(sum_of_squares(array))])


@numba.njit(parallel=True)
def stream_in_threads(target, source, add, threads):
    for t in numba.prange(threads):
        for i in range(t * source.size // threads, (t + 1) * source.size // threads):
            target[i] = target[i] + source[i] if add else source[i]


def stream(moved: int, held: int, add: bool) -> Runner:
    """Copy, or add in place, within `held` bytes until `moved` bytes were read or written."""
    target, source = np.ones((2, held // 8), np.float32)
    whole, rest = divmod(moved // (12 if add else 8), target.size)
    pieces = [(target[:size], source[:size]) for size in [target.size] * whole + [rest] if size]
    threads = numba.get_num_threads()

    def step() -> None:
        for into, come in pieces:
            if threads > 1 and moved > 2**20:  # else starting threads costs more than they save
                stream_in_threads(into, come, add, threads)
            elif add:
                np.add(into, come, out=into)
            else:
                np.copyto(into, come)

    return Runner(step)


def limit_threads(threads: int) -> None:
    """Limit Numba and every library that is there; arrays of JAX from before are lost.

    JAX still has its main thread beside one worker, Paddle's step stays in one thread whatever it is told,
    and NumPy's BLAS is limited only where threadpoolctl is installed.
    """
    warnings.filterwarnings("ignore", "No ccache found")  # by Paddle
    os.environ["PJRT_NPROC"] = str(threads)  # read when JAX starts its next client
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    numba.set_num_threads(threads)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
    with contextlib.suppress(ImportError):
        import paddle

        paddle.base.core.set_num_threads(threads)
    with contextlib.suppress(ImportError):
        from jax.extend import backend

        backend.clear_backends()
    with contextlib.suppress(ImportError):
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads, user_api="blas")
