"""The cases in nbopt."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import nbopt as nb
from benchmarks.behaviours.cases import show
from benchmarks.behaviours.numbers import LIMIT, above, changed, five_places, flips, kept


def _model(**arrays: object) -> nb.ParameterBuffer:
    return nb.ParameterBuffer.from_arrays(arrays, dtype="float32")


def _stepped(grads: list[np.ndarray], clip: nb.ClipGradByGlobalNorm | None) -> list[np.ndarray]:
    """The clipped gradients, as one step of rate 1 from 0 takes them."""
    params = _model(**{f"p{i}": np.zeros_like(g) for i, g in enumerate(grads)})
    nb.optimizer.SGD(1.0, params, grad_clip=clip).step({f"p{i}": g for i, g in enumerate(grads)})
    return [0.0 - p for p in params.numpy().values()]


def clip(grads: list[np.ndarray], limit: float) -> str:
    return show(_stepped(grads, nb.ClipGradByGlobalNorm(limit)))


def keeps(grads: list[np.ndarray], limit: float) -> str:
    return kept(grads, _stepped(grads, nb.ClipGradByGlobalNorm(limit)))


def _clipped(grad: np.ndarray) -> np.ndarray:
    return nb.ClipGradByGlobalNorm(LIMIT)({"w": grad})["w"]


def clip_twice() -> str:
    return changed(_clipped)


def clip_bound() -> str:
    return above(_clipped)


def norm() -> str:
    return five_places(nb.norm(np.full(30_000_000, 0.1, np.float32)))


def threads() -> str:
    import numba

    most, different = numba.get_num_threads(), 0
    rng = np.random.default_rng(0)
    for _ in range(40):
        array = rng.standard_normal(200_000 + rng.integers(70_000)).astype(np.float32)
        found = []
        for count in (1, min(2, most)):
            numba.set_num_threads(count)
            params = _model(w=np.zeros_like(array))
            opt = nb.optimizer.SGD(1.0, params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
            opt.step({"w": array})
            found.append(opt.grad_norm)
        different += found[0] != found[1]
    numba.set_num_threads(most)
    return f"{different} differ"


def weight_norm(row: np.ndarray, g: float | None = None) -> str:
    params = nb.ParameterBuffer(dtype="float32")
    start = nb.initializer.Assign(row.reshape(1, -1))
    attr = nb.WeightNormParamAttr(dim=0, initializer=start)
    w = params.create_parameter(row.reshape(1, -1).shape, name="w", attr=attr)
    if g is not None:
        w.weight_g.set_value([[g]])
    return show([w.numpy()])


def nan_step() -> str:
    params = _model(a=np.zeros(2), b=np.zeros(2))
    nb.optimizer.Momentum(0.1, 0.9, params).step({"a": [1.0, 1.0], "b": [1.0, np.nan]})
    return show(params.numpy().values())


def bad_rate(rate: float) -> str:
    nb.optimizer.Momentum(rate, 0.9, _model(w=np.zeros(1)))
    return "accepted"


def misspelt() -> str:
    params = _model(w=np.zeros(1))
    nb.optimizer.Momentum(0.1, 0.9, [{"params": [params["w"]], "momentun": 0.5}])
    return "accepted and ignored"


def swapped() -> str:
    def run(names: str) -> nb.optimizer.Momentum:
        return nb.optimizer.Momentum(0.1, 0.9, _model(**dict.fromkeys(names, np.zeros(1))))

    first, second = run("ab"), run("ba")
    first.step({"a": [1.0], "b": [2.0]})
    second.set_state_dict(first.state_dict())
    state = second.state_dict()
    right = (float(state["a.velocity"][0]), float(state["b.velocity"][0])) == (1.0, 2.0)
    return "right, by name" if right else "on the wrong parameters"


def wrong_shape() -> str:
    params = _model(w=np.zeros(3))
    params["w"].grad = np.ones((3, 1))
    return "accepted"


def flipped() -> str:
    params = _model(a=np.arange(30.0), b=np.ones((4, 5)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.safetensors")
        nb.save(path, params)
        return flips(path, lambda: nb.load(path))
