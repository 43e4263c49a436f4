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
    """One parameter of a `Summary`."""

    name: str
    shape: tuple[int, ...]
    kind: str
    trainable: bool
    lr: float
    regularizer: str
    clip: bool
    bytes: int


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
        body = [
            (
                row.name,
                "x".join(map(str, row.shape)) or "scalar",
                row.kind,
                "yes" if row.trainable else "frozen",
                f"x {row.lr:g}",
                row.regularizer,
                "yes" if row.clip else "no",
                f"{row.bytes:,}",
            )
            for row in self.rows
        ]
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
    rows = []
    elements = 0
    for p in parameters:
        elements += p.size
        regularizer = p.regularizer
        rows.append(
            SummaryRow(
                name=p.name,
                shape=p.shape,
                kind=f"weight norm, dim={p.dim}" if p.weight_v is not None else "plain",
                trainable=p.trainable,
                lr=p.learning_rate,
                regularizer=(
                    "inherited"
                    if regularizer is None
                    else f"{type(regularizer).__name__[:2]} {regularizer.coeff:g}"
                ),
                clip=p.need_clip,
                bytes=sum(part.size for part in p._moved) * dtype.itemsize,
            )
        )
    return Summary(tuple(rows), elements, sum(row.bytes for row in rows))
