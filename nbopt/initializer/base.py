"""What an initializer is, and where its random numbers come from."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from nbopt._validation import as_number

__all__ = ["REACH", "Initializer", "generator_of", "number_or_none", "set_fields"]


REACH = 40.0  # no normal deviate of a NumPy generator is larger


class Initializer(ABC):
    """Base class; a subclass with its own `draw` can be used wherever one of these can.

    Examples
    --------
    >>> import numpy as np
    >>> from nbopt.initializer import Initializer
    >>> class Ramp(Initializer):
    ...     def draw(self, shape, generator):
    ...         return np.linspace(0.0, 1.0, int(np.prod(shape))).reshape(shape)
    >>> Ramp().draw((3,), np.random.default_rng(0))
    array([0. , 0.5, 1. ])
    """

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: Generator) -> NDArray[np.float64]:
        """Return a new float64 array of `shape`.

        Parameters
        ----------
        shape : tuple of int
            Sizes >= 0; ``()`` is a scalar parameter.
        generator : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        ParameterError
            If this initializer cannot fill the shape.

        Examples
        --------
        >>> import numpy as np
        >>> from nbopt.initializer import Uniform
        >>> Uniform(2.0, 3.0).draw((2, 4), np.random.default_rng(0)).shape
        (2, 4)
        """


def generator_of(seed: int, name: str) -> Generator:
    """Return what the values of a parameter are drawn from: it depends on the seed and the name alone.

    Examples
    --------
    >>> from nbopt.initializer.base import generator_of
    >>> generator_of(0, "w").random() == generator_of(0, "w").random() != generator_of(0, "b").random()
    True
    """
    words = seed.to_bytes(4 * max(1, -(-seed.bit_length() // 32)), "little")
    digest = hashlib.sha256(name.encode()).digest()
    # As SeedSequence reads the list [seed, *digest], but ten times faster.
    entropy = [np.frombuffer(words, "<u4"), np.frombuffer(digest, np.uint8)]
    return Generator(PCG64(SeedSequence(np.concatenate(entropy, dtype=np.uint32))))


def set_fields(instance: Initializer, **fields: Any) -> None:
    """Set fields in the __post_init__ of a frozen dataclass, which has no other way in."""
    for name, value in fields.items():
        object.__setattr__(instance, name, value)


def number_or_none(value: Any, name: str, low: float = -math.inf) -> float | None:
    """Return a finite number of at least `low`, or None."""
    return None if value is None else as_number(value, name, low=low)
