"""Files that are whole or not there: written beside the old one, synced, and renamed over it.

A writer holds a lock on its temporary for as long as it lives, and the kernel takes it away when it dies. A
temporary that can be locked has no writer any more, whatever process, container or machine that was.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import CheckpointError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: nothing is swept there
    fcntl = None

__all__ = ["Path", "Source", "Target", "as_path", "reading", "replacing"]

Path = str | bytes | os.PathLike[Any]

CHUNK = 1 << 20  # stays in the cache between writing and hashing
SMALL = 64 << 20  # a file up to this size is read once, and kept until it is no longer needed
TEMPORARY = re.compile(r"\.nbopt-[0-9a-f]{16}\.tmp")
_FLAGS = os.O_CREAT | os.O_EXCL | os.O_RDWR
_FLAGS |= sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"))


def as_path(path: Path) -> str:
    """Return a path as text."""
    try:
        text = os.fsdecode(os.fspath(path))
    except TypeError:
        raise TypeError(
            f"path must be a string or a path, got {type(path).__name__}; it comes first, as in "
            "nbopt.save(path, params)"
        ) from None
    if not text:
        raise CheckpointError("the path of a checkpoint is empty")
    if "\0" in text:
        raise CheckpointError(f"no file can be named {text!r}")
    return text


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


# --- writing --------------------------------------------------------------------------------------


class Target:
    """The file that is being written."""

    def __init__(self, fd: int):
        self._fd = fd

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def write_array(self, array: NDArray[Any]) -> str:
        """Write an array as little-endian numbers in C order, and return the digest of these bytes."""
        whole = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data, digest = as_bytes(whole), hashlib.sha256()
        scratch = memoryview(bytearray(min(len(data), CHUNK)))
        for start in range(0, len(data), CHUNK):
            piece = scratch[: min(len(data) - start, CHUNK)]
            piece[:] = data[start : start + CHUNK]  # once, as another thread may be writing to it
            self.write(piece)
            digest.update(piece)
        return digest.hexdigest()

    def rewind(self) -> None:
        """Go back to the first byte."""
        os.lseek(self._fd, 0, os.SEEK_SET)


@contextmanager
def replacing(path: Path) -> Iterator[Target]:
    """Open a new file, which takes the place of `path` at the end of the block; not after an error.

    Symbolic links are followed. An existing file keeps its permissions, and the owner where that can be.
    """
    final = os.path.realpath(as_path(path))
    folder = os.path.dirname(final)
    old = _replaceable(as_path(path), final)
    _sweep(folder)
    fd, temporary = _create(folder, 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777)
    try:
        try:
            if old is not None:
                _keep_owner_and_mode(fd, old)
            yield Target(fd)
            _sync(fd)
            os.replace(temporary, final)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = as_path(path)  # as of a disk that is full
            raise
    finally:
        os.close(fd)
    _sync_folder(folder)


def _replaceable(path: str, final: str) -> os.stat_result | None:
    """Return what is known of the file at `final`, None where there is none; refuse all but a file."""
    if path.endswith(os.sep) or os.path.isdir(final):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not os.path.isdir(os.path.dirname(final)):
        raise FileNotFoundError(errno.ENOENT, "no such folder", os.path.dirname(final))
    try:
        old = os.lstat(final)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(old.st_mode):
        raise CheckpointError(f"cannot save to {path!r}: it is no regular file")
    if not os.access(final, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return old


def _create(folder: str, mode: int) -> tuple[int, str]:
    """Create a temporary and lock it."""
    while True:
        temporary = os.path.join(folder, f".nbopt-{os.urandom(8).hex()}.tmp")
        fd = os.open(temporary, _FLAGS, mode)
        try:
            if _lock(fd) is not False and _is_at(fd, temporary):
                return fd, temporary
        except BaseException:
            os.close(fd)
            os.unlink(temporary)
            raise
        os.close(fd)  # swept in the instant before it was locked


def _keep_owner_and_mode(fd: int, old: os.stat_result) -> None:
    if not hasattr(os, "fchmod"):
        return
    if (os.fstat(fd).st_uid, os.fstat(fd).st_gid) != (old.st_uid, old.st_gid):
        with suppress(OSError):
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _sweep(folder: str) -> None:
    """Remove the temporaries that have no writer any more."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_orphan(entry.path)


def _remove_orphan(temporary: str) -> None:
    fd = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if _lock(fd) and _is_at(fd, temporary):
            os.unlink(temporary)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool | None:
    """Lock an open file: True if that worked, False if another holds it, None if files cannot be locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _sync(fd: int) -> None:
    """Bring a file to the disk; on macOS, fsync leaves it in the cache of the drive."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):  # not every file system can
            fcntl.fcntl(fd, full)
            return
    os.fsync(fd)


def _sync_folder(folder: str) -> None:
    """Make a rename durable, where folders can be synced."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


# --- reading --------------------------------------------------------------------------------------


class Source:
    """The file that is being read.

    Attributes
    ----------
    path : str
    size : int
    """

    def __init__(self, path: str, file: BinaryIO, size: int):
        self.path = path
        self.size = size
        self._file = file

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on."""
        self._file.seek(offset)
        self._continue(view)

    def read_array(
        self, offset: int, array: NDArray[Any] | int, look: Callable[[memoryview], None] | None = None
    ) -> str:
        """Read an array, or so many bytes that are not kept, and return their digest; show them to `look`."""
        digest = hashlib.sha256()
        kept = None if isinstance(array, int) else as_bytes(array)
        size = array if isinstance(array, int) else array.nbytes
        scratch = memoryview(bytearray(min(size, CHUNK) if kept is None else 0))
        self._file.seek(offset)
        for start in range(0, size, CHUNK):
            length = min(CHUNK, size - start)
            piece = scratch[:length] if kept is None else kept[start : start + length]
            self._continue(piece)
            digest.update(piece)
            if look is not None:
                look(piece)
        return digest.hexdigest()

    def _continue(self, view: memoryview) -> None:
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(f"checkpoint {self.path!r} became shorter while it was read")
            view = view[count:]


@contextmanager
def reading(path: Path) -> Iterator[Source]:
    """Open a regular file for reading; a small one is read at once, so that nothing can go wrong later."""
    text = as_path(path)
    # A pipe would wait for its writer.
    fd = os.open(text, os.O_RDONLY | sum(getattr(os, n, 0) for n in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY")))
    try:
        about = os.fstat(fd)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text)
        if not stat.S_ISREG(about.st_mode):
            raise CheckpointError(f"cannot read {text!r}: it is no regular file")
        with open(fd, "rb", buffering=0, closefd=False) as file:
            if about.st_size > SMALL:
                yield Source(text, file, about.st_size)
            else:
                content = file.readall()
                yield Source(text, io.BytesIO(content), len(content))
    finally:
        os.close(fd)
