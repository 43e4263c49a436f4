"""Numba reads the switch of its simulator once: elsewhere these files are not collected."""

import pytest

from tests.cuda import SIMULATED

collect_ignore_glob = [] if SIMULATED else ["*.py"]


@pytest.fixture(autouse=True)
def in_turns(monkeypatch):
    """Let the threads of a block take turns."""
    from tests.cuda.simulator import turns

    turns.install(monkeypatch)
