"""All parameters of a buffer as one dense vector, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt._validation import as_flag
from nbopt.errors import ParameterError
from nbopt.memory import as_values
from nbopt.norms import initial_magnitude

if TYPE_CHECKING:
    from nbopt.collection import ParameterCollection
    from nbopt.parameter import Parameter

__all__ = ["gather", "scatter"]


def _parts(buffer: ParameterCollection, what: str, space: str, frozen: bool) -> list[Parameter]:
    """Return the parameters that make up the vector, in its order."""
    for value, name, legal in (
        (what, "what", ("value", "grad")),
        (space, "space", ("effective", "trainable")),
    ):
        if value not in legal:
            raise ParameterError(f"{name} must be one of {legal}, got {value!r}")
    as_flag(frozen, "frozen")
    whole = space == "effective"
    parts = [part for p in buffer.values() for part in ((p,) if whole else p._moved)]
    return [part for part in parts if frozen or part.trainable]


def gather(buffer: ParameterCollection, what: str, space: str, frozen: bool) -> NDArray[Any]:
    """Return the vector; see `ParameterBuffer.to_vector`."""
    parts = _parts(buffer, what, space, frozen)
    arrays = [p._current_grad() if what == "grad" else p._current() for p in parts]
    if not arrays:
        return np.zeros(0, buffer.dtype)
    return np.concatenate([a.reshape(-1) for a in arrays])


def scatter(buffer: ParameterCollection, x: ArrayLike, what: str, space: str, frozen: bool) -> None:
    """Copy the vector in; see `ParameterBuffer.from_vector`."""
    parts = _parts(buffer, what, space, frozen)
    if what == "grad" and any(part._parent is not None for part in parts):
        raise ParameterError("gradients of g and v are computed; write dL/dw with space='effective'")
    sizes = [part.size for part in parts]
    values = as_values(buffer._memory, x, f"vector of {what}s", buffer.dtype, (sum(sizes),))
    if parts and buffer.owns(values):
        values = buffer._memory.read(values).copy()
    ends = np.cumsum(sizes).tolist()
    pieces = [
        values[end - size : end].reshape(part.shape)
        for part, size, end in zip(parts, sizes, ends, strict=True)
    ]
    for part, piece in zip(parts, pieces, strict=True):
        if what == "value" and part._role == "normed":
            # Refuses a zero slice before any write.
            initial_magnitude(buffer._memory.read(piece), part.dim, part.name)
    for part, piece in zip(parts, pieces, strict=True):
        if what == "grad":
            part.grad = piece
        else:
            part.set_value(piece)
