"""Processes that are killed during a save, and what they leave behind."""

import errno
import os
import signal
import statistics
import threading
import time

import numpy as np
import pytest

import nbopt as nb
from nbopt.checkpoint import files
from tests.checkpoint import leftovers
from tests.checkpoint.faults import NEW, OLD, Calls, buffer, held, recorded

pytest.importorskip("fcntl", reason="the locks and forks of Unix")
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def path(tmp_path):
    """A file that holds the old values."""
    nb.save(tmp_path / "run", buffer(OLD))
    return tmp_path / "run"


def child(work):
    """Fork; the child does its work and ends without clearing up."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


@forks
def test_a_kill_at_every_call(tmp_path, path, monkeypatch):
    names = recorded(monkeypatch, path)
    orphans = 0
    for k, name in enumerate(names):
        nb.save(path, buffer(OLD))

        def die(number, name, args, k=k):
            if number == k:
                if name == "write":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

        def work(die=die):
            files.os = Calls(die)
            nb.save(path, buffer(NEW))

        assert os.waitpid(child(work), 0)[1] == signal.SIGKILL, name
        assert held(path) == (NEW if "replace" in names[:k] else OLD)
        orphans += len(leftovers(tmp_path))
    assert orphans > 3
    nb.save(path, buffer(OLD))
    assert leftovers(tmp_path) == []


@forks
def test_200_kills_spread_over_a_save(tmp_path, counted):
    path = tmp_path / "run"
    old, new = (
        nb.ParameterBuffer.from_arrays({"w": np.full(100_000, value), "b": [value]}) for value in (OLD, NEW)
    )
    nb.save(path, old)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        nb.save(path, old)
        times.append(time.perf_counter() - start)
    span = 1.3 * statistics.median(times)
    outcomes = {OLD: 0, NEW: 0}
    orphans = 0
    ready, begun = os.pipe()

    def work():
        os.write(begun, b".")
        nb.save(path, new)

    for i in range(200):
        pid = child(work)
        os.read(ready, 1)
        time.sleep(span * i / 200)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        value = held(path)
        outcomes[value] += 1
        orphans += len(leftovers(tmp_path))
        if value == NEW:
            nb.save(path, old)
            assert leftovers(tmp_path) == []
    os.close(ready)
    os.close(begun)
    nb.save(path, old)
    assert leftovers(tmp_path) == []
    assert outcomes[OLD] > 20
    assert outcomes[NEW] > 5
    assert orphans > 20
    counted("kills during a save", 200)


def test_the_temporary_of_a_live_writer_stays(tmp_path, path):
    with files.replacing(path) as target:
        target.write(b"half")
        (mine,) = leftovers(tmp_path)
        nb.save(tmp_path / "other", buffer(NEW))
        nb.save(path, buffer(NEW))
        assert leftovers(tmp_path) == [mine]
        assert held(path) == NEW
    assert path.read_bytes() == b"half"  # the last to finish


@forks
def test_the_temporary_of_a_live_process_stays(tmp_path, path):
    ready, begun = os.pipe()

    def work():
        with files.replacing(path):
            os.write(begun, b".")
            time.sleep(60)

    pid = child(work)
    os.read(ready, 1)
    nb.save(path, buffer(NEW))
    assert len(leftovers(tmp_path)) == 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    nb.save(path, buffer(NEW))
    assert leftovers(tmp_path) == []
    os.close(ready)
    os.close(begun)


def test_only_our_orphans_are_swept(tmp_path, path):
    orphan = tmp_path / ".nbopt-0123456789abcdef.tmp"
    others = [".nbopt-x.tmp", ".nbopt-0123456789abcdef.tmp.txt", "nbopt-0123456789abcdef.tmp", ".other.tmp"]
    for name in (orphan.name, *others):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / ".nbopt-00000000000000aa.tmp").symlink_to(tmp_path / ".other.tmp")
    (tmp_path / ".nbopt-00000000000000bb.tmp").mkdir()
    nb.save(path, buffer(NEW))
    assert not orphan.exists()
    assert set(others) <= {entry.name for entry in tmp_path.iterdir()}
    assert (tmp_path / ".nbopt-00000000000000aa.tmp").is_symlink()


def test_a_temporary_that_is_swept_at_once_is_made_again(tmp_path, path, monkeypatch):
    """Between its creation and its lock, another save may take it for an orphan."""
    swept = []

    def sweep(fd):
        if not swept:
            swept.extend(leftovers(tmp_path))
            (tmp_path / swept[0]).unlink()
        return lock(fd)

    lock = files._lock
    monkeypatch.setattr(files, "_sweep", lambda folder: None)
    monkeypatch.setattr(files, "_lock", sweep)
    nb.save(path, buffer(NEW))
    assert len(swept) == 1
    assert held(path) == NEW


@pytest.mark.parametrize("locks", ["none", "refused"])
def test_without_locks_nothing_is_swept(locks, tmp_path, path, monkeypatch):
    (tmp_path / ".nbopt-0123456789abcdef.tmp").write_bytes(b"?")
    if locks == "none":
        monkeypatch.setattr(files, "fcntl", None)
    else:

        def refuse(*args):
            raise OSError(errno.ENOTSUP, "no locks here")

        monkeypatch.setattr(files.fcntl, "flock", refuse)
    nb.save(path, buffer(NEW))
    assert held(path) == NEW
    assert leftovers(tmp_path) == [".nbopt-0123456789abcdef.tmp"]


def test_many_threads_save_to_one_path(tmp_path, path):
    errors = []

    def work(value):
        params = buffer(value)
        try:
            for _ in range(20):
                nb.save(path, params)
                held(path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in (OLD, NEW, OLD, NEW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert leftovers(tmp_path) == []
