"""Hostile headers: each has the digest that belongs to it."""

import hashlib
import json
import tracemalloc

import pytest

import nbopt as nb
from nbopt.errors import CheckpointError
from tests.checkpoint import bits, joined, refused, signed, split


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
    "empty shape that overflows": lambda tree: tree["note/history"].update(shape=[0, 2**62, 2**62]),
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


@pytest.mark.parametrize("places", [{"w": [0, 8], "b": [4, 8]}, {"w": [4, 12], "b": [8, 12]}], ids=str)
def test_arrays_that_overlap_under_digests_that_fit(places, content, tmp_path):
    tree, data = split(content)
    objects = json.loads(tree["__metadata__"]["objects"])
    for key, (start, end) in places.items():
        tree[key]["data_offsets"] = [start, end]
        objects[0]["arrays"][key] = hashlib.sha256(data[start:end]).hexdigest()
    tree["__metadata__"]["objects"] = json.dumps(objects)
    (tmp_path / "a").write_bytes(joined(tree, data))
    assert "begins at byte" in refused(tmp_path / "a")


def test_absent_gradients_of_parameters_that_are_not_there(content, tmp_path):
    tree, data = split(content)
    objects_edited(lambda objects: objects[0].update(absent=["b", "lost"]))(tree)
    (tmp_path / "a").write_bytes(joined(tree, data))
    params = nb.ParameterBuffer.from_arrays({"w": [5.0, 6.0], "b": 7.0}, dtype="float32")
    with pytest.raises(CheckpointError, match="absent gradients of unknown parameters: lost"):
        nb.restore(tmp_path / "a", params)
    assert params["b"].has_grad


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
