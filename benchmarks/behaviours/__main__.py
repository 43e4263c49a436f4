"""Write the table of docs/contract.rst: `python -m benchmarks.behaviours > docs/behaviours-table.rst`.

Every cell is the answer of the library itself, in this run. A peer that is not installed is left out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import re
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType

import nbopt as nb
from benchmarks.behaviours.cases import CASES, Case

PEERS = {"nbopt": "nbopt", "torch": "torch", "Paddle": "paddlepaddle"}


def load() -> dict[str, ModuleType]:
    """Return the modules of the peers that are installed, by name."""
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.import_module(f"benchmarks.behaviours.{name.lower()}_peer")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("benchmarks"):
                raise
            print(f"{name} is not installed", file=sys.stderr)
    return found


def answer(peer: ModuleType, case: Case) -> str:
    """Return what a library does, in words; a dash where it has nothing to do it with."""
    method = getattr(peer, case.method, None)
    if method is None:
        return "–"
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return method(*case.arguments)
        except Exception as error:
            sentence = re.split(r"[;.] |, but", str(error))[0]
            return type(error).__name__ + (f": {sentence}" if isinstance(error, nb.NboptError) else "")


def rows(peers: dict[str, ModuleType]) -> list[list[str]]:
    return [[case.about, case.right, *(answer(peer, case) for peer in peers.values())] for case in CASES]


def version(name: str) -> str:
    return nb.__version__ if name == "nbopt" else importlib.metadata.version(PEERS[name])


def as_table(peers: dict[str, ModuleType]) -> str:
    """Return the table in reStructuredText."""
    head = ["Input", "Right", *(f"{name} {version(name)}".partition("+")[0] for name in peers)]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for cells in [head, *rows(peers)]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_table(load()))
