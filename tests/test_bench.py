"""`python -m nbopt bench`: every model, with figures that fit together."""

import json

import numba
import pytest

from nbopt import bench
from nbopt.__main__ import main


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "BATCH", 1e-4)


def test_the_figures_fit_together(short, capsys):
    assert main(["bench", "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["rows"]
    assert [row["model"] for row in told] == [str(model) for model in bench.SMALL]
    for row, model in zip(told, bench.SMALL, strict=True):
        assert row["elements"] == model.parameters * model.size
        assert row["bandwidth"] == pytest.approx(24 * row["elements"] / row["seconds"])
        assert row["seconds"] > 0
        assert row["share"] > 0
        assert row["threads"] == 1


def test_large_models_are_timed_with_one_thread_and_with_all(short, monkeypatch):
    model = bench.Model(1, 100_000)
    monkeypatch.setattr(bench, "SMALL", ())
    monkeypatch.setattr(bench, "LARGE", (model,))
    before = numba.get_num_threads()
    rows = list(bench.measure())
    assert [row.threads for row in rows] == sorted({1, before})
    assert numba.get_num_threads() == before


def test_the_table_is_read_from_left_to_right():
    row = bench.Measured("10 x 100", 1000, 1, 1.5e-6, 1.2e-6, 2e-6, 16e9, 0.8)
    head, rule, line = bench.table([row, row._replace(model="1 x 4,000,000", seconds=2.5e-3)]).splitlines()[
        :3
    ]
    assert len(rule) == len(head)
    assert line.split() == ["10", "x", "100", "1", "1.5", "us", "1.2", "us", "to", "2", "us", "16.0", "0.80"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5e-6, "1.5 us"), (9.99e-4, "999 us"), (0.02, "20 ms"), (3, "3 s")]
)
def test_times(seconds, text):
    assert bench._time(seconds) == text
