"""The table of behaviours in the documentation, read back."""

import re

from benchmarks.behaviours.__main__ import answer
from benchmarks.behaviours.cases import CASES
from tests.kernels import ROOT

DRAWN = ("threads", "clip_twice", "clip_bound", "flipped")  # how many of them differs between machines


def column(peer):
    """Return the cells of one library, by its name at the head, in the order of the cases."""
    text = (ROOT / "docs" / "behaviours-table.rst").read_text(encoding="utf-8")
    rows = [re.findall(r"^   [* ] - (.*)$", row, re.MULTILINE) for row in re.split(r"\n(?=   \* - )", text)]
    head, *body = [row for row in rows if row]
    (index,) = (i for i, cell in enumerate(head) if cell.partition(" ")[0] == peer)
    assert [row[0] for row in body] == [case.about for case in CASES]
    return [row[index] for row in body]


def written(module, peer):
    """Yield each case with what the page says and what the library does now."""
    for case, cell in zip(CASES, column(peer), strict=True):
        now = answer(module, case)
        if case.method in DRAWN and peer != "nbopt":
            cell, now = (re.sub(r"\b[1-9]\d*\b", "some", text, count=1) for text in (cell, now))
        yield case, cell, now
