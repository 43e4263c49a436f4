"""Whatever a user asks for gives the same bits on a CUDA device as on the CPU."""

import numpy as np
import pytest

from tests.cuda.cases import CASES, model
from tests.kernels import bits


@pytest.mark.parametrize("name", CASES)
def test_the_device_changes_no_bit(name, capsys):
    here, there = CASES[name]("cpu"), CASES[name]("cuda")
    assert list(here) == list(there)
    for key, value in here.items():
        assert isinstance(there[key], type(value)), key
        assert bits(there[key]) == bits(value), key


def test_the_cases_run_on_a_device():
    params = model("cuda")
    assert (params.device, params["w"].device) == ("cuda:0", "cuda:0")
    assert not isinstance(params["w"].value, np.ndarray)
    assert params["w"].value.__cuda_ndarray__
