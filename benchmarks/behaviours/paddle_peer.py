"""The cases in Paddle."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import paddle

from benchmarks.behaviours.cases import show
from benchmarks.behaviours.numbers import LIMIT, above, changed, five_places, flips, kept


def _parameters(arrays: list[np.ndarray]) -> list[paddle.Tensor]:
    return [
        paddle.create_parameter(a.shape, "float32", default_initializer=paddle.nn.initializer.Assign(a))
        for a in arrays
    ]


def _stepped(grads: list[np.ndarray], limit: float) -> list[np.ndarray]:
    params = _parameters([np.zeros_like(g) for g in grads])
    pairs = [(p, paddle.to_tensor(g)) for p, g in zip(params, grads, strict=True)]
    return [g.numpy() for _, g in paddle.nn.ClipGradByGlobalNorm(limit)(pairs)]


def clip(grads: list[np.ndarray], limit: float) -> str:
    return show(_stepped(grads, limit))


def keeps(grads: list[np.ndarray], limit: float) -> str:
    return kept(grads, _stepped(grads, limit))


def _clipped(grad: np.ndarray) -> np.ndarray:
    return _stepped([grad], LIMIT)[0]


def clip_twice() -> str:
    return changed(_clipped)


def clip_bound() -> str:
    return above(_clipped)


def norm() -> str:
    return five_places(float(paddle.linalg.vector_norm(paddle.full([30_000_000], 0.1))))


def weight_norm(row: np.ndarray, g: float | None = None) -> str:
    layer = paddle.nn.Linear(2, 1, bias_attr=False)
    layer.weight.set_value(row.reshape(2, 1))
    paddle.nn.utils.weight_norm(layer, dim=1)
    if g is not None:
        layer.weight_g.set_value(np.full(layer.weight_g.shape, g, np.float32))
    layer(paddle.zeros([1, 2]))
    return show([layer.weight.numpy()])


def nan_step() -> str:
    params = _parameters([np.zeros(2, np.float32)] * 2)
    a, b = params
    (a.sum() + (b * paddle.to_tensor([1.0, float("nan")])).sum()).backward()
    limit = paddle.nn.ClipGradByGlobalNorm(1.0)
    paddle.optimizer.Momentum(0.1, 0.9, params, grad_clip=limit).step()
    return show(p.numpy() for p in params)


def bad_rate(rate: float) -> str:
    paddle.optimizer.Momentum(rate, 0.9, _parameters([np.zeros(1, np.float32)]))
    return "accepted"


def misspelt() -> str:
    group = {"params": _parameters([np.zeros(1, np.float32)]), "momentun": 0.5}
    paddle.optimizer.Momentum(0.1, 0.9, [group])
    return "accepted and ignored"


def flipped() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.pdparams")
        paddle.save({"a": paddle.arange(30.0), "b": paddle.ones([4, 5])}, str(path))
        return flips(path, lambda: paddle.load(str(path)))
