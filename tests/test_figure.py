"""The figure of the README: what it shows was measured, and it can be drawn again."""

import json

import pytest

from benchmarks import figure


def test_what_it_shows():
    data = json.loads(figure.DATA.read_text(encoding="utf-8"))
    assert set(data["fingerprints"]) == {"1", "2", "4"}
    assert len(set(data["fingerprints"].values())) == 1
    for name, counts in data["differ"].items():
        assert (max(counts) == 0) == name.startswith("nbopt")
    assert set(data["seconds"]) == set(figure.COLORS)
    assert all(len(times) == len(data["counts"]) for times in data["seconds"].values())


def test_it_can_be_drawn_again(tmp_path):
    pytest.importorskip("matplotlib")
    figure.draw(json.loads(figure.DATA.read_text(encoding="utf-8")), tmp_path / "figure.svg")
    drawn, kept = (len(path.read_bytes()) for path in (tmp_path / "figure.svg", figure.PICTURE))
    assert 0.5 * kept < drawn < 2 * kept
