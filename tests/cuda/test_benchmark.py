"""The check of a GPU runs in the simulator, as far as it needs no GPU."""

import json
import os
import subprocess
import sys

import pytest

from tests.cuda import needs_numba_cuda
from tests.kernels import ROOT


@needs_numba_cuda
@pytest.mark.parametrize(
    "part", ["interop", "graph", *(pytest.param(name, marks=pytest.mark.slow) for name in ("speed", "bits"))]
)
def test_a_part_of_the_check(part, tmp_path):
    path = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--quick", "--part", part, "--json", str(path)],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    rows = json.loads(path.read_text())["rows"]
    assert {row["status"] for row in rows} == {"ok", "left out"}
