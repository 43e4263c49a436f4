"""What a new process pays: the import, and the way to the end of the first step."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

FIRST_STEP = """
import time
start = time.perf_counter()
import nbopt as nb
params = nb.ParameterBuffer()
p = params.create_parameter([100], name="p")
opt = nb.optimizer.Momentum(0.1, 0.9, parameters=params)
p.grad = p.value
opt.step()
print(time.perf_counter() - start)
"""

FIRST_STEP_NUMPY = """
import time
start = time.perf_counter()
import numpy as np
value, velocity = np.ones(100, np.float32), np.zeros(100, np.float32)
grad = value.copy()
velocity *= 0.9
velocity += grad
value -= 0.1 * velocity
print(time.perf_counter() - start)
"""


def seconds(code: str, cache: str) -> float:
    """Run the code in a new process whose kernel cache is this folder; it prints its own time."""
    command = [sys.executable, "-c", code]
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def timeraw_import_nbopt() -> str:
    return "import nbopt"


def timeraw_import_numpy() -> str:
    return "import numpy"


def timeraw_import_numba() -> str:
    return "import numba"


class FirstStep:
    """From the start of the import to the end of the first step, in seconds."""

    unit = "s"

    def setup(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    def track_nbopt_empty_cache(self) -> float:
        return seconds(FIRST_STEP, self.folder.name)

    def track_nbopt_filled_cache(self) -> float:
        seconds(FIRST_STEP, self.folder.name)
        return seconds(FIRST_STEP, self.folder.name)

    def track_numpy(self) -> float:
        return seconds(FIRST_STEP_NUMPY, self.folder.name)
