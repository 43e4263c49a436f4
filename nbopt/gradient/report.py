"""What a check of gradients tells: a row for each parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["GradientReport", "GradientRow"]


@dataclass(frozen=True)
class GradientRow:
    """What was found of one parameter.

    Attributes
    ----------
    name : str
    shape : tuple of int
    ratio : float
        Written over numeric where they differ most; 1 where both are zero.
    index : tuple of int or None
        The worst element; None where a direction alone tells that something is wrong.
    written, numeric : float
        The slope of the loss there, from the gradient that `fun` wrote and from its losses.
    verdict : {"ok", "wrong", "unclear"}
        "unclear" where the losses are too rough or too coarse to tell.
    hint : str
        What such a difference often comes from; empty where nothing is wrong.
    """

    name: str
    shape: tuple[int, ...]
    ratio: float
    index: tuple[int, ...] | None
    written: float
    numeric: float
    verdict: str
    hint: str = ""

    def _cells(self) -> tuple[str, ...]:
        where = "" if self.index is None else str(self.index)
        shape = "x".join(map(str, self.shape)) or "scalar"
        told = f"{self.verdict}: {self.hint}" if self.hint else self.verdict
        return (
            self.name,
            shape,
            f"{self.ratio:.4g}",
            where,
            _short(self.written),
            _short(self.numeric),
            told,
        )


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradient` returns: `rows`, and a table as its `str`.

    Attributes
    ----------
    rows : tuple of GradientRow
    loss : float
        At the values that were checked.
    calls : int
        Of `fun`.
    noise : float
        By how much two calls at the same values differed.
    ok : bool
        Whether no row is wrong and none unclear.
    """

    rows: tuple[GradientRow, ...]
    loss: float
    calls: int
    noise: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether no row is wrong and none unclear."""
        return all(row.verdict == "ok" for row in self.rows)

    def __getitem__(self, name: str) -> GradientRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row of {name!r}; there are: {', '.join(row.name for row in self.rows)}")

    def __iter__(self) -> Iterator[GradientRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        head = ("name", "shape", "ratio", "worst at", "written", "numeric", "verdict")
        table = [head, *(row._cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in table
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        count = {v: sum(row.verdict == v for row in self.rows) for v in ("ok", "wrong", "unclear")}
        lines.append(", ".join(f"{n} {v}" for v, n in count.items() if n) + f"; {self.calls} calls of fun")
        if self.noise:
            lines.append(
                f"fun is not repeatable: two calls at the same values differ by {self.noise:.2g}. Fix its "
                "random numbers and its batch"
            )
        return "\n".join(lines)

    __repr__ = __str__


def _short(value: float) -> str:
    return f"{value:.4g}"
