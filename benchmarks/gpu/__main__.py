"""Check nbopt on a GPU, whole, in one run of at most eight minutes.

  bits     steps with the bits of the CPU, over models, dtypes and rules; what the kernels are made of
  interop  arrays and streams shared with torch and CuPy
  graph    steps in captured CUDA graphs while rates change; the guard against gradients that are not finite
  speed    steps beside a device-to-device copy and beside torch

Each part runs in a process of its own, so that none takes another down. A row holds, FAILED, or was left out
for the reason that it tells; a figure is the median (with quartiles), and says whether it reaches its target.
Libraries that are not installed are left out. With NUMBA_ENABLE_CUDASIM=1 and --quick all that needs no GPU
runs in Numba's simulator, where times mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.compare import machine
from benchmarks.gpu.common import SEED, Clock, gpu
from benchmarks.gpu.report import FAILED, LEFT_OUT, Report, is_good
from nbopt.kernels.cuda.device import what_is_missing

# The parts, and their seconds: what is not begun by then is left out.
PARTS = {"interop": 50, "graph": 80, "speed": 170, "bits": 150}
GRACE = 60  # seconds more, after which a part is ended
WITHOUT = (
    "All that needs no GPU runs in a simulator, where numba-cuda is installed:\n"
    "NUMBA_ENABLE_CUDASIM=1 python -m benchmarks.gpu --quick"
)
PACKAGES = (
    "numba-cuda",
    "cuda-core",
    "cuda-bindings",
    "nvidia-nvjitlink",
    "nvidia-cuda-nvvm",
    "cupy-cuda13x",
)


def about(quick: bool) -> dict[str, Any]:
    """Return what the figures depend on."""
    found = machine()
    for name in PACKAGES:
        try:
            found["versions"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found["versions"][name] = "not installed"
    seeds = {"seed": SEED, "quick": quick, "platform": platform.platform()}
    return {**found, **seeds, "gpu": gpu()}


def run_part(part: str, quick: bool) -> list[dict[str, Any]]:
    """Run a part in this process."""
    report = Report(targets=not quick)
    with report.item(part, "the whole part"):
        importlib.import_module(f"benchmarks.gpu.{part}").run(report, quick, Clock(PARTS[part]))
    return report.rows


def run_apart(part: str, quick: bool) -> list[dict[str, Any]]:
    """Run a part in a process of its own; what it printed, it printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--json", str(path)]
        try:
            done = subprocess.run(command + ["--quick"] * quick, timeout=PARTS[part] + GRACE).returncode
            ended = f"the process ended with {done}"
        except subprocess.TimeoutExpired:
            ended = "the process took too long"
        if path.exists():
            rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
            return rows
    report = Report()
    report.add(part, "the whole part", FAILED, ended)
    return report.rows


def main(argv: list[str] | None = None) -> int:
    """Print as it goes, then write the file; return 1 if something failed, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--part", choices=PARTS, help="only this part, in this process")
    parser.add_argument("--quick", action="store_true", help="does it run? small arrays, times mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    args = parser.parse_args(argv)
    missing = what_is_missing()
    if missing:
        print(f"no CUDA device can be used: {missing}.\n{WITHOUT}")
        return 2
    start, told = time.monotonic(), about(args.quick)
    if args.part:
        rows = run_part(args.part, args.quick)
    else:
        print(json.dumps(told, indent=1))
        rows = [row for part in PARTS for row in run_apart(part, args.quick)]
    told["seconds"] = time.monotonic() - start
    if args.json:
        args.json.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")
    if not args.part:
        counts = {status: sum(row["status"] == status for row in rows) for status in ("ok", FAILED, LEFT_OUT)}
        missed = [row["name"] for row in rows if not row.get("met", True)]
        print(f"{counts} in {told['seconds']:.0f} s; targets missed: {len(missed)}")
    return int(not is_good(rows))


if __name__ == "__main__":
    sys.exit(main())
