"""Damaged files: one typed error, and nothing is changed."""

import tracemalloc

import numpy as np
import pytest

import nbopt as nb
from nbopt.checkpoint import files, restoring
from nbopt.errors import CheckpointError
from tests.checkpoint import Counter, model, momentum, refused, split


def test_every_truncation(content, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(content)
    nb.load(path)
    with open(path, "r+b") as file:
        for size in reversed(range(len(content))):
            file.truncate(size)
            refused(path)


def test_every_flip_of_one_bit(content, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(content)
    unnoticed = []
    with open(path, "r+b", buffering=0) as file:
        for index, byte in enumerate(content):
            for bit in range(8):
                file.seek(index)
                file.write(bytes([byte ^ 1 << bit]))
                try:
                    nb.load(path)
                except CheckpointError:
                    continue
                unnoticed.append((index, bit))
            file.seek(index)
            file.write(bytes([byte]))
    assert unnoticed == []
    nb.load(path)


@pytest.mark.parametrize("extra", [b"\0", b" ", b"\n" * 8, b"x" * 1000])
def test_bytes_that_follow(extra, content, tmp_path):
    (tmp_path / "a").write_bytes(content + extra)
    assert "its arrays take 12 bytes" in refused(tmp_path / "a")


def test_a_block_of_zeros(content, tmp_path):
    """What a file system may leave after a power cut: the right length, no content."""
    for start in range(0, len(content), 64):
        damaged = content[:start] + bytes(len(content[start : start + 64])) + content[start + 64 :]
        if damaged != content:
            (tmp_path / "a").write_bytes(damaged)
            refused(tmp_path / "a")


def test_every_damaged_array_is_named(content, tmp_path):
    tree, data = split(content)
    damaged = bytearray(data)
    for key in ("w", "note/history"):
        start, end = tree[key]["data_offsets"]
        damaged[start:end] = bytes(b ^ 1 for b in damaged[start:end])
    head = content[: len(content) - len(data)]
    (tmp_path / "a").write_bytes(head + damaged)
    with pytest.raises(CheckpointError, match=r"w is damaged") as caught:
        nb.load(tmp_path / "a")
    assert "b is damaged" not in str(caught.value)


def test_what_is_not_restored_may_be_damaged(content, tmp_path):
    """The parameters of a file whose other parts are lost can still be had."""
    tree, data = split(content)
    data = bytearray(data)
    start, _ = tree["w"]["data_offsets"]
    data[start] ^= 1
    (tmp_path / "a").write_bytes(content[: len(content) - len(data)] + data)
    note = Counter()
    nb.restore(tmp_path / "a", note=note)
    assert note.count == 3


FOREIGN = {
    "empty": b"",
    "eight zeros": bytes(8),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x93\x94.",
    "zip": b"PK\x03\x04" + bytes(100),
    "npy": b"\x93NUMPY\x01\x00v\x00" + b" " * 200,
    "text": b"hello " * 100,
    "safetensors": (24).to_bytes(8, "little") + b'{"__metadata__":{"a":""}}'[:24],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind, tmp_path):
    (tmp_path / "a").write_bytes(FOREIGN[kind])
    refused(tmp_path / "a")


def test_a_file_of_the_safetensors_package(tmp_path):
    import safetensors.numpy

    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, tmp_path / "a")
    assert "nbopt.save has not written it" in refused(tmp_path / "a")


def test_random_edits(content, tmp_path):
    """Several bytes changed, put in, or taken out."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 7)):
            at = int(rng.integers(len(damaged)))
            match rng.integers(3):
                case 0:
                    damaged[at] = int(rng.integers(256))
                case 1:
                    damaged[at:at] = rng.bytes(int(rng.integers(1, 9)))
                case _:
                    del damaged[at : at + int(rng.integers(1, 9))]
        if damaged != content:
            (tmp_path / "a").write_bytes(damaged)
            with pytest.raises(CheckpointError):
                nb.load(tmp_path / "a")


# --- large files, which are read twice -------------------------------------------------------------


@pytest.fixture
def streamed(monkeypatch):
    """Read even small files as large ones are."""
    monkeypatch.setattr(files, "SMALL", -1)


@pytest.mark.usefixtures("streamed")
def test_a_large_file_is_verified_before_anything_changes(tmp_path):
    params, opt = (lambda p: (p, momentum(p)))(model(seed=0))
    nb.save(tmp_path / "a", params, opt)
    whole = (tmp_path / "a").read_bytes()
    again, opt_again = (lambda p: (p, momentum(p)))(model(seed=1))
    before = again.fingerprint()
    (tmp_path / "a").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="nothing was changed"):
        nb.restore(tmp_path / "a", again, opt_again)
    assert again.fingerprint() == before
    (tmp_path / "a").write_bytes(whole)
    nb.restore(tmp_path / "a", again, opt_again)
    assert again.fingerprint() == params.fingerprint()


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("change", ["edit", "cut"])
def test_a_file_that_changes_between_the_readings_is_told(change, tmp_path, monkeypatch):
    params, again = model(seed=0), model(seed=1)
    nb.save(tmp_path / "a", params)

    def spoil():
        content = (tmp_path / "a").read_bytes()
        with open(tmp_path / "a", "r+b") as file:
            if change == "cut":
                file.truncate(len(content) - 1)
            else:
                file.seek(len(content) - 1)
                file.write(bytes([content[-1] ^ 1]))
        return uninterrupted()

    uninterrupted = restoring.uninterrupted
    monkeypatch.setattr(restoring, "uninterrupted", spoil)
    with pytest.raises(
        CheckpointError, match=r"failed after it was verified .* incomplete: restore it again"
    ):
        nb.restore(tmp_path / "a", again)


def test_memory_stays_small(tmp_path, monkeypatch):
    """Neither a save nor a restore holds more than a fraction of the largest array."""
    monkeypatch.setattr(files, "SMALL", 1000)
    size = 4_000_000
    params = nb.ParameterBuffer.from_arrays({n: np.ones(size, np.float32) for n in "ab"})
    opt = momentum(params)
    assert params.flat.size >= 2 * size
    tracemalloc.start()
    try:
        nb.save(tmp_path / "a", params, opt)
        nb.restore(tmp_path / "a", params, opt)
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()
