"""Every case of the table has the bits of the CPU, whatever the order in which threads run."""

import random

import pytest

from tests.cuda.simulator import turns
from tests.cuda.table import CASES, EACH


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_the_device_changes_no_bit(name, dtype):
    assert CASES[name].play(dtype, "cuda") == CASES[name].play(dtype, "cpu")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["frozen halves", "rescale factors under one clip"])
def test_the_order_of_threads_changes_no_bit(name, seed, monkeypatch):
    """With every kind of sum: of blocks, of slices, of pieces, tiles and clips that the last block folds."""
    case = CASES[name]
    expected = case.play("float32", "cuda")
    monkeypatch.setattr(turns, "DRAW", random.Random(seed))
    assert case.play("float32", "cuda") == expected
