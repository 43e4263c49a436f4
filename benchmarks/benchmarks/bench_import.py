"""What a new process pays: the imports, and the way from the start of Python to the end of the first step."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

NBOPT = """
import nbopt as nb
params = nb.ParameterBuffer()
p = params.create_parameter([10, 10], name="p", attr=nb.{attr})
opt = nb.optimizer.Momentum(0.1, 0.9, parameters=params)
p.grad = p.value
opt.step()
print("stepped", flush=True)
"""
ATTRS = {"plain": "ParamAttr()", "weight norm": "WeightNormParamAttr(dim=0)"}

NUMPY_PLAIN = """
import numpy as np
value, velocity = np.ones((10, 10), np.float32), np.zeros((10, 10), np.float32)
grad = value.copy()
velocity *= 0.9
velocity += grad
value -= 0.1 * velocity
print("stepped", flush=True)
"""
NUMPY_NORMED = """
import numpy as np
v = np.random.default_rng(0).standard_normal((10, 10)).astype(np.float32)
norm = np.linalg.norm(v, axis=1, keepdims=True)
g, slope = norm.copy(), v.copy()
velocities = np.zeros_like(v), np.zeros_like(g)
dg = np.sum(v * slope, axis=1, keepdims=True) / norm
for value, grad, velocity in zip((v, g), (g / norm * (slope - dg / norm * v), dg), velocities):
    velocity *= 0.9
    velocity += grad
    value -= 0.1 * velocity
w = v * (g / np.linalg.norm(v, axis=1, keepdims=True))
print("stepped", flush=True)
"""
IN_NUMPY = {"plain": NUMPY_PLAIN, "weight norm": NUMPY_NORMED}


def seconds(code: str, cache: str) -> float:
    """Time a new process, whose kernel cache is this folder, until it says that it stepped."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        elapsed = time.perf_counter() - start
    if process.returncode or line != b"stepped\n":
        raise RuntimeError(f"the first step failed with {process.returncode}")
    return elapsed


def timeraw_import_nbopt() -> str:
    return "import nbopt"


def timeraw_import_nbopt_names() -> str:
    """What `import nbopt` leaves to the first use of its names."""
    return "from nbopt import ParameterBuffer, optimizer; optimizer.Momentum"


def timeraw_import_numpy() -> str:
    return "import numpy"


def timeraw_import_numba() -> str:
    return "import numba"


class FirstStep:
    """From the start of Python to the end of the first step, with an empty and with a filled kernel cache."""

    param_names = ["kind"]
    params = [list(ATTRS)]
    unit = "s"
    timeout = 300

    def setup(self, kind: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.nbopt = NBOPT.format(attr=ATTRS[kind])

    def teardown(self, kind: str) -> None:
        self.folder.cleanup()

    def median(self, code: str) -> float:
        return statistics.median(seconds(code, self.folder.name) for _ in range(5))

    def track_cold(self, kind: str) -> float:
        return seconds(self.nbopt, self.folder.name)

    def track_warm(self, kind: str) -> float:
        seconds(self.nbopt, self.folder.name)
        return self.median(self.nbopt)

    def track_numpy(self, kind: str) -> float:
        return self.median(IN_NUMPY[kind])
