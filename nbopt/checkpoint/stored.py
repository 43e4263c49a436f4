"""What a file holds of one object: its arrays, verified and read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.checkpoint.files import Source
from nbopt.checkpoint.header import Contents, Section, Tensor
from nbopt.errors import CheckpointError

__all__ = ["Stored"]


class Stored:
    """A section of a file that is open.

    Attributes
    ----------
    section : Section
    arrays : dict of str to Tensor
        By name.
    """

    def __init__(self, source: Source, contents: Contents, section: Section):
        self.section = section
        self.arrays: dict[str, Tensor] = {
            name: contents.tensors[section.key(name)] for name in section.digests
        }
        self._source = source
        self._start = contents.start

    def damages(self, finite: Collection[str]) -> list[tuple[str, str]]:
        """Read every array, keep none, and say which are damaged, or of the `finite` ones not so, and how."""
        problems = []
        for name, tensor in self.arrays.items():
            found = Finiteness(tensor.dtype) if name in finite else None
            if self._source.read_array(self._start + tensor.start, tensor.nbytes, found) != self._digest(
                name
            ):
                problems.append((name, "damaged (its digest differs)"))
            elif found is not None and not found.all:
                problems.append((name, "holds NaN or Inf"))
        return problems

    def read(self, name: str, array: NDArray[Any]) -> None:
        """Fill `array`, which has the right shape and dtype."""
        if self._source.read_array(self._start + self.arrays[name].start, array) != self._digest(name):
            raise CheckpointError(f"{self.section.key(name)} is damaged (its digest differs)")

    def new(self, name: str) -> NDArray[Any]:
        """Return an array in new memory."""
        array = np.empty(self.arrays[name].shape, self.arrays[name].dtype)
        self.read(name, array)
        return array

    def _digest(self, name: str) -> str:
        return self.section.digests[name]


class Finiteness:
    """Whether all the numbers that were shown are finite."""

    def __init__(self, dtype: np.dtype[Any]):
        self.all = True
        self._dtype = dtype

    def __call__(self, piece: memoryview) -> None:
        self.all = self.all and bool(np.isfinite(np.frombuffer(piece, self._dtype)).all())
