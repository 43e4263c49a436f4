"""Files of checkpoints: damaged, hostile, and what a save leaves behind that did not work."""

import errno
import inspect
import io
import json
import os
import pickle
import signal

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt.checkpoint import files
from nbopt.errors import CheckpointError
from tests import checkpoint
from tests.checkpoint import Counter, joined, leftovers, signed, split
from tests.checkpoint.faults import NEW, OLD, Calls, buffer, held, meddled
from tests.hostile import needs, refused
from tests.processes import in_child


def small(path):
    """The bytes of a small file with arrays, values and an absent gradient."""
    params = nb.ParameterBuffer.from_arrays({"w": [1.0, -2.0], "b": 0.5}, dtype="float32")
    params["b"].grad = None
    nb.save(path, params, note=Counter(3))
    return path.read_bytes()


def truncated(tmp_path):
    path = tmp_path / "run"
    content = small(path)
    for length in (*range(0, len(content), 16), *range(len(content) - 20, len(content))):
        path.write_bytes(content[:length])
        checkpoint.refused(path)


def one_bit_flipped(tmp_path):
    path = tmp_path / "run"
    content = bytearray(small(path))
    for place in range(0, len(content), 5):
        content[place] ^= 0x10
        path.write_bytes(content)
        checkpoint.refused(path)
        content[place] ^= 0x10
    path.write_bytes(content)
    assert nb.load(path)["note/count"] == 3


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def pickled(wrap, tmp_path):
    bomb = Bomb(tmp_path / "mark")
    archive = io.BytesIO()
    np.savez(archive, w=np.array([bomb], object))
    for content in (pickle.dumps(wrap(bomb)), archive.getvalue()):
        (tmp_path / "run").write_bytes(content)
        checkpoint.refused(tmp_path / "run")
    assert not (tmp_path / "mark").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "mark").exists()  # it does explode


def a_pickle(tmp_path):
    pickled(lambda bomb: bomb, tmp_path)


def a_pickle_that_is_trusted():
    assert list(inspect.signature(nb.load).parameters) == ["path"]
    assert list(inspect.signature(nb.restore).parameters) == ["path", "objects", "named"]


def a_pickle_in_a_dictionary(tmp_path):
    pickled(lambda bomb: {"w": bomb, "state": [bomb]}, tmp_path)


def edited(path, change, text=None):
    """A file whose header was changed, under the digest that it must have."""
    tree, data = split(small(path))
    change(tree)
    content = joined(tree, data)
    if text is not None:
        length = int.from_bytes(content[:8], "little")
        head = content[8 : 8 + length].decode()
        assert text[0] in head
        content = signed(head.replace(*text, 1), data)
    path.write_bytes(content)
    return checkpoint.refused(path)


def sizes_beyond_the_file(tmp_path):
    path = tmp_path / "run"
    edited(path, lambda tree: tree["w"].update(shape=[10**13], data_offsets=[0, 4 * 10**13]))
    content = small(path)
    for length in (2**63, 2**64 - 1, 10**13):
        path.write_bytes(length.to_bytes(8, "little") + content[8:])
        assert str(length) in checkpoint.refused(path)


def overlapping_arrays(tmp_path):
    edited(tmp_path / "run", lambda tree: tree["b"].update(data_offsets=tree["w"]["data_offsets"][:1] * 2))


def a_key_twice(tmp_path):
    twice = '"b":{', '"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{'
    edited(tmp_path / "run", lambda tree: None, twice)


def bytes_not_covered(tmp_path):
    path = tmp_path / "run"
    content = small(path)
    for extra in (b"\0", b"\0" * 64):
        path.write_bytes(content + extra)
        checkpoint.refused(path)
    edited(path, lambda tree: tree.pop("b"))


def killed(tmp_path):
    """At the sync, the old values are there; after the rename, the new ones."""
    needs(os, "fork")
    path = tmp_path / "run"
    for name, value in (("fsync", OLD), ("replace", OLD), ("folder", NEW)):
        nb.save(path, buffer(OLD))
        seen = []

        def die(number, call, args, name=name, seen=seen):
            if call == name or (name == "folder" and call == "fsync" and "replace" in seen):
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(call)

        def work(die=die):
            files.os = Calls(die)
            nb.save(path, buffer(NEW))

        assert not in_child(work)
        assert held(path) == value
    nb.save(path, buffer(NEW))
    assert leftovers(tmp_path) == []


def file_size_limit(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of Unix")
    path = tmp_path / "run"
    nb.save(path, buffer(OLD))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
        with pytest.raises(OSError, match="File too large"):
            nb.save(path, buffer(NEW))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert held(path) == OLD
    assert leftovers(tmp_path) == []


def full_disk(tmp_path, monkeypatch):
    path = tmp_path / "run"
    nb.save(path, buffer(OLD))

    def full(number, name, args):
        if name == "write" and number > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        meddled(patch, full)
        with pytest.raises(OSError, match="No space left") as caught:
            nb.save(path, buffer(NEW))
    assert caught.value.filename == str(path)
    assert held(path) == OLD
    assert leftovers(tmp_path) == []


class Holding:
    """An object whose state is these arrays."""

    def __init__(self, **arrays):
        self.arrays = arrays

    def state_dict(self):
        return dict(self.arrays)

    def set_state_dict(self, state):
        self.arrays = dict(state)


def not_contiguous(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    forms = {
        "transposed": array.T,
        "fortran": np.asfortranarray(array),
        "strided": array[::2, 1::3],
        "backwards": array[::-1, ::-1],
        "broadcast": np.broadcast_to(array[0], (3, 6)),
    }
    nb.save(tmp_path / "run", nb.ParameterBuffer.from_arrays(forms), note=Holding(**forms))
    found = nb.load(tmp_path / "run")
    for name, form in forms.items():
        assert_array_equal(found[name], form, strict=True)
        assert_array_equal(found[f"note/{name}"], form, strict=True)


def one_array_twice(tmp_path):
    """Stored under each name, and independent once restored."""
    shared = np.arange(3.0)
    nb.save(tmp_path / "run", Holding(a=shared, b=shared, tail=shared[1:]))
    found = nb.load(tmp_path / "run")
    found["a"][:] = 7
    assert_array_equal(found["b"], [0.0, 1.0, 2.0], strict=True)
    assert_array_equal(found["tail"], [1.0, 2.0], strict=True)


def every_edit_is_told(tmp_path):
    """Random edits of bytes: a CheckpointError each."""
    rng = np.random.default_rng(0)
    path = tmp_path / "run"
    content = small(path)
    for _ in range(100):
        spoilt = bytearray(content)
        for place in rng.choice(len(content), rng.integers(1, 6), replace=False):
            spoilt[place] ^= rng.integers(1, 256)
        path.write_bytes(spoilt)
        refused(lambda: nb.load(path), CheckpointError)


def read_by_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy", reason="the safetensors package reads our files")
    params = nb.ParameterBuffer.from_arrays({"w": np.arange(6.0).reshape(2, 3).T, "b": np.float32([1])})
    nb.save(tmp_path / "run", params)
    found = numpy.load_file(tmp_path / "run")
    for name, param in params.items():
        assert_array_equal(found[name], param.value, strict=True)
    head = (tmp_path / "run").read_bytes()
    assert json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["w"]["shape"] == [3, 2]
