"""`torch.set_flush_denormal` in the thread that steps, and in the worker threads alone."""

import json

import pytest

from tests.kernels import python

pytest.importorskip("torch")
pytestmark = pytest.mark.conformance

# Beside what is said, the sum of squares of a subnormal gradient, which Z01 and Z03 lose without a word.
CODE = """
import json, sys, warnings
import numpy as np
import torch
import nbopt as nb
from nbopt.kernels.cpu.run import PARALLEL_FROM

if not torch.set_flush_denormal(False):
    sys.exit("this processor cannot")
params = nb.ParameterBuffer.from_arrays({"w": np.ones(PARALLEL_FROM, np.float32)})
params["w"].grad = np.full(PARALLEL_FROM, 1e-40, np.float32)
opt = nb.optimizer.Momentum(0.1, 0.9, params)
result = []
for on in (sys.argv[1] == "workers", sys.argv[1] == "caller"):  # workers start in the first
    torch.set_flush_denormal(on)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt.step()
        opt.check()
        torch.set_flush_denormal(False)
    said = {w.category.__name__ for w in caught}
    ratio = opt.grad_norm / np.sqrt(PARALLEL_FROM) / 1e-40
    result.append([sorted(said), bool(abs(ratio - 1) < 1e-4)])
print(json.dumps(result))
"""
ALARM = ["FloatEnvironmentWarning"]


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("nobody", [[[], True], [[], True]]),
        ("caller", [[[], True], [ALARM, False]]),
        ("workers", [[ALARM, False], [ALARM, False]]),
    ],
)
def test_torch_flushes(who, expected):
    """Where subnormal gradients are lost, and only there, a warning says so."""
    found = python("-c", CODE, who, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="omp")
    assert json.loads(found) == expected
