"""The demonstration saved, interrupted and continued."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import nbopt as nb
from nbopt import demo
from nbopt.__main__ import main
from nbopt.demo import training
from nbopt.demo.progress import Progress
from nbopt.errors import CheckpointError, HyperparameterError
from tests.kernels import ROOT

for package in ("sklearn", "tqdm", "matplotlib", "threadpoolctl"):
    pytest.importorskip(package)

either = pytest.mark.parametrize("weight_norm", [False, True], ids=["plain", "weight norm"])


class Stop(Exception):
    """Ends a run in the middle of an epoch."""


def stopped(path: Path, at_step: int, monkeypatch: pytest.MonkeyPatch, **options: int) -> None:
    """Run until a step is about to be taken, and end there."""
    backward = training.Network.backward
    count = iter(range(10_000))

    def stop(network: demo.Network, *arguments: object) -> float:
        if next(count) == at_step:
            raise Stop
        return backward(network, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training.Network, "backward", stop)
        with pytest.raises(Stop):
            demo.run(**options, quiet=True, save=path)


@either
@pytest.mark.parametrize("at_step", [0, 44, 45, 100])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    at_step: int, weight_norm: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 3, "seed": 2, "weight_norm": weight_norm}
    stopped(tmp_path / "run", at_step, monkeypatch, **options)
    whole = demo.run(**options, quiet=True)
    again = demo.run(**options, quiet=True, resume=tmp_path / "run", save=tmp_path / "run")
    assert again.fingerprint == whole.fingerprint
    assert again.accuracy == whole.accuracy
    for name, values in vars(whole.history).items():
        np.testing.assert_array_equal(vars(again.history)[name], values)
    # What has ended is shown again.
    assert demo.run(**options, quiet=True, resume=tmp_path / "run").fingerprint == whole.fingerprint


def test_a_run_goes_on_with_its_own_arguments_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(tmp_path / "run", 50, monkeypatch, epochs=2)
    with pytest.raises(CheckpointError, match=r"of a run with epochs=2, .*seed=0.*, not epochs=3, "):
        demo.run(epochs=3, quiet=True, resume=tmp_path / "run")
    assert demo.saved_setting(tmp_path / "run", {"seed": 0})["epochs"] == 2
    with pytest.raises(HyperparameterError, match=r"epochs is 2 in '.*', which cannot go on with 3"):
        demo.saved_setting(tmp_path / "run", {"epochs": 3})
    nb.save(tmp_path / "other", nb.ParameterBuffer.from_arrays({"w": [1.0]}))
    with pytest.raises(CheckpointError, match="holds no run of the demo"):
        demo.saved_setting(tmp_path / "other", {})


def test_saving_changes_nothing(tmp_path: Path) -> None:
    plain, saved = (demo.run(epochs=1, quiet=True, save=path) for path in (None, tmp_path / "run"))
    assert plain.fingerprint == saved.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# A process that was started in the background ignores Ctrl-C, and so would its children.
COMMAND = (
    "import signal, sys; from nbopt.__main__ import main;"
    "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
)


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo in a process of its own, which ends with the block."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "demo", "--no-picture", "--quiet", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_interrupted_and_resumed_from_the_command_line(how: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    deadline = time.monotonic() + 300
    with started(tmp_path, "--epochs", "40", "--weight-norm", "--save", path.name) as process:
        while not path.exists() or not len(nb.load(path)["progress/per_epoch"]):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        out, err = process.communicate()
    assert out == ""
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err == f"python -m nbopt demo: error: interrupted; go on with --resume {path.name}\n"
    assert 0 < len(nb.load(path)["progress/per_epoch"]) < 40
    with started(tmp_path, "--resume", path.name) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    fingerprint = re.search("fingerprint: (.*)", out)
    assert fingerprint
    assert fingerprint[1] == demo.run(epochs=40, weight_norm=True, quiet=True).fingerprint
    assert len(nb.load(path)["progress/per_epoch"]) == 40
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--save", "missing/run"], "no such folder"),
        (["--save", "."], "Is a directory"),
        (["--save", ""], "path of a checkpoint is empty"),  # as of a variable of the shell that is not set
        (["--resume", ""], "path of a checkpoint is empty"),
        (["--compare", "--save", ""], "cannot go with --compare"),
        (["--resume", "missing"], "No such file"),
        (["--resume", "picture.png"], "cannot be used"),
        (["--resume", "other"], "holds no run of the demo"),
        (["--resume", "similar"], "holds no run of the demo"),
        (["--resume", "run", "--epochs", "3"], "epochs is 1 in 'run', which cannot go on with 3"),
        (["--resume", "run", "--weight-norm"], "weight norm is False in 'run'"),
        (["--resume", "run", "--save", "run"], "not allowed with"),
        (["--compare", "--save", "run"], "cannot go with --compare"),
        (["--compare", "--resume", "run"], "cannot go with --compare"),
    ],
)
def test_mistakes_get_one_line_and_status_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("picture.png").write_bytes(b"\x89PNG" + bytes(100))
    nb.save("other", nb.ParameterBuffer.from_arrays({"w": [1.0]}))
    nb.save("similar", progress=Progress({"seed": 0, "width": 3}))
    demo.run(epochs=1, quiet=True, save="run")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    try:
        status: object = main(["demo", "--quiet", "--no-picture", *arguments])
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
