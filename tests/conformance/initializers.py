"""The table of random initializers, what nbopt draws of one, and how two draws are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from scipy import stats

import nbopt as nb

GAINS = ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
GAINS += [name.format(n) for n in (1, 2, 3) for name in ("conv{}d", "conv_transpose{}d")]
KINDS = ["Normal", "Uniform", "TruncatedNormal"]
KINDS += ["XavierUniform", "XavierNormal", "KaimingUniform", "KaimingNormal"]
SIZES = {1: [(9000, 40000)], 2: [(60, 220)] * 2, 3: [(20, 60)] * 2 + [(15, 30)]}
SIZES |= {4: [(10, 40)] * 2 + [(4, 8)] * 2, 5: [(10, 24)] * 2 + [(3, 6)] * 3}


@dataclass(frozen=True)
class Draw:
    """An initializer by name and arguments, a shape, and a seed."""

    kind: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    seed: int = 0
    dtype: str = "float32"

    @property
    def label(self) -> str:
        return f"{self.seed:02}-{self.kind}-{'x'.join(map(str, self.shape))}"

    def ours(self) -> np.ndarray:
        """What a parameter holds that is created with it."""
        initializer = getattr(nb.initializer, self.kind)(**self.arguments)
        params = nb.ParameterBuffer(self.dtype, seed=self.seed)
        return params.create_parameter(self.shape, "w", attr=initializer).numpy()


def _rng(seed: int, salt: int) -> np.random.Generator:
    return np.random.default_rng([seed, salt])


def random_draws(count: int, *, fans: bool, min_rank: int) -> list[Draw]:
    """Every distribution in turn. `fans`: some are given, where the initializer takes them."""
    draws = []
    for seed in range(count):
        rng = _rng(seed, 0)
        kind = KINDS[seed % len(KINDS)]
        rank = min_rank + seed // len(KINDS) % (6 - min_rank)
        shape = tuple(int(rng.integers(low, high)) for low, high in SIZES[rank])
        draws.append(Draw(kind, _arguments(rng, kind, fans), shape, seed))
    return draws


def _arguments(rng: np.random.Generator, kind: str, fans: bool) -> dict[str, Any]:
    scale, shift = (round(float(x), 4) for x in (rng.uniform(0.1, 2.0), rng.uniform(-1.0, 1.0)))
    if kind == "Normal":
        return {"mean": shift, "std": scale}
    if kind == "Uniform":
        return {"low": shift, "high": shift + scale}
    if kind == "TruncatedNormal":
        a, b = rng.uniform(0.3, 2.5, size=2) * scale
        return {"mean": shift, "std": scale, "a": shift - float(a), "b": shift + float(b)}
    given = fans and rng.random() < 0.3
    if kind.startswith("Xavier"):
        own = {"fan_in": 300, "fan_out": 77} if given else {}
        return own | {"gain": scale}
    nonlinearity = str(rng.choice(["relu", "leaky_relu", "tanh", "selu", "sigmoid"]))
    own = {"fan_in": 300} if given else {"mode": str(rng.choice(["fan_in", "fan_out"]))}
    return own | {"nonlinearity": nonlinearity, "negative_slope": round(float(rng.uniform(0, 2)), 3)}


def random_diracs(count: int) -> list[Draw]:
    result = []
    for seed in range(count):
        rng = _rng(seed, 1)
        groups = int(rng.integers(1, 4))
        window = rng.integers(1, 6, size=1 + seed % 3)
        shape = (groups * int(rng.integers(1, 5)), int(rng.integers(1, 6)), *map(int, window))
        result.append(Draw("Dirac", {"groups": groups}, shape, seed))
    return result


def random_orthogonals(count: int) -> list[Draw]:
    result = []
    for seed in range(count):
        rng = _rng(seed, 2)
        shape = tuple(int(n) for n in rng.integers(1, 9, size=2 + seed % 3))
        gain = round(float(rng.uniform(-2.0, 2.0)), 3)
        result.append(Draw("Orthogonal", {"gain": gain}, shape, seed, "float64"))
    return result


def gram(array: np.ndarray) -> np.ndarray:
    """Products of the rows of a matrix, or of its columns where they are fewer."""
    matrix = array.reshape(len(array), -1)
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def assert_same_distribution(got: np.ndarray, expected: np.ndarray) -> None:
    """Two independent draws of some ten thousand elements: moments, ends, and Kolmogorov-Smirnov."""
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    got, expected = got.ravel().astype(float), expected.ravel().astype(float)
    std = expected.std()
    assert_allclose(got.mean(), expected.mean(), rtol=0, atol=5 * std * np.sqrt(2 / got.size))
    assert_allclose(got.std(), std, rtol=0.03)
    if np.abs(expected - expected.mean()).max() < 2.5 * std:  # it has ends, and reaches them
        width = np.ptp(expected)
        assert_allclose([got.min(), got.max()], [expected.min(), expected.max()], rtol=0, atol=0.005 * width)
    assert stats.ks_2samp(got, expected).pvalue > 1e-4
