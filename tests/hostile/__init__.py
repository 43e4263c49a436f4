"""Inputs that break optimizers, each with what nbopt makes of it: `table` is the page to read.

Here is what the checks share.
"""

import numpy as np
import pytest

import nbopt as nb

F32, F64 = np.float32, np.float64


def needs(module, *names):
    """Skip a check where the system has no such functions."""
    for name in names:
        if not hasattr(module, name):
            pytest.skip(f"needs {module.__name__}.{name}")


def refused(call, error, *words):
    """`call` raises this error, one of nbopt's or a TypeError, and its message holds every word."""
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, nb.NboptError | TypeError), repr(caught.value)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in the message: {caught.value}"
    return caught.value


def same(found, expected):
    """Equal shape, dtype and bits."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes(), f"{found} is not {expected}"


def buffer(dtype="float32", attrs=None, **arrays):
    """Parameters of these values."""
    return nb.ParameterBuffer.from_arrays(arrays, attrs=attrs, dtype=dtype)


def pair(dtype="float32"):
    """One parameter, w = [1, 2]."""
    return buffer(dtype, w=[1.0, 2.0])


def stepped(values, grads, dtype="float32", rate=1.0, **options):
    """The optimizer and the values of w after one step of gradient descent."""
    params = buffer(dtype, w=values)
    opt = nb.optimizer.SGD(rate, params, **options)
    opt.step({"w": grads})
    return opt, params["w"].numpy()
