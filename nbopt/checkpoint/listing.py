"""What a checkpoint holds, told without the objects that it was saved from."""

from __future__ import annotations

import os
from typing import Any

from nbopt.checkpoint.files import Path, Source, reading
from nbopt.checkpoint.header import Contents, Section, parse
from nbopt.checkpoint.stored import Stored

__all__ = ["as_text", "describe"]

LONGEST_VALUE = 60


def describe(path: Path) -> dict[str, Any]:
    """Return what a file holds, as plain values; every array is read and verified.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict
        ``bytes`` of the file, and of each of its ``objects`` the keyword, the kind, its arrays (dtype, shape,
        bytes, whether damaged), its values, and the parameters without a gradient.

    Raises
    ------
    OSError
        If the file cannot be read.
    CheckpointError
        If its header is damaged, or it is no checkpoint.

    Examples
    --------
    >>> import os, tempfile
    >>> import nbopt as nb
    >>> from nbopt.checkpoint.listing import describe
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     nb.save(path, nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]}))
    ...     describe(path)["objects"][0]["arrays"]
    {'w': {'dtype': 'float64', 'shape': [2], 'bytes': 16, 'damaged': False}}
    """
    with reading(path) as source:
        contents = parse(source)
        return {
            "path": str(os.fspath(path)),
            "bytes": source.size,
            "objects": [_object(source, contents, section) for section in contents.sections],
        }


def _object(source: Source, contents: Contents, section: Section) -> dict[str, Any]:
    stored = Stored(source, contents, section)
    damaged = {name for name, _ in stored.damages(())}
    return {
        "keyword": section.keyword,
        "kind": section.kind,
        "arrays": {
            name: {
                "dtype": tensor.dtype.name,
                "shape": list(tensor.shape),
                "bytes": tensor.nbytes,
                "damaged": name in damaged,
            }
            for name, tensor in stored.arrays.items()
        },
        "values": section.values,
        "absent": section.absent,
    }


def as_text(found: dict[str, Any]) -> str:
    """Return what `describe` found, in lines for people."""
    lines = [f"{_printable(found['path'])}: {found['bytes']:,} bytes, {len(found['objects'])} objects"]
    for thing in found["objects"]:
        keyword = f" saved as {thing['keyword']!r}" if thing["keyword"] is not None else ""
        lines += ["", f"{_printable(thing['kind'])}{keyword}"]
        rows = [
            (
                _printable(name),
                array["dtype"],
                "x".join(map(str, array["shape"])) or "scalar",
                f"{array['bytes']:,} bytes",
                "DAMAGED" * array["damaged"],
            )
            for name, array in thing["arrays"].items()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, dtype, shape, size, damage in rows:
            cells = (name.ljust(widths[0]), dtype, shape.ljust(widths[2]), size.rjust(widths[3]), damage)
            lines.append(f"  {'  '.join(cells)}".rstrip())
        lines += [f"  {_printable(name)} = {_short(value)}" for name, value in thing["values"].items()]
        if thing["absent"]:
            lines.append(f"  without a gradient: {', '.join(map(_printable, thing['absent']))}")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Keep what would break a line, or steer a terminal, to itself."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
