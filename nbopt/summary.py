"""A table of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nbopt.parameter import Parameter

__all__ = ["Summary", "SummaryRow"]


@dataclass(frozen=True)
class SummaryRow:
    """One parameter of a `Summary`.

    Of a weight-normed parameter `lr`, `regularizer`, `clip` and `trainable` are what the parameter itself
    says, and `parts` holds the rows of its v and its g, whose policies may differ; it is empty elsewhere.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    trainable: bool
    lr: float
    regularizer: str
    clip: bool
    bytes: int
    parts: tuple[SummaryRow, ...] = ()

    def _cells(self) -> tuple[str, ...]:
        """Return the row of the table; v and g are told apart where they differ."""
        own = self._policy()
        if self.parts:
            v, g = (part._policy() for part in self.parts)
            own = tuple(a if a == b else f"v: {a}, g: {b}" for a, b in zip(v, g, strict=True))
        trainable, *rest = own
        shape = "x".join(map(str, self.shape)) or "scalar"
        return (self.name, shape, self.kind, trainable, *rest, f"{self.bytes:,}")

    def _policy(self) -> tuple[str, ...]:
        trainable, clip = "yes" if self.trainable else "frozen", "yes" if self.clip else "no"
        return trainable, f"x {self.lr:g}", self.regularizer, clip


@dataclass(frozen=True)
class Summary:
    """What `ParameterBuffer.summary` returns: `rows`, and a table as its `str`.

    Attributes
    ----------
    rows : tuple of SummaryRow
    elements : int
        Of all parameters.
    bytes : int
        Of what an optimizer moves.
    """

    rows: tuple[SummaryRow, ...]
    elements: int
    bytes: int

    def __str__(self) -> str:
        head = ("name", "shape", "kind", "trainable", "lr", "regularizer", "clip", "bytes")
        body = [row._cells() for row in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if column == "bytes" else cell.ljust(width)
                for column, cell, width in zip(head, row, widths, strict=True)
            ).rstrip()
            for row in (head, *body)
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        total = f"{len(self.rows)} parameters, {self.elements:,} elements, {self.bytes:,} bytes"
        return "\n".join([*lines, total])

    __repr__ = __str__


def summarize(parameters: Iterable[Parameter], dtype: np.dtype[Any]) -> Summary:
    """Return the table of `parameters`."""
    parameters = list(parameters)
    rows = tuple(_row(p, dtype) for p in parameters)
    return Summary(rows, sum(p.size for p in parameters), sum(row.bytes for row in rows))


def _row(p: Parameter, dtype: np.dtype[Any]) -> SummaryRow:
    kind = "plain"
    parts: tuple[SummaryRow, ...] = ()
    if p._role != "plain":
        kind = f"{'weight norm' if p._role == 'normed' else p._role}, dim={p.dim}"
    if p.weight_v is not None and p.weight_g is not None:
        parts = (_row(p.weight_v, dtype), _row(p.weight_g, dtype))
    regularizer = p.regularizer
    return SummaryRow(
        name=p.name,
        shape=p.shape,
        kind=kind,
        trainable=p.trainable,
        lr=p.learning_rate,
        regularizer=(
            "inherited" if regularizer is None else f"{type(regularizer).__name__[:2]} {regularizer.coeff:g}"
        ),
        clip=p.need_clip,
        bytes=sum(part.bytes for part in parts) if parts else p.size * dtype.itemsize,
        parts=parts,
    )
