"""What the tests of checkpoints share: models, gradients by step, and the raw parts of a file."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import CheckpointError

START = b'{"__metadata__":{"nbopt":"1","sha256":"'
ZEROS = b"0" * 64


class Counter:
    """An object of the user's that keeps an array, a number and what JSON has no form for."""

    def __init__(self, count=0):
        self.count, self.history, self.best = count, np.zeros(0), float("inf")

    def state_dict(self):
        return {"count": self.count, "history": self.history.copy(), "best": self.best}

    def set_state_dict(self, state):
        if set(state) != {"count", "history", "best"}:
            raise KeyError("count, history, best")
        self.count, self.history, self.best = state["count"], state["history"], state["best"]


def model(dtype="float32", seed=0, dim=1):
    """Weight norm, a matrix, a vector, a scalar, and one that is empty."""
    params = nb.ParameterBuffer(dtype=dtype, seed=seed)
    params.create_parameter([5, 7], name="fc.weight", attr=nb.WeightNormParamAttr(dim=dim))
    params.create_parameter([7], name="fc.bias", is_bias=True)
    params.create_parameter([7, 3], name="out.weight")
    params.create_parameter([], name="scale", attr=nb.initializer.Constant(1.5))
    params.create_parameter([0, 3], name="none")
    return params


def gradients(params, step):
    """Gradients that follow from the values and from the step."""
    rng = np.random.default_rng([7, step])
    return {name: (p.value + rng.normal(size=p.shape)).astype(params.dtype) for name, p in params.items()}


def momentum(params, **options):
    return nb.optimizer.Momentum(0.1, 0.9, params, **options)


def bits(found):
    """Arrays and values of `nbopt.load`, comparable with ==; NaN is NaN."""
    return {
        key: (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)
        for key, value in found.items()
    }


def leftovers(folder):
    """The temporaries in a folder."""
    return [path.name for path in Path(folder).iterdir() if path.name.startswith(".nbopt-")]


def split(content):
    """The tree of the header, and the arrays."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def signed(body, data=b"", length=None):
    """A file of this header, with the digest that it must have; text or bytes."""
    body = body.encode() if isinstance(body, str) else body
    head = (len(body) if length is None else length).to_bytes(8, "little")
    if body.startswith(START):
        begin, rest = body[: len(START)], body[len(START) + 64 :]
        digest = hashlib.sha256(head + begin + ZEROS + rest).hexdigest().encode()
        body = begin + digest + rest
    return head + body + data


def joined(tree, data):
    """A file of this tree, with the digest that it must have."""
    return signed(json.dumps(tree, ensure_ascii=False, separators=(",", ":")), data)


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
