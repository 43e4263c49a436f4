"""Runs each file of the folder simulator in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda import SIMULATED, needs_numba_cuda
from tests.kernels import ROOT

FILES = sorted(Path(__file__).with_name("simulator").glob("test_*.py"))


@needs_numba_cuda
@pytest.mark.skipif(SIMULATED, reason="this process runs them itself")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_in_the_simulator(path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
