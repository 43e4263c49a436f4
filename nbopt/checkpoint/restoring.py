"""From a file to objects: matched, verified, and only then filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbopt.checkpoint import files, header
from nbopt.checkpoint.header import Section
from nbopt.checkpoint.objects import Restorable, Stateful
from nbopt.checkpoint.stored import Stored
from nbopt.errors import CheckpointError, ConcurrencyError
from nbopt.interrupts import uninterrupted
from nbopt.standstill import Standstill

__all__ = ["fill", "read"]

Pairs = list[tuple[Restorable, Stored]]


def fill(path: files.Path, items: Sequence[Restorable]) -> None:
    """Fill all of the objects from a file or, on an error, none."""
    with files.reading(path) as source:
        contents = header.parse(source)
        sections = _matched(source.path, contents.sections, items)
        stored = [Stored(source, contents, section) for section in sections]
        pairs = list(zip(items, stored, strict=True))
        problems = [f"{item.label}: {text}" for item, part in pairs for text in item.problems(part)]
        if not problems:
            problems = [
                f"{item.label}: {name}: {what}"
                for item, part in pairs
                for name, what in part.damages(item.finite)
            ]
        if problems:
            raise _refusal(source.path, problems)
        with uninterrupted():
            _fill_all(source.path, pairs)


def _refusal(path: str, problems: Sequence[str]) -> CheckpointError:
    lines = "\n  ".join(problems)
    return CheckpointError(f"checkpoint {path!r} cannot be restored; nothing was changed:\n  {lines}")


def _matched(path: str, sections: Sequence[Section], items: Sequence[Restorable]) -> list[Section]:
    """Find the section of each object: by keyword, else by kind and order."""
    by_keyword = {section.keyword: section for section in sections if section.keyword is not None}
    in_order = [section for section in sections if section.keyword is None]
    found, problems = [], []
    for item in items:
        if item.keyword is None:
            section = next((one for one in in_order if one.kind == item.kind), None)
            in_order = [one for one in in_order if one is not section]
        else:
            section = by_keyword.get(item.keyword)
        if section is None:
            problems.append(f"it has nothing for {item.label}")
        elif section.kind != item.kind:
            problems.append(f"under {item.keyword!r} it has {section.kind}, not {item.kind}")
        else:
            found.append(section)
    if problems:
        held = [s.kind if s.keyword is None else f"{s.keyword}={s.kind}" for s in sections]
        raise _refusal(path, [*problems, f"what it has: {', '.join(held)}"])
    return found


def _fill_all(path: str, pairs: Pairs) -> None:
    """Fill what is verified; first the objects that may still refuse, which can be taken back."""
    started: list[Stateful] = []
    for item, stored in pairs:
        if isinstance(item, Stateful):
            started.append(item)
            try:
                item.fill(stored)
            except Exception as error:
                _undo(started)
                raise _refusal(path, [f"{item.label}: {error}"]) from error
    tables = {id(one): one for item, _ in pairs if item.still for one in item.still.tables}
    try:
        still = Standstill("what is restored", tables.values())
    except ConcurrencyError:
        _undo(started)
        raise
    try:
        with still.held():
            for item, stored in pairs:
                if not isinstance(item, Stateful):
                    item.fill(stored)
    except (OSError, CheckpointError) as error:
        raise CheckpointError(
            f"checkpoint {path!r} failed after it was verified ({error}); what was being restored is "
            "incomplete: restore it again before it is used"
        ) from error


def _undo(started: Sequence[Stateful]) -> None:
    for one in reversed(started):
        one.undo()


def read(path: files.Path) -> dict[str, Any]:
    """Return every array and value of a file by key."""
    found: dict[str, Any] = {}
    damaged = []
    with files.reading(path) as source:
        contents = header.parse(source)
        for section in contents.sections:
            stored = Stored(source, contents, section)
            for name in stored.arrays:
                try:
                    found[section.key(name)] = stored.new(name)
                except CheckpointError as error:
                    damaged.append(str(error))
            found |= {section.key(name): value for name, value in section.values.items()}
    if damaged:
        raise CheckpointError(f"checkpoint {source.path!r} cannot be read:\n  " + "\n  ".join(damaged))
    return found
