"""Compare saving and reading a checkpoint with the least that could be done, on one disk, in one run.

`nbopt.save` must write as many bytes as `write` and `fsync` do and hash them once; `nbopt.load` must read and
hash them. The floors do just that, on the same disk: whole arrays at once, and no format. All are taken in
turn (A B C A B C ...), so that a slow minute of the disk hits all alike. A figure is a time over that of its
floor in the same round: 1.0 is the floor itself, and the bar is 1.5 for a save that is then verified. Shown
are the median over the rounds and the quartiles.

Files are read back from the memory of the system, as after a save, so the disk counts in writing alone.
``--folder`` says which disk; it needs room for three times the size. Close what else runs on the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nbopt as nb

BAR = 1.5


class Model:
    """A buffer and its optimizer, of `size` bytes together, and the floors for these bytes."""

    def __init__(self, size: int, folder: Path):
        count = size // 8 // 4  # values and velocities of float32, in four parameters
        rng = np.random.default_rng(0)
        arrays = {f"p{i}": rng.standard_normal(count, dtype=np.float32) for i in range(4)}
        self.params = nb.ParameterBuffer.from_arrays(arrays)
        self.opt = nb.optimizer.Momentum(0.1, 0.9, self.params)
        self.path, self.plain = folder / "checkpoint", folder / "plain"
        self.arrays = [self.params[name].value for name in arrays]
        self.arrays += [array for key, array in self.opt.state_dict().items() if key.endswith(".velocity")]

    def save(self) -> None:
        nb.save(self.path, self.params, self.opt)

    def restore(self) -> None:
        nb.restore(self.path, self.params, self.opt)

    def load(self) -> None:
        nb.load(self.path)

    def write(self) -> None:
        """Write and sync a new file."""
        self.plain.unlink(missing_ok=True)
        with open(self.plain, "wb", buffering=0) as file:
            for array in self.arrays:
                rest = memoryview(array).cast("B")
                while rest:
                    rest = rest[file.write(rest) :]
            os.fsync(file.fileno())

    def hash(self) -> None:
        for array in self.arrays:
            hashlib.sha256(array).digest()

    def read(self) -> None:
        with open(self.plain, "rb", buffering=0) as file:
            for array in self.arrays:
                rest = memoryview(np.empty_like(array)).cast("B")
                while rest:
                    rest = rest[file.readinto(rest) :]


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def shown(name: str, ratios: list[float], times: list[float], size: int) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    rate = size / statistics.median(times) / 1e6
    return f"{name:34} {middle:5.2f}  ({low:.2f} to {high:.2f})  {rate:7.0f} MB/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, metavar="MB", help="of the file (default: 1024)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--folder", type=Path, metavar="PATH", help="on the disk to be used")
    args = parser.parse_args()
    size = args.size << 20
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        model = Model(size, Path(folder))
        works = (model.write, model.hash, model.read, model.save, model.load, model.restore)
        names = [work.__name__ for work in works]
        for work in works:
            work()
        rounds = []
        for _ in range(args.rounds):
            rounds.append(dict(zip(names, map(seconds, works), strict=True)))
            os.sync()
    floors = {"save": ("write", "hash"), "load": ("read", "hash"), "restore": ("read", "hash")}
    print(f"{args.size} MB, {args.rounds} rounds: time over that of the floor\n")
    for name, parts in floors.items():
        times = [taken[name] for taken in rounds]
        ratios = [taken[name] / sum(taken[part] for part in parts) for taken in rounds]
        print(shown(f"{name} / {' + '.join(parts)}", ratios, times, size))
    both = [taken["save"] + taken["load"] for taken in rounds]
    floor = [taken["write"] + taken["read"] + 2 * taken["hash"] for taken in rounds]
    ratios = [one / other for one, other in zip(both, floor, strict=True)]
    print(shown("save and load / their floors", ratios, both, size))
    middle = statistics.median(ratios)
    print(f"\nbar {BAR}: {'reached' if middle <= BAR else 'not reached'}")


if __name__ == "__main__":
    main()
