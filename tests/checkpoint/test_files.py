"""The file layer: the old file or the new one, whatever fails, and whoever is killed."""

import errno
import os
import stat

import pytest

import nbopt as nb
from nbopt.checkpoint import files
from nbopt.errors import CheckpointError
from tests.checkpoint import bits, leftovers, model
from tests.checkpoint.faults import NEW, OLD, buffer, held, meddled, recorded

pytest.importorskip("fcntl", reason="the permissions, links and locks of Unix")


@pytest.fixture
def path(tmp_path):
    """A file that holds the old values."""
    nb.save(tmp_path / "run", buffer(OLD))
    return tmp_path / "run"


# --- errors ----------------------------------------------------------------------------------------


def test_synced_before_the_rename_and_after(path, monkeypatch):
    names = [name for name in recorded(monkeypatch, path) if name in ("write", "fsync", "replace")]
    assert names[-4:] == ["write", "fsync", "replace", "fsync"]
    assert names.count("replace") == 1


@pytest.mark.parametrize("works", [True, False])
def test_synced_through_the_cache_of_the_drive_where_that_can_be_asked(works, path, monkeypatch):
    """As on macOS; where it fails, fsync is what there is."""
    asked = []

    def full_sync(fd, command):
        asked.append(command)
        if not works:
            raise OSError(errno.ENOTSUP, "not here")

    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(files.fcntl, "fcntl", full_sync)
    names = recorded(monkeypatch, path)
    assert asked == [51]
    assert names.count("fsync") == (1 if works else 2)  # one is that of the folder


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("first", [True, False], ids=["first save", "later save"])
def test_every_call_that_fails(code, first, tmp_path, path, monkeypatch):
    """The k-th call fails, for every k: the old file stays, or after the rename the new one, and an error."""
    if first:
        path.unlink()
    total = len(recorded(monkeypatch, path))
    for k in range(total):
        path.unlink(missing_ok=True)
        if not first:
            nb.save(path, buffer(OLD))

        def fail(number, name, args, k=k):
            if number == k:
                raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            calls = meddled(patch, fail)
            try:
                nb.save(path, buffer(NEW))
                error = None
            except OSError as caught:
                error = caught
        failed = calls.names[k]
        if error is None:  # sweeping, and keeping an owner, are not worth an error
            assert failed in ("scandir", "fchown")
            assert held(path) == NEW
        else:
            assert error.errno == code
            if "replace" in calls.names[:k]:
                assert held(path) == NEW
            elif first:
                assert not path.exists()
            else:
                assert held(path) == OLD
        assert leftovers(tmp_path) == []
        nb.save(path, buffer(NEW))
        assert held(path) == NEW
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, SystemExit])
def test_every_call_that_is_interrupted(kind, tmp_path, path, monkeypatch):
    names = recorded(monkeypatch, path)
    for k in range(len(names)):
        nb.save(path, buffer(OLD))

        def stop(number, name, args, k=k):
            if number == k:
                raise kind

        with monkeypatch.context() as patch:
            meddled(patch, stop)
            with pytest.raises(kind):
                nb.save(path, buffer(NEW))
        assert leftovers(tmp_path) == []
        assert held(path) == (NEW if "replace" in names[:k] else OLD)


def test_short_writes_are_continued(path, monkeypatch):
    def write_little(number, name, args):
        return os.write(args[0], args[1][: 1 + number % 7]) if name == "write" else None

    meddled(monkeypatch, write_little)
    nb.save(path, buffer(NEW))
    assert held(path) == NEW


def test_a_temporary_that_cannot_be_removed_goes_with_the_next_save(tmp_path, path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        patch.setattr(os, "unlink", fail)
        with pytest.raises(OSError, match="no"):
            nb.save(path, buffer(NEW))
    assert len(leftovers(tmp_path)) == 1
    assert held(path) == OLD
    nb.save(path, buffer(NEW))
    assert leftovers(tmp_path) == []


def test_a_limit_at_every_64th_byte(tmp_path, path):
    """The kernel itself refuses to let the file grow, as a full disk does."""
    import resource

    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    new = buffer(NEW)
    for limit in range(0, size, 64):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(OSError, match="File too large") as caught:
                nb.save(path, new)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(path)
        assert held(path) == OLD
        assert leftovers(tmp_path) == []
    nb.save(path, new)
    assert held(path) == NEW


# --- what stands at the path -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400 | 0o200, 0o777])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_of_an_old_file_are_kept(mode, umask, path):
    path.chmod(mode)
    before = os.umask(umask)
    try:
        nb.save(path, buffer(NEW))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert held(path) == NEW


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_obeys_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        nb.save(tmp_path / "new", buffer(NEW))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask


def test_never_more_open_than_the_old_file(tmp_path, path, monkeypatch):
    path.chmod(0o600)
    seen = []

    def look(number, name, args):
        seen.extend(stat.S_IMODE((tmp_path / name).stat().st_mode) for name in leftovers(tmp_path))

    meddled(monkeypatch, look)
    nb.save(path, buffer(NEW))
    assert set(seen) == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_an_old_file_keeps_its_owner(path):
    os.chown(path, 12345, 23456)
    nb.save(path, buffer(NEW))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_file_that_is_write_protected_stays(tmp_path, path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda name, mode: not (mode == os.W_OK and name == str(path)))
    with pytest.raises(PermissionError, match="run"):
        nb.save(path, buffer(NEW))
    assert held(path) == OLD
    assert leftovers(tmp_path) == []


def test_links_are_followed(tmp_path, path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "link").symlink_to("../run")
    (tmp_path / "latest").symlink_to(tmp_path / "far" / "link")
    nb.save(tmp_path / "latest", buffer(NEW))
    assert held(path) == NEW
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "far" / "link").is_symlink()
    assert held(tmp_path / "latest") == NEW
    (tmp_path / "ahead").symlink_to("future")
    nb.save(tmp_path / "ahead", buffer(NEW))
    assert (tmp_path / "ahead").is_symlink()
    assert held(tmp_path / "future") == NEW


def test_another_name_of_the_old_file_keeps_it(tmp_path, path):
    os.link(path, tmp_path / "kept")
    nb.save(path, buffer(NEW))
    assert (held(path), held(tmp_path / "kept")) == (NEW, OLD)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    cases = {
        "pipe": CheckpointError,
        "folder": IsADirectoryError,
        "folder/": IsADirectoryError,
        "new/": IsADirectoryError,
        "circle": (CheckpointError, OSError),
        "missing/run": FileNotFoundError,
        "pipe/run": OSError,
    }
    for name, error in cases.items():
        with pytest.raises(error):
            nb.save(f"{tmp_path}/{name}", buffer(NEW))
        with pytest.raises((OSError, CheckpointError)):
            nb.load(f"{tmp_path}/{name}")
    for name in ("/dev/null", "/dev/full", "", "a\0b"):
        with pytest.raises(CheckpointError):
            nb.save(name, buffer(NEW))
    with pytest.raises(CheckpointError, match="no regular file"):
        nb.load("/dev/zero")
    for wrong in (3, None, model()):
        with pytest.raises(TypeError):
            nb.save(wrong, buffer(NEW))
        with pytest.raises(TypeError):
            nb.load(wrong)
    assert {entry.name for entry in tmp_path.iterdir()} == {"pipe", "folder", "circle"}
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_the_longest_name(tmp_path):
    path = tmp_path / ("x" * 255)
    nb.save(path, buffer(NEW))
    assert held(path) == NEW


def test_a_path_relative_to_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nb.save("run", buffer(NEW))
    nb.save("./run", buffer(OLD))
    assert bits(nb.load("run")) == bits(nb.load(tmp_path / "run"))
