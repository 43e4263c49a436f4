"""Damaged and hostile files: one typed error, and nothing is changed."""

import json
import tracemalloc

import numpy as np
import pytest

import nbopt as nb
from nbopt.checkpoint import files
from nbopt.errors import CheckpointError
from tests.checkpoint import Counter, bits, joined, model, momentum, signed, split


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a small file with arrays, values and an absent gradient."""
    path = tmp_path_factory.mktemp("small") / "a"
    params = nb.ParameterBuffer.from_arrays({"w": [1.0, -2.0], "b": 0.5}, dtype="float32")
    params["b"].grad = None
    nb.save(path, params, note=Counter(3))
    return path.read_bytes()


def refused(path):
    """`load` and `restore` raise a `CheckpointError`, and `restore` changes nothing."""
    params, note = nb.ParameterBuffer.from_arrays({"w": [5.0, 6.0], "b": 7.0}, dtype="float32"), Counter(1)
    before = params.fingerprint()
    with pytest.raises(CheckpointError) as caught:
        nb.load(path)
    with pytest.raises(CheckpointError):
        nb.restore(path, params, note=note)
    assert (params.fingerprint(), note.count, params["b"].has_grad) == (before, 1, True)
    assert str(path) in str(caught.value)
    return str(caught.value)


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


# --- hostile headers: everything here has the digest that belongs to it -----------------------------


def test_a_file_taken_apart_and_joined_again(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(joined(*split(content)))
    assert bits(nb.load(tmp_path / "b")) == bits(nb.load(tmp_path / "a"))


def edited(key, value):
    def edit(tree):
        tree["w"][key] = value

    return edit


def objects_edited(change):
    def edit(tree):
        objects = json.loads(tree["__metadata__"]["objects"])
        objects = change(objects) or objects
        tree["__metadata__"]["objects"] = json.dumps(objects)

    return edit


def swap_offsets(tree):
    tree["w"]["data_offsets"], tree["b"]["data_offsets"] = (
        tree["b"]["data_offsets"],
        tree["w"]["data_offsets"],
    )


def value_set(value):
    return objects_edited(lambda objects: objects[1]["values"].update(count=value))


TREES = {
    "negative offset": edited("data_offsets", [-8, 0]),
    "offsets reversed": edited("data_offsets", [8, 0]),
    "offsets of another size": edited("data_offsets", [0, 4]),
    "offset beyond": edited("data_offsets", [2**62, 2**62 + 8]),
    "offset that overflows": edited("data_offsets", [2**64 - 8, 2**64]),
    "offset of 10**400": edited("data_offsets", [10**400, 10**400 + 8]),
    "float offset": edited("data_offsets", [0.0, 8.0]),
    "true offset": edited("data_offsets", [False, 8]),
    "three offsets": edited("data_offsets", [0, 8, 8]),
    "offsets swapped": swap_offsets,
    "overlap": lambda tree: tree["b"].update(data_offsets=tree["w"]["data_offsets"]),
    "unknown dtype": edited("dtype", "F128"),
    "python dtype": edited("dtype", "O"),
    "dtype a number": edited("dtype", 4),
    "wrong dtype": edited("dtype", "F64"),
    "other dtype of the size": edited("dtype", "U16"),
    "shape of another size": edited("shape", [3]),
    "negative shape": edited("shape", [-1, -2]),
    "shape a text": edited("shape", "2"),
    "shape of 100 axes": edited("shape", [1] * 99 + [2]),
    "shape that overflows": edited("shape", [2**32, 2**32, 2**33]),
    "empty shape that overflows": lambda tree: tree["b"].update(shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "no shape": lambda tree: tree["w"].pop("shape"),
    "another field": edited("extra", 1),
    "entry a list": lambda tree: tree.update(w=[1]),
    "entry nothing": lambda tree: tree.update(w=None),
    "array missing": lambda tree: tree.pop("w"),
    "array of no object": lambda tree: tree.update(x={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "metadata a text": lambda tree: tree["__metadata__"].update(objects=3),
    "no objects": lambda tree: tree["__metadata__"].pop("objects"),
    "objects no JSON": lambda tree: tree["__metadata__"].update(objects="[}"),
    "objects a dictionary": lambda tree: tree["__metadata__"].update(objects="{}"),
    "objects nested": lambda tree: tree["__metadata__"].update(objects="[" * 100_000),
    "objects nested, whole": lambda tree: tree["__metadata__"].update(objects="[" * 900 + "]" * 900),
    "object a number": objects_edited(lambda objects: [*objects, 1]),
    "object without a kind": objects_edited(lambda objects: objects[0].pop("kind") and None),
    "keyword a number": objects_edited(lambda objects: objects[1].update(keyword=3)),
    "keyword twice": objects_edited(lambda objects: [*objects, {**objects[1], "arrays": {}, "values": {}}]),
    "digest a number": objects_edited(lambda objects: objects[0]["arrays"].update(w=1)),
    "digest missing": objects_edited(lambda objects: objects[0]["arrays"].pop("w") and None),
    "digest empty": objects_edited(lambda objects: objects[0]["arrays"].update(w="")),
    "digest of another": objects_edited(
        lambda objects: objects[0]["arrays"].update(w=objects[0]["arrays"]["b"])
    ),
    "absent a number": objects_edited(lambda objects: objects[0].update(absent=[1])),
    "value with an array's key": objects_edited(lambda objects: objects[0]["values"].update(w=1)),
    "array in two objects": objects_edited(
        lambda objects: [*objects, {**objects[0], "values": {}, "absent": []}]
    ),
    "value an unknown tag": value_set({"pickle": "gASVAAA="}),
    "value two tags": value_set({"float": "nan", "dict": {}}),
    "value a float by name": value_set({"float": "1e5"}),
    "value a list of tags": value_set([{"float": "snan"}]),
    "value nested": value_set(json.loads("[" * 65 + "]" * 65)),
    "value nested, by name": value_set(json.loads('{"dict":{"":' * 65 + "1" + "}}" * 65)),
    "value half a character": value_set("\ud800"),
    "key half a character": objects_edited(lambda objects: objects[1]["values"].update({"\udc00": 1})),
}


@pytest.mark.parametrize("case", TREES)
def test_hostile_trees(case, content, tmp_path):
    tree, data = split(content)
    TREES[case](tree)
    (tmp_path / "a").write_bytes(joined(tree, data))
    message = refused(tmp_path / "a")
    message.encode()
    assert len(message) < 2000


def body(content):
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length].decode(), content[8 + length :]


TEXTS = {
    "array twice": ('"b":{', '"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{'),
    "metadata twice": ('"b":{', '"__metadata__":{},"b":{'),
    "field twice": ('"dtype":"F32"', '"dtype":"F32","dtype":"F64"'),
    "NaN": ('"shape":[2]', '"shape":[NaN]'),
    "Infinity": ('"shape":[2]', '"shape":[-Infinity]'),
    "1e999": ('"shape":[2]', '"shape":[1e999]'),
    "a number of 10,000 digits": ('"shape":[2]', f'"shape":[{"9" * 10_000}]'),
    "a single quote": ('"shape":[2]', "'shape':[2]"),
    "a comment": ('"shape":[2]', '"shape":[2]/**/'),
    "half a character": ('"b":{', '"\\ud800":{'),
    "nested lists": ('"shape":[2]', f'"shape":{"[" * 50_000}'),
    "nested dictionaries": ('"shape":[2]', '"shape":' + '{"a":' * 50_000),
    "no end": ('"b":{', ""),
    "NaN as a value": ('\\"count\\":3', '\\"count\\":NaN'),
    "1e999 as a value": ('\\"count\\":3', '\\"count\\":1e999'),
    "value twice": ('\\"count\\":3', '\\"count\\":3,\\"count\\":4'),
    "format 0": ('{"__metadata__":{"nbopt":"1"', '{"__metadata__":{"nbopt":"0"'),
    "format 01": ('{"__metadata__":{"nbopt":"1"', '{"__metadata__":{"nbopt":"01"'),
    "format x": ('{"__metadata__":{"nbopt":"1"', '{"__metadata__":{"nbopt":"x"'),
    "format ²": ('{"__metadata__":{"nbopt":"1"', '{"__metadata__":{"nbopt":"²"'),
    "a blank first": ('{"__metadata__"', ' {"__metadata__"'),
}


@pytest.mark.parametrize("case", TEXTS)
def test_hostile_texts(case, content, tmp_path):
    text, data = body(content)
    old, new = TEXTS[case]
    assert old in text
    (tmp_path / "a").write_bytes(signed(text.replace(old, new, 1), data))
    refused(tmp_path / "a")


def test_bytes_that_are_no_text(content, tmp_path):
    text, data = body(content)
    (tmp_path / "a").write_bytes(signed(text.encode().replace(b'"b":{', b'"\xff":{'), data))
    assert "no text" in refused(tmp_path / "a")


@pytest.mark.parametrize("length", [0, 1, 2, 7, 2**20, 2**31, 2**63, 2**64 - 1])
def test_lengths_of_the_header(length, content, tmp_path):
    text, data = body(content)
    (tmp_path / "a").write_bytes(signed(text, data, length))
    refused(tmp_path / "a")


def test_a_header_above_the_limit(content, tmp_path):
    """Is not even read."""
    with open(tmp_path / "a", "wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + content[8:])
        file.truncate(300_000_000)  # a hole
    tracemalloc.start()
    try:
        assert "100000001" in refused(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_newer_format_asks_for_an_update(content, tmp_path):
    text, data = body(content)
    (tmp_path / "a").write_bytes(signed(text.replace('"nbopt":"1"', '"nbopt":"12"', 1), data))
    assert "format 12, this version of nbopt reads 1; update nbopt" in refused(tmp_path / "a")


def test_metadata_of_later_versions_are_passed_over(content, tmp_path):
    tree, data = split(content)
    tree["__metadata__"]["comment"] = "hello"
    (tmp_path / "a").write_bytes(joined(tree, data))
    assert bits(nb.load(tmp_path / "a"))["note/count"] == "3"


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

    uninterrupted = files.uninterrupted
    monkeypatch.setattr(files, "uninterrupted", spoil)
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
