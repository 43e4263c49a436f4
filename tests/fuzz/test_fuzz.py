"""Random calls in random order, each compared with a model.

The default runs are drawn anew only when this code or Hypothesis changes, so they are the same on every
machine. The long form draws at random. A failure prints the calls that lead to it, as few as they can be.
"""

import os

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.keeping import FullMachine

RUNS, RULES = 60, 50  # some runs end early
LONG_RUNS = 20_000
# Parts of the same kind differ by their names, from which the draws follow.
PARTS = {
    "norm a": {"normed": True},
    "norm b": {"normed": True},
    "norm c": {"normed": True},
    "plain": {"normed": False},
    "single a": {"dtype": np.dtype("float32")},
    "single b": {"dtype": np.dtype("float32")},
}


def play(part, runs, folder, counted, **options):
    machine = type(f"Machine {part}", (FullMachine,), {**PARTS[part], "folder": folder})
    made = settings(max_examples=runs, stateful_step_count=RULES, deadline=None, **options)
    run_state_machine_as_test(machine, settings=made)
    counted("fuzz runs", machine.runs)
    counted("fuzz rules", machine.rules)


@pytest.fixture(autouse=True)
def without_a_disk(monkeypatch):
    """Waiting for it is half the time; that files are synced is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("part", PARTS)
def test_random_calls(tmp_path, counted, part):
    play(part, RUNS, tmp_path, counted, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_many_random_calls(tmp_path, counted, part):
    play(part, LONG_RUNS // len(PARTS), tmp_path, counted, derandomize=False)
