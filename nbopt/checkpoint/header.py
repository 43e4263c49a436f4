"""The head of a checkpoint: a safetensors header whose metadata say what is in the file.

``length (8 bytes) | header (JSON) | arrays``. The metadata begin with the version of the format and with the
SHA-256 of length and header, in which its own digits count as zeros. ``objects`` is JSON again: of each
object the keyword, the kind, the SHA-256 of each array, the plain values, and the parameters without a
gradient. The key of an array or value is its name, after ``keyword/`` where the object has a keyword.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from nbopt.checkpoint.files import Source
from nbopt.checkpoint.values import decode, encode
from nbopt.errors import CheckpointError

__all__ = ["Contents", "Section", "Tensor", "as_dtype", "build", "parse", "place"]

VERSION = 1
LONGEST_HEADER = 100_000_000  # as in the safetensors package
ZEROS = "0" * 64
START = b'{"__metadata__":{"nbopt":"'

DTYPES = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
_NAMES = {np.dtype(text): name for name, text in DTYPES.items()}


@dataclass(frozen=True)
class Tensor:
    """One array of the file; `start` is counted from the first byte of the first array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @cached_property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class Section:
    """What the file holds of one object.

    Attributes
    ----------
    keyword : str or None
        What it was saved under.
    kind : str
    digests : dict of str to str
        Of its arrays, by name.
    values : dict of str to object
        Numbers, texts, None, and lists and dictionaries of them, by name.
    absent : list of str
        The parameters whose gradient is absent.
    """

    keyword: str | None
    kind: str
    digests: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def key(self, name: str) -> str:
        """Key in the file of an array or value."""
        return name if self.keyword is None else f"{self.keyword}/{name}"


@dataclass(frozen=True)
class Contents:
    """What a file holds: its objects, its arrays by key, and where these begin."""

    sections: list[Section]
    tensors: dict[str, Tensor]
    start: int


# --- writing --------------------------------------------------------------------------------------


def as_dtype(dtype: np.dtype[Any], key: str) -> np.dtype[Any]:
    """Return a dtype as the format stores it."""
    little = dtype.newbyteorder("<")
    if little not in _NAMES:
        raise TypeError(f"{key!r} cannot be stored: {dtype} is none of {', '.join(map(str, _NAMES))}")
    return little


def place(arrays: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> dict[str, Tensor]:
    """Give each array its place: in their order, but wide elements first, so that each is aligned."""
    placed, start = {}, 0
    for key, (dtype, shape) in sorted(arrays.items(), key=lambda item: -item[1][0].itemsize):
        placed[key] = Tensor(dtype, shape, start)
        start += placed[key].nbytes
    return placed


def build(sections: Iterable[Section], tensors: Mapping[str, Tensor]) -> bytes:
    """Return the head of the file; it is as long whatever the digests are."""
    objects = [
        {
            "keyword": section.keyword,
            "kind": section.kind,
            "arrays": section.digests,
            "values": {name: encode(value) for name, value in section.values.items()},
            "absent": section.absent,
        }
        for section in sections
    ]
    metadata = {"nbopt": str(VERSION), "sha256": ZEROS, "objects": _text(objects)}
    entries = {
        key: {
            "dtype": _NAMES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [t.start, t.start + t.nbytes],
        }
        for key, t in tensors.items()
    }
    body = _text({"__metadata__": metadata, **entries}).encode()
    body += b" " * (-len(body) % 8)
    if len(body) > LONGEST_HEADER:
        raise CheckpointError(f"a header of {len(body)} bytes is too long; save objects in several files")
    head = len(body).to_bytes(8, "little") + body
    return head.replace(ZEROS.encode(), hashlib.sha256(head).hexdigest().encode(), 1)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# --- reading --------------------------------------------------------------------------------------


def parse(source: Source) -> Contents:
    """Return what a file holds; its header is verified, its arrays are not yet."""
    try:
        return _parse(source)
    except _Damage as error:
        raise CheckpointError(f"checkpoint {source.path!r} cannot be used: {error}") from None
    except RecursionError:
        raise CheckpointError(
            f"checkpoint {source.path!r} cannot be used: its header nests too deep"
        ) from None


class _Damage(Exception):
    """What is wrong with a header."""


def _parse(source: Source) -> Contents:
    if source.size < 8:
        raise _Damage(f"it has {source.size} bytes")
    head = bytearray(8)
    source.read_into(memoryview(head), 0)
    length = int.from_bytes(head, "little")
    if length > LONGEST_HEADER or length > source.size - 8:
        raise _Damage(f"its header would have {length} bytes; it is cut off, or no checkpoint")
    body = bytearray(length)
    source.read_into(memoryview(body), 8)
    text = _verified(head, body)
    try:
        tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        metadata = tree.pop("__metadata__")
        objects = json.loads(metadata["objects"], object_pairs_hook=_unique, parse_constant=_refuse)
        _text([tree, objects]).encode()  # refuses infinite numbers and half characters
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _Damage(f"its header cannot be read ({error})") from error
    tensors = _tensors(tree, source.size - 8 - length)
    sections = _sections(objects)
    _check_keys(sections, tensors)
    return Contents(sections, tensors, 8 + length)


def _verified(head: bytearray, body: bytearray) -> str:
    """Return the text of a header whose digest is right."""
    if not body.startswith(START):
        raise _Damage("nbopt.save has not written it, or its first bytes are damaged")
    version, _, rest = bytes(body[len(START) : len(START) + 200]).partition(b'","sha256":"')
    at = len(START) + len(version) + len(b'","sha256":"')
    if version != str(VERSION).encode():
        if version.isdigit() and int(version) > VERSION:
            raise _Damage(
                f"it has format {int(version)}, this version of nbopt reads {VERSION}; update nbopt"
            )
        raise _Damage("its header is damaged")
    found = rest[:64]
    body[at : at + 64] = ZEROS.encode()
    if hashlib.sha256(head + body).hexdigest().encode() != found:
        raise _Damage("its header is damaged (the digest differs)")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _Damage("its header is no text") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _tensors(tree: dict[str, Any], size: int) -> dict[str, Tensor]:
    """Return the arrays that a header describes; they must fill the rest of the file without a gap."""
    found = {}
    for key, entry in tree.items():
        match entry:
            case {"dtype": str(name), "shape": list(shape), "data_offsets": [start, end], **others}:
                counts = [*shape, start, end]
            case _:
                raise _Damage(f"its header says nothing of use about {key!r}")
        if others or name not in DTYPES or not all(map(_is_count, counts)) or len(shape) > 64:
            raise _Damage(f"its header says nothing of use about {key!r}")
        tensor = Tensor(np.dtype(DTYPES[name]), tuple(shape), start)
        if tensor.nbytes != end - start or math.prod(map(_or_one, shape)) >= 2**60:
            raise _Damage(f"{key!r} of shape {shape} does not fit {end - start} bytes")
        found[key] = tensor
    position = 0
    for key, tensor in sorted(found.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start != position:
            raise _Damage(f"{key!r} begins at byte {tensor.start}, not at {position}")
        position += tensor.nbytes
    if position != size:
        raise _Damage(f"its arrays take {position} bytes, but {size} are there")
    return found


def _or_one(size: int) -> int:
    return size or 1


def _sections(objects: Any) -> list[Section]:
    if not isinstance(objects, list):
        raise _Damage("its list of objects cannot be read")
    sections = []
    for entry in objects:
        match entry:
            case {
                "keyword": None | str() as keyword,
                "kind": str(kind),
                "arrays": dict(digests),
                "values": dict(values),
                "absent": list(absent),
            } if all(isinstance(text, str) for text in [*digests.values(), *absent]):
                try:
                    values = {name: decode(value) for name, value in values.items()}
                except ValueError as error:
                    raise _Damage(str(error)) from None
                sections.append(Section(keyword, kind, digests, values, absent))
            case _:
                raise _Damage("its list of objects cannot be read")
    keywords = [section.keyword for section in sections if section.keyword is not None]
    if len(set(keywords)) != len(keywords):
        raise _Damage("a keyword is there twice")
    return sections


def _check_keys(sections: list[Section], tensors: dict[str, Tensor]) -> None:
    """Each array has one digest, and no value the key of another value or of an array."""
    arrays = [section.key(name) for section in sections for name in section.digests]
    values = [section.key(name) for section in sections for name in section.values]
    if sorted(arrays) != sorted(tensors):
        raise _Damage("its arrays are not those of its objects")
    if len({*arrays, *values}) != len(arrays) + len(values):
        raise _Damage("a key is there twice")
