"""Compare one step of nbopt with the same step in NumPy, torch, Paddle and optax, in one run.

All run in this process and in turn (A B C A B C ...), so that a slow minute of the machine hits all alike. A
turn is a pause, one untimed step, and a batch of steps. A figure is the time of the peer over the time of
nbopt in the same round: above 1, nbopt is faster. Shown are the median over the rounds and the quartiles.
Before a row is timed, every library takes three steps and must arrive where nbopt does.

Rows of Adam and AdamW, of steps inside compiled code, of the parameters of a torch module, and of the way
from the start of Python to the end of the first step stand at the end; these last run in processes of their
own.

Two floors move as many bytes as the step must, in as much memory: a copy, and an addition in place. A step
moves 24 bytes per element of float32 (it reads the gradient for the norm, reads gradient, value and velocity,
writes the last two), or 20 where nothing asks for the norm, and 32 with weight norm (it reads v for the norm,
and writes w) or for Adam. A ratio of 0.8 is four fifths of that speed. In large memory a copy often reads
what it overwrites, which is not counted: a step in place can then beat it.

Close what else runs on the machine. The rows of 25 million elements take 4 GB; optax compiles the row of
own policies for up to a minute. A peer that is not installed is left out and said to be, and a remark tells
when one used more threads than it should. A bar, where there is one, is what nbopt is held to.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import nbopt as nb
from benchmarks import compare_adam as adam
from benchmarks import compare_peers as peers
from benchmarks import compare_start as start
from benchmarks import compare_torch as module
from benchmarks import compare_weight_norm as weight_norm
from benchmarks.compare_peers import DECAY, PACKAGES, PEERS, Parameter, Runner, Task

NBOPT, ONE = "nbopt", "nbopt, one policy"
FLOORS = {"copy": False, "add in place": True}
PAUSE = 0.02  # seconds; idle threads of the library before go on spinning for almost 10 ms

Steps = dict[str, Callable[[], object]]
Records = dict[str, dict[str, Any]]  # by name of the peer


@dataclass(frozen=True)
class Row:
    """What is timed; `bars` are the least ratios with one thread and with more."""

    count: int
    shape: tuple[int, ...]
    about: str = "clip, L2"
    kind: str = "step"  # of FIELDS
    dim: int | None = None  # of weight norm
    own: bool = False  # a rate, a decay and a need for clip to each parameter
    clip: bool = True
    nonfinite: str = "raise"
    moved: int = 24  # bytes per element; 0 for no floors
    held: int = 12
    bars: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    tolerance: float = 1e-4  # of the values that the peers arrive at

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def title(self) -> str:
        return f"{self.count:,} × {'×'.join(f'{n:,}' for n in self.shape)}: {self.about}"


def normed(count: int, shape: tuple[int, ...], dim: int | None, bars: tuple[float, float]) -> Row:
    """Return a row of weight norm, with its bars against torch."""
    about, kind = f"weight norm dim {dim}, clip, L2", "weight norm"
    return Row(count, shape, about, kind, dim, moved=32, held=16, bars={"torch fused": bars})


def adams(key: str, *size: Any) -> dict[str, Row]:
    """Return the rows of Adam and AdamW: one read for the norm, then four reads and three writes."""
    rows = {kind: Row(*size, f"{kind}, clip, decay", kind, moved=32, held=16) for kind in ("Adam", "AdamW")}
    return {f"{kind.lower()}-{key}": row for kind, row in rows.items()}


BIG = Row(1, (25_000_000,), bars={"torch fused": (1.15, 1.15), "Paddle": (2.1, 2.1), "optax": (1.05, None)})
BARE = replace(BIG, about="L2, guard", clip=False, bars={"torch fused": (0.78, 0.78)})
FREE = replace(BARE, about="L2, no guard", nonfinite="propagate", moved=20, bars={"torch fused": (0.9, 0.9)})
JIT = f"AdamW, clip, decay: {adam.STEPS} steps inside compiled code"
LAYERS = "layers of a torch module, {}, clip, decay"
OWN = {"torch fused": (22, 50), "Paddle": (36, 90), ONE: (1 / 1.15, 1 / 1.15)}
ROWS = {
    "10x100": Row(10, (100,), bars={"torch fused": (40, 40), "Paddle": (120, 120), "optax": (35, 35)}),
    "100x1000": Row(100, (1000,), bars={"torch fused": (16, 35), "Paddle": (60, 110)}),
    "465": Row(465, (2000,), "clip, L2, own policies", own=True, bars=OWN),
    "465-one": Row(465, (2000,)),
    "300x10000": Row(300, (10_000,), bars={"torch fused": (2.9, 5.4), "Paddle": (7, 13)}),
    "25M": BIG,
    "25M-propagate": FREE,
    "25M-raise": BARE,
    "norm": replace(BIG, about="norm", kind="norm", moved=4, held=4, bars={"float64 sum": (0.85, 0.85)}),
    "wn-4096-0": normed(1, (4096, 4096), 0, (5.3, 4.2)),
    "wn-4096-1": normed(1, (4096, 4096), 1, (3.8, 3.9)),
    # torch adds the 17 million squares in float32
    "wn-4096-None": replace(normed(1, (4096, 4096), None, (11, 8.3)), tolerance=1e-3),
    "wn-512-0": normed(1, (512, 512), 0, (1.5, 2.1)),
    "wn-512-1": normed(1, (512, 512), 1, (2.0, 2.6)),
    "wn-conv-0": normed(1, (256, 256, 3, 3), 0, (1.7, 2.3)),
    "wn-conv-1": normed(1, (256, 256, 3, 3), 1, (5.6, 6.5)),
    "wn-100x64-0": normed(100, (64, 64), 0, (15, 15)),
    **adams("10x100", 10, (100,)),
    **adams("100x1000", 100, (1000,)),
    **adams("25M", 1, (25_000_000,)),
    "jit-10x100": Row(10, (100,), JIT, "jit", moved=0, tolerance=1e-3),
    "torch-mlp": Row(
        50, (16, 16), LAYERS.format("Momentum"), "module", moved=0, bars={"torch fused": (8, 8)}
    ),
    "torch-mlp-adamw": Row(
        50, (16, 16), LAYERS.format("AdamW"), "module AdamW", moved=0, bars={"torch fused": (5, 5)}
    ),
    "start-cold": Row(1, (100,), "from the start of Python, nothing on disk", "start-cold", moved=0),
    "start-warm": Row(1, (100,), "from the start of Python", "start-warm", moved=0),
}
# by kind of row: nbopt, and who is compared with it
FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "step": (peers.nbopt_momentum, PEERS),
    "norm": (peers.nbopt_norm, {"float64 sum": peers.fastmath_norm}),
    "weight norm": (weight_norm.nbopt_weight_norm, weight_norm.PEERS),
    "Adam": (functools.partial(adam.nbopt_adam, kind=nb.optimizer.Adam), adam.peers_of(decoupled=False)),
    "AdamW": (functools.partial(adam.nbopt_adam, kind=nb.optimizer.AdamW), adam.peers_of(decoupled=True)),
    "jit": (adam.nbopt_jit, adam.JIT_PEERS),
    "module": (functools.partial(module.adopted, decoupled=False), module.peers_of(decoupled=False)),
    "module AdamW": (functools.partial(module.adopted, decoupled=True), module.peers_of(decoupled=True)),
    "start-cold": (functools.partial(start.nbopt_start, cold=True), start.PEERS),
    "start-warm": (functools.partial(start.nbopt_start, cold=False), start.PEERS),
}


def task_of(row: Row) -> Task:
    """Draw values and gradients; the limit leaves a tenth of the gradient, so that a missing clip shows."""
    draws = np.random.default_rng(0).standard_normal((row.count, 2, *row.shape), dtype=np.float32)
    params = [Parameter(*pair) for pair in draws]
    if row.own:
        shares = [i / row.count for i in range(row.count)]
        params = [
            Parameter(p.value, p.grad, 0.5 + share, DECAY * 2 * share, i % 5 != 0)
            for i, (p, share) in enumerate(zip(params, shares, strict=True))
        ]
    limit = 0.1 * (row.count * row.size) ** 0.5 if row.clip else None
    return Task(params, row.own, limit, row.nonfinite, row.dim)


def makers_of(row: Row, chosen: list[str]) -> dict[str, Callable[[], Runner]]:
    """Return who takes part in a row, nbopt first."""
    task, elements = task_of(row), row.count * row.size
    ours, theirs = FIELDS[row.kind]
    steps = {NBOPT: ours} | {name: theirs[name] for name in theirs if name in chosen or name not in PEERS}
    makers: dict[str, Any] = {name: functools.partial(make, task) for name, make in steps.items()}
    for name, add in FLOORS.items() if row.moved else ():
        makers[name] = functools.partial(peers.stream, row.moved * elements, row.held * elements, add)
    if ONE in row.bars:  # other mathematics, which its own row compares
        makers[ONE] = lambda: Runner(peers.nbopt_momentum(task._replace(own=False)).step)
    return makers


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Return the largest difference, relative for elements above 1."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1))) for a, b in pairs)


def prepare(makers: dict[str, Callable[[], Runner]], tolerance: float) -> tuple[Steps, Records]:
    """Make everyone, take three steps and compare; return the steps that may be timed, and the records."""
    steps, records, ours = {}, {name: {} for name in makers}, []
    for name, make in makers.items():
        try:
            runner = make()
        except ImportError:
            records[name]["remark"] = "not installed"
            continue
        for _ in range(3):
            runner.step()
        if runner.read is not None:
            reached = runner.read()
            ours = ours or reached
            off = records[name]["difference"] = difference(ours, reached)
            if not off <= tolerance:
                records[name]["remark"] = f"differs by {off:.1e}, not timed"
                continue
        steps[name] = runner.step
    return steps, records


def time_in_turn(steps: Steps, records: Records, rounds: int, seconds: float) -> None:
    """Time a batch of everyone once per round: seconds per step, and how many threads were at work."""
    timers = {name: timeit.Timer(step) for name, step in steps.items()}
    calls = {name: max(1, round(seconds / min(timer.repeat(3, 1)))) for name, timer in timers.items()}
    for name in timers:
        records[name].update(seconds=[], threads=[])
    for _ in range(rounds):
        for name, timer in timers.items():
            time.sleep(PAUSE)
            steps[name]()
            cpu, elapsed = time.process_time(), timer.timeit(calls[name])
            records[name]["seconds"].append(elapsed / calls[name])
            records[name]["threads"].append((time.process_time() - cpu) / elapsed)


def judge(row: Row, threads: int, records: Records, bars: bool) -> None:
    """Add to the records what follows from the times."""
    for name, record in records.items():
        if "seconds" not in record:
            continue
        used = statistics.median(record["threads"])
        if used > threads + 0.25:
            record["remark"] = f"used {used:.1f} threads"
        ratios = [a / b for a, b in zip(record["seconds"], records[NBOPT]["seconds"], strict=True)]
        low, record["ratio"], high = statistics.quantiles(ratios, n=4, method="inclusive")
        record["quartiles"] = [low, high]
        bar = row.bars.get(name, (None, None))[min(threads, 2) - 1]
        if bars and bar is not None:
            record.update(bar=bar, met=record["ratio"] >= bar)


def measure(key: str, threads: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the result of one row."""
    row = ROWS[key]
    if args.quick:
        longest = 1000 if len(row.shape) == 1 else 10
        row = replace(row, count=min(row.count, 20), shape=tuple(min(n, longest) for n in row.shape))
    steps, records = prepare(makers_of(row, args.peers), row.tolerance)
    time_in_turn(steps, records, args.repeats, 0.002 if args.quick else 0.04)
    judge(row, threads, records, bars=not args.quick)
    median = statistics.median(records[NBOPT]["seconds"])
    about = {"row": key, "title": row.title, "threads": threads, "bytes_per_element": row.moved}
    return {**about, "median_seconds": median, "peers": records}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor() or platform.machine()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "load": load, "versions": versions}


def duration(seconds: float) -> str:
    scale, unit = (1e6, "µs") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1, "s")
    return f"{seconds * scale:.3g} {unit}"


def number(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def spread(record: dict[str, Any]) -> str:
    return "–".join(map(number, record["quartiles"]))


def print_result(result: dict[str, Any]) -> None:
    count, median = result["threads"], duration(result["median_seconds"])
    moved = result["bytes_per_element"]
    floor = f"; floor {moved} bytes/element" if moved else ""
    print(f"\n{result['title']}; {count} thread{'s' * (count > 1)}; nbopt {median}{floor}")
    for name, record in result["peers"].items():
        cells = ["", "", "", ""]
        if "ratio" in record:
            cells[:2] = number(record["ratio"]), spread(record)
        if "bar" in record:
            cells[2:] = f"bar {record['bar']:.3g}", "met" if record["met"] else "NOT MET"
        if name != NBOPT or "remark" in record:
            line = "  {:<18}{:>7}  {:<14}{:>9} {:<8}".format(name, *cells)
            print((line + record.get("remark", "")).rstrip(), flush=True)


def rst(results: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Return a table of rows and peers, to be included in a page of the documentation."""
    heads = [*FLOORS, *PEERS]
    table = [["Step", "Threads", "nbopt", "Bytes per element", *heads, "Other"]]
    for result in results:
        cells = {
            name: f"{number(r['ratio'])} ({spread(r)})" if "ratio" in r else r["remark"]
            for name, r in result["peers"].items()
        }
        first = [result["title"], result["threads"], duration(result["median_seconds"])]
        other = "; ".join(f"{name}: {cells[name]}" for name in cells if name not in (NBOPT, *heads))
        known = [cells.get(name, "–") for name in heads]
        table.append([*map(str, first), str(result["bytes_per_element"] or "–"), *known, other or "–"])
    cells_of = (f"   {' ' if i else '*'} - {cell}" for line in table for i, cell in enumerate(line))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    missed = [
        f"- {result['title']}, {result['threads']} thread{'s' * (result['threads'] > 1)}, against {name}: "
        f"{number(r['ratio'])}, to reach was {r['bar']:.3g}"
        for result in results
        for name, r in result["peers"].items()
        if not r.get("met", True)
    ]
    below = "\n".join(["Short of what was to be reached:", "", *missed, ""] if missed else [])
    note = f"""
{below}
Time of the peer over time of nbopt: median (quartiles) of {about["rounds"]} rounds in turn,
on {about["cores"]} cores of {about["cpu"]};
{versions}.
"""
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *cells_of, note])


def parse(argv: list[str] | None) -> argparse.Namespace:
    titles = "\n".join(f"  {key:<14} {row.title}" for key, row in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        epilog=f"rows:\n{titles}\n\npeers:\n  {', '.join(PEERS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, names = parser.add_argument, {"nargs": "+", "metavar": "NAME"}
    add("--rows", choices=ROWS, **names, help="only these rows (default: all; with --quick no start-*)")
    add("--peers", choices=PEERS, default=list(PEERS), **names, help="only these peers")
    add("--threads", default="1,2", metavar="N,M", help="numbers of threads (default: 1,2)")
    add("--repeats", type=int, metavar="N", help="rounds, at least 2 (default: 15; with --quick 3)")
    add("--quick", action="store_true", help="does it run? at most 20 × 1,000 elements, no bars")
    add("--json", type=Path, metavar="PATH", help="write everything there, raw times included")
    add("--rst", type=Path, metavar="PATH", help="write a table for the documentation there")
    args = parser.parse_args(argv)
    args.repeats = args.repeats or (3 if args.quick else 15)
    has_torch = importlib.util.find_spec("torch") is not None
    if not has_torch and any(key.startswith("torch-") for key in args.rows or []):
        parser.error("rows torch-* need torch")
    left_out = ("start-",) * args.quick + ("torch-",) * (not has_torch)
    args.rows = args.rows or [key for key in ROWS if not key.startswith(left_out)]
    if args.repeats < 2:
        parser.error("--repeats must be at least 2")
    return args


def main(argv: list[str] | None = None) -> int:
    """Print as it goes, then write the files; return 1 if a peer arrived elsewhere."""
    args = parse(argv)
    about = {**machine(), "rounds": args.repeats, "quick": args.quick}
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load']}; {args.repeats} rounds")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    results = []
    for threads in map(int, args.threads.split(",")):
        peers.limit_threads(threads)
        for key in args.rows:
            results.append(measure(key, threads, args))
            print_result(results[-1])
    if args.json:
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    if args.rst:
        args.rst.write_text(rst(results, about))
    records = [record for result in results for record in result["peers"].values()]
    return int(any("differs" in record.get("remark", "") for record in records))


if __name__ == "__main__":
    sys.exit(main())
