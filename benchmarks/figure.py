"""The figure of the README: `python -m benchmarks.figure` measures and draws, `--draw` only draws.

Left, the time of one clipped step of momentum over the number of parameters, 100 elements each, one thread,
in turn with its peers as `benchmarks.compare` times them. Right, how many of 200,000 float64 weights differ
from those of a run with one thread, after each step of a run with more. Gradients are formed element by
element and are the same; what can differ is the norm by which they are clipped, here by dot products of
NumPy's BLAS.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).parents[1] / "docs"
DATA, PICTURE = DOCS / "readme-figure.json", DOCS / "_static" / "readme.svg"
COUNTS = (1, 3, 10, 30, 100, 300, 1000)
SIZE = 100
THREADS = (1, 2, 4)
STEPS, PARAMETERS, ELEMENTS, LIMIT = 100, 10, 20_000, 10.0
COLORS = {
    "nbopt": "#1f5fa8",
    "NumPy loop": "#7a7a7a",
    "torch fused": "#d9650f",
    "Paddle": "#2a9d62",
    "optax": "#9350b8",
}


def step_times(repeats: int) -> dict[str, list[float | None]]:
    """Return the median seconds of a step for each count, by name; None where one differs or is missing."""
    from benchmarks import compare_peers as peers
    from benchmarks.compare import NBOPT, Row, makers_of, prepare, time_in_turn

    peers.limit_threads(1)
    found: dict[str, list[float | None]] = {name: [] for name in COLORS}
    for count in COUNTS:
        row = Row(count, (SIZE,), moved=0)
        makers = makers_of(row, [name for name in COLORS if name != NBOPT])
        steps, records = prepare(makers, row.tolerance)
        time_in_turn(steps, records, repeats, 0.02)
        for name in found:
            seconds = records[name].get("seconds")
            found[name].append(statistics.median(seconds) if seconds else None)
        print(f"{count} parameters", file=sys.stderr)
    return found


def run_nbopt(threads: int) -> tuple[list[np.ndarray], str]:
    """Return the weights after each step, and the fingerprint of the last."""
    import numba

    import nbopt as nb

    numba.set_num_threads(threads)
    start, target = draws()
    params = nb.ParameterBuffer.from_arrays({f"p{i}": a for i, a in enumerate(start)})
    opt = nb.optimizer.Momentum(0.05, 0.9, params, grad_clip=nb.ClipGradByGlobalNorm(LIMIT))
    weights = []
    for _ in range(STEPS):
        params.set_grads({f"p{i}": params[f"p{i}"].value - t for i, t in enumerate(target)})
        opt.step()
        weights.append(params.to_vector())
    return weights, params.fingerprint()


def run_numpy(threads: int) -> tuple[list[np.ndarray], str]:
    """The same as a loop over the parameters."""
    from threadpoolctl import threadpool_limits

    values, target = draws()
    velocities = [np.zeros_like(a) for a in values]
    weights = []
    with threadpool_limits(threads, user_api="blas"):
        for _ in range(STEPS):
            grads = [a - t for a, t in zip(values, target, strict=True)]
            norm = sum(float(np.dot(g, g)) for g in grads) ** 0.5
            for value, velocity, grad in zip(values, velocities, grads, strict=True):
                velocity *= 0.9
                velocity += grad * (LIMIT / max(norm, LIMIT))
                value -= 0.05 * velocity
            weights.append(np.concatenate(values))
    return weights, ""


def draws() -> tuple[list[np.ndarray], list[np.ndarray]]:
    values = np.random.default_rng(0).standard_normal((2, PARAMETERS, ELEMENTS))
    return list(values[0]), list(values[1])


def differences() -> dict[str, Any]:
    """Return how many weights differ from those of one thread, after each step, and the fingerprints."""
    found: dict[str, Any] = {"differ": {}, "fingerprints": {}}
    for name, run in (("nbopt", run_nbopt), ("NumPy loop", run_numpy)):
        first = None
        for threads in THREADS:
            weights, fingerprint = run(threads)
            first = first or weights
            counts = [int(np.count_nonzero(a != b)) for a, b in zip(weights, first, strict=True)]
            if threads > 1:
                found["differ"][f"{name}, {threads} threads"] = counts
            if fingerprint:
                found["fingerprints"][str(threads)] = fingerprint
    return found


def measure(repeats: int) -> dict[str, Any]:
    """Return all that is drawn; the second half in a process that may use four threads."""
    from benchmarks.compare import machine

    times = step_times(repeats)
    script = "import json; from benchmarks.figure import differences; print(json.dumps(differences()))"
    env = {**os.environ, "NUMBA_NUM_THREADS": str(max(THREADS))}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    return {"machine": machine(), "counts": COUNTS, "seconds": times, **json.loads(done.stdout)}


def draw(data: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "nbopt", "svg.fonttype": "path", "font.size": 10})
    figure = Figure(figsize=(10.4, 4.0), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    ends = {}
    for name, seconds in data["seconds"].items():
        points = [(n, 1e6 * s) for n, s in zip(data["counts"], seconds, strict=True) if s is not None]
        if points:
            style = {"linewidth": 2.6, "zorder": 3} if name == "nbopt" else {"linewidth": 1.4}
            left.loglog(*zip(*points, strict=True), marker="o", markersize=4, color=COLORS[name], **style)
            ends[name] = points[-1]
    lowest = 0.0  # names stand apart where lines end together
    for name, (x, y) in sorted(ends.items(), key=lambda end: end[1][1]):
        lowest = max(y, 1.9 * lowest)
        left.text(1.25 * x, lowest, name, va="center", color=COLORS[name])
    left.set(xlabel="parameters of 100 elements", ylabel="one clipped step (µs)", xlim=(0.8, 8000))
    left.set_title("Time of a step, one thread", loc="left")
    most = PARAMETERS * ELEMENTS
    for name, counts in data["differ"].items():
        ours = name.startswith("nbopt")
        line = {
            "color": COLORS["nbopt" if ours else "NumPy loop"],
            "linestyle": "-" if "2" in name else "--",
        }
        shares = [100 * count / most for count in counts]
        right.plot(range(1, len(shares) + 1), shares, linewidth=2.6 if ours else 1.4, label=name, **line)
    prints = data["fingerprints"]
    told = "\n".join(f"{threads} thread{'s' * (threads != '1')}: {prints[threads]}" for threads in prints)
    right.margins(y=0.1)
    right.text(0.98, 0.12, f"nbopt's fingerprints\n{told}", ha="right", transform=right.transAxes, fontsize=8)
    right.set(xlabel="step", ylabel="weights that differ (%)")
    right.set_title("Weights unlike those of one thread", loc="left")
    right.legend(frameon=False, loc="center right", fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figure", description=__doc__)
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="rounds (default: 15)")
    args = parser.parse_args(argv)
    if not args.draw:
        DATA.write_text(json.dumps(measure(args.repeats), indent=1) + "\n", encoding="utf-8")
    draw(json.loads(DATA.read_text(encoding="utf-8")), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
