"""`python -m nbopt inspect FILE`: what is there, what is damaged, and what is no checkpoint."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import nbopt as nb
from nbopt.__main__ import main
from nbopt.checkpoint.listing import describe


@pytest.fixture
def path(tmp_path):
    params = nb.ParameterBuffer.from_arrays({"fc.weight": np.ones((2, 3), np.float32), "b": np.float32(2.0)})
    schedule = nb.optimizer.lr.NoamDecay(64, 10)
    opt = nb.optimizer.Momentum(schedule, 0.9, params)
    params["b"].clear_grad(set_to_zero=False)
    nb.save(tmp_path / "run.safetensors", params, opt, rate=schedule)
    return tmp_path / "run.safetensors"


def test_everything_that_was_saved_is_listed(path, capsys):
    found = describe(path)
    assert [(thing["kind"], thing["keyword"]) for thing in found["objects"]] == [
        ("ParameterBuffer", None),
        ("Optimizer", None),
        ("NoamDecay", "rate"),
    ]
    buffer, opt, _ = found["objects"]
    assert buffer["arrays"]["fc.weight"] == {
        "dtype": "float32",
        "shape": [2, 3],
        "bytes": 24,
        "damaged": False,
    }
    assert buffer["absent"] == ["b"]
    assert opt["values"]["rule"] == "momentum"
    assert found["bytes"] == path.stat().st_size
    assert {key for thing in found["objects"] for key in thing["arrays"]} <= set(nb.load(path))

    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for word in ("fc.weight", "2x3", "24 bytes", "scalar", "rule = 'momentum'", "saved as 'rate'"):
        assert word in text
    assert "without a gradient: b" in text
    assert "DAMAGED" not in text


def test_names_do_not_steer_a_terminal(tmp_path, capsys):
    nb.save(tmp_path / "run", nb.ParameterBuffer.from_arrays({"a\nb\x1b[2J": [1.0], "\u03b2": [1.0]}))
    assert main(["inspect", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert r"  a\nb\x1b[2J  float64" in shown
    assert "  \u03b2 " in shown


def test_a_terminal_that_lacks_a_sign(tmp_path):
    path = tmp_path / "\u03b2"
    nb.save(path, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
    command = [sys.executable, "-m", "nbopt", "inspect", str(path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u03b2: " in done.stdout


def test_json_says_the_same(path, capsys):
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(describe(path), default=repr))


@pytest.mark.parametrize("name", ["w", "kernel:0"])
def test_damage_is_marked_and_the_status_is_1(name, tmp_path, capsys):
    path = tmp_path / "run.safetensors"
    nb.save(path, nb.ParameterBuffer.from_arrays({"b": [1.0], name: np.ones(100)}))
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x10
    path.write_bytes(data)
    assert main(["inspect", str(path)]) == 1
    (marked,) = (line for line in capsys.readouterr().out.splitlines() if "DAMAGED" in line)
    assert marked.split()[0] == name


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None])
def test_what_is_no_checkpoint_is_one_line_and_status_2(content, tmp_path, capsys):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert main(["inspect", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert str(path) in captured.err
