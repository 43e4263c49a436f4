"""The cases in torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.behaviours.cases import show
from benchmarks.behaviours.numbers import LIMIT, above, changed, five_places, flips, kept


def _parameters(grads: list[np.ndarray]) -> list[torch.nn.Parameter]:
    found = [torch.nn.Parameter(torch.zeros(g.shape)) for g in grads]
    for p, g in zip(found, grads, strict=True):
        p.grad = torch.tensor(g)
    return found


def _after(grads: list[np.ndarray], limit: float) -> list[np.ndarray]:
    params = _parameters(grads)
    torch.nn.utils.clip_grad_norm_(params, limit)
    return [p.grad.numpy() for p in params]


def clip(grads: list[np.ndarray], limit: float) -> str:
    return show(_after(grads, limit))


def keeps(grads: list[np.ndarray], limit: float) -> str:
    return kept(grads, _after(grads, limit))


def _clipped(grad: np.ndarray) -> np.ndarray:
    return _after([grad], LIMIT)[0]


def clip_twice() -> str:
    return changed(_clipped)


def clip_bound() -> str:
    return above(_clipped)


def norm() -> str:
    return five_places(float(torch.linalg.vector_norm(torch.full((30_000_000,), 0.1))))


def threads() -> str:
    most, different = torch.get_num_threads(), 0
    rng = np.random.default_rng(0)
    for _ in range(40):
        array = torch.tensor(rng.standard_normal(200_000 + rng.integers(70_000)).astype(np.float32))
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(float((array * array).sum()))
        different += found[0] != found[1]
    torch.set_num_threads(most)
    return f"{different} differ"


def weight_norm(row: np.ndarray, g: float | None = None) -> str:
    layer = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(row))
    torch.nn.utils.parametrizations.weight_norm(layer, dim=0)
    if g is not None:
        with torch.no_grad():
            layer.parametrizations.weight.original0.fill_(g)
    return show([layer.weight.detach().numpy()])


def nan_step() -> str:
    params = _parameters([np.array([1, 1], np.float32), np.array([1, np.nan], np.float32)])
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    torch.optim.SGD(params, 0.1, 0.9).step()
    return show(p.detach().numpy() for p in params)


def bad_rate(rate: float) -> str:
    torch.optim.SGD(_parameters([np.zeros(1, np.float32)]), rate, 0.9)
    return "accepted"


def misspelt() -> str:
    group = {"params": _parameters([np.zeros(1, np.float32)]), "momentun": 0.5}
    torch.optim.SGD([group], 0.1, 0.9)
    return "accepted and ignored"


def swapped() -> str:
    grads = [np.array([1], np.float32), np.array([2], np.float32)]
    params = _parameters(grads)
    first = torch.optim.SGD(params, 0.1, 0.9)
    first.step()
    others = _parameters(grads)
    second = torch.optim.SGD(others[::-1], 0.1, 0.9)
    second.load_state_dict(first.state_dict())
    right = [float(second.state[p]["momentum_buffer"]) for p in others] == [1.0, 2.0]
    return "right, by name" if right else "on the wrong parameters"


def wrong_shape() -> str:
    p = _parameters([np.zeros(3, np.float32)])[0]
    p.grad = torch.ones(3, 1)
    return "accepted"


def flipped() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.pt")
        torch.save({"a": torch.arange(30.0), "b": torch.ones(4, 5)}, path)
        return flips(path, lambda: torch.load(path))
