"""Whatever a user asks for gives the same bits on a CUDA device as on the CPU, and the same in its tables."""

import numpy as np
import pytest

from tests.cuda.requests import REQUESTS, model
from tests.kernels import bits


@pytest.mark.parametrize("name", REQUESTS)
def test_the_device_changes_no_bit(name):
    here, there = REQUESTS[name]("cpu"), REQUESTS[name]("cuda")
    assert list(here) == list(there)
    for key, value in here.items():
        assert isinstance(there[key], type(value)), key
        assert bits(there[key]) == bits(value), key


def test_the_requests_reach_a_device():
    params = model("cuda")
    assert (params.device, params["w"].device) == ("cuda:0", "cuda:0")
    assert not isinstance(params["w"].value, np.ndarray)
    assert params["w"].value.__cuda_ndarray__
