"""What a new process pays: the imports, and the way from the start of Python to the end of the first step."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

FIRST_STEP = """
import nbopt as nb
params = nb.ParameterBuffer()
p = params.create_parameter([100], name="p")
opt = nb.optimizer.Momentum(0.1, 0.9, parameters=params)
p.grad = p.value
opt.step()
print("stepped", flush=True)
"""

FIRST_STEP_NUMPY = """
import numpy as np
value, velocity = np.ones(100, np.float32), np.zeros(100, np.float32)
grad = value.copy()
velocity *= 0.9
velocity += grad
value -= 0.1 * velocity
print("stepped", flush=True)
"""


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

    unit = "s"
    timeout = 300

    def setup(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    def median(self, code: str) -> float:
        return statistics.median(seconds(code, self.folder.name) for _ in range(5))

    def track_cold(self) -> float:
        return seconds(FIRST_STEP, self.folder.name)

    def track_warm(self) -> float:
        seconds(FIRST_STEP, self.folder.name)
        return self.median(FIRST_STEP)

    def track_numpy(self) -> float:
        return self.median(FIRST_STEP_NUMPY)
