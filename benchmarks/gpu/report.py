"""What a check found: rows that are printed as they come and written as JSON."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

OK, FAILED, LEFT_OUT = "ok", "FAILED", "left out"


class LeftOut(Exception):
    """Something that a row needs is not here."""


class Report:
    """The rows of some parts; without targets where times mean nothing."""

    def __init__(self, targets: bool = True) -> None:
        self.targets = targets
        self.rows: list[dict[str, Any]] = []

    def add(self, part: str, name: str, status: str, note: str = "", **more: Any) -> None:
        self.rows.append({"part": part, "name": name, "status": status, "note": note, **more})
        show(self.rows[-1])

    def check(self, part: str, name: str, holds: bool, note: str = "") -> None:
        """Add a row that holds or does not."""
        self.add(part, name, OK if holds else FAILED, note)

    def figure(
        self,
        part: str,
        name: str,
        samples: Sequence[float],
        unit: str,
        least: float | None = None,
        most: float | None = None,
        note: str = "",
    ) -> None:
        """Add the median of some samples, and whether it reaches what it should."""
        low, median, high = quartiles(samples)
        target: dict[str, Any] = {}
        if least is not None and self.targets:
            target = {"target": f"at least {least:g}", "met": median >= least}
        if most is not None and self.targets:
            target = {"target": f"at most {most:g}", "met": median <= most}
        measured = {"median": median, "quartiles": [low, high], "samples": list(samples), "unit": unit}
        self.add(part, name, OK, note, **measured, **target)

    @contextmanager
    def item(self, part: str, name: str) -> Iterator[None]:
        """Let one row fail, or be left out, without the others."""
        try:
            yield
        except (LeftOut, ImportError) as reason:
            self.add(part, name, LEFT_OUT, str(reason))
        except Exception as error:
            traceback.print_exc()
            self.add(part, name, FAILED, f"{type(error).__name__}: {error}".splitlines()[0])


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, median, high


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    value = ""
    if "median" in row:
        low, high = row["quartiles"]
        value = f"{row['median']:.4g} {row['unit']} ({low:.4g} to {high:.4g})"
    if "target" in row:
        value += f", {row['target']}: {'met' if row['met'] else 'NOT MET'}"
    print(f"{row['part']:<8}{row['name']:<72} {row['status']:<9}{value}  {row['note']}".rstrip(), flush=True)


def is_good(rows: list[dict[str, Any]]) -> bool:
    """Whether nothing failed; a target that was missed is no failure."""
    return all(row["status"] != FAILED for row in rows)
