"""From objects to a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from nbopt.checkpoint import files, header
from nbopt.checkpoint.header import Section
from nbopt.checkpoint.objects import Item
from nbopt.errors import CheckpointError

__all__ = ["write"]


def write(path: files.Path, items: Sequence[Item]) -> None:
    """Write a file array by array; its head, which holds the digests, last."""
    sections = [item.section() for item in items]
    _check_keys(items, sections)
    arrays: dict[str, tuple[Section, str, NDArray[Any]]] = {}
    for item, section in zip(items, sections, strict=True):
        arrays |= {section.key(name): (section, name, array) for name, array in item.arrays.items()}
    placed = header.place({k: (header.as_dtype(a.dtype, k), a.shape) for k, (_, _, a) in arrays.items()})
    blank = bytes(len(header.build(sections, placed)))
    with files.replacing(path) as target:
        target.write(blank)
        for key in placed:
            section, name, array = arrays[key]
            section.digests[name] = target.write_array(array)
        for item in items:
            item.check_unchanged()
        target.rewind()
        target.write(header.build(sections, placed))


def _check_keys(items: Sequence[Item], sections: Sequence[Section]) -> None:
    """Refuse two entries of one key."""
    taken = {"__metadata__": "the format itself"}
    for item, section in zip(items, sections, strict=True):
        for name in (*item.arrays, *item.values):
            key = section.key(name)
            if key in taken:
                raise CheckpointError(
                    f"{item.label} and {taken[key]} both need the key {key!r}: hand one in by keyword, "
                    "as in nbopt.save(path, params, opt, second=other)"
                )
            taken[key] = item.label
