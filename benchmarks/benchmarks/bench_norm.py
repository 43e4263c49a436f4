"""The norm kernel, against NumPy in the storage precision and against NumPy summing in float64."""

from __future__ import annotations

import numpy as np

import nbopt as nb


class Norm:
    """One norm over all elements."""

    param_names = ["elements", "dtype"]
    params = [[1_000, 100_000, 10_000_000], ["float32", "float64"]]

    def setup(self, elements: int, dtype: str) -> None:
        self.array = np.random.default_rng(0).standard_normal(elements).astype(dtype)
        nb.norm(self.array)  # compiles

    def time_nbopt(self, elements: int, dtype: str) -> None:
        nb.norm(self.array)

    def time_numpy(self, elements: int, dtype: str) -> None:
        np.linalg.norm(self.array)

    def time_numpy_float64(self, elements: int, dtype: str) -> None:
        np.sqrt(np.sum(np.square(self.array, dtype=np.float64)))


class NormOfSlices:
    """One norm per index of the kept axis."""

    param_names = ["shape", "dim"]
    params = [[(512, 2000), (64, 64, 3, 3)], [0, 1]]

    def setup(self, shape: tuple[int, ...], dim: int) -> None:
        self.array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        self.reduced = tuple(axis for axis in range(len(shape)) if axis != dim)
        nb.norm(self.array, dim)  # compiles

    def time_nbopt(self, shape: tuple[int, ...], dim: int) -> None:
        nb.norm(self.array, dim)

    def time_numpy(self, shape: tuple[int, ...], dim: int) -> None:
        np.sqrt(np.sum(np.square(self.array), axis=self.reduced))

    def time_numpy_float64(self, shape: tuple[int, ...], dim: int) -> None:
        np.sqrt(np.sum(np.square(self.array, dtype=np.float64), axis=self.reduced))
