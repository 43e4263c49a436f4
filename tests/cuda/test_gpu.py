"""Every case of the table on a GPU, where this machine has one."""

import pytest

from tests.cuda import SIMULATED
from tests.cuda.table import CASES, EACH, POWERS


@pytest.fixture(scope="module")
def gpu():
    if SIMULATED:
        pytest.skip("tests.cuda.simulator does it in the simulator")
    from nbopt.kernels.cuda.device import what_is_missing

    if missing := what_is_missing():
        pytest.skip(missing)
    return "cuda"


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_the_device_changes_no_bit(name, dtype, gpu):
    if CASES[name].make in POWERS:
        pytest.skip("its rule takes a power, in which the libraries of devices differ")
    assert CASES[name].play(dtype, gpu) == CASES[name].play(dtype, "cpu")
