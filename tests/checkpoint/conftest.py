"""A small file, and the proof that a damaged one is refused."""

import pytest

import nbopt as nb
from tests.checkpoint import Counter


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a small file with arrays, values and an absent gradient."""
    path = tmp_path_factory.mktemp("small") / "a"
    params = nb.ParameterBuffer.from_arrays({"w": [1.0, -2.0], "b": 0.5}, dtype="float32")
    params["b"].grad = None
    nb.save(path, params, note=Counter(3))
    return path.read_bytes()
