"""The demonstration from the command line, and what is common to all commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nbopt as nb
from nbopt import demo
from nbopt.__main__ import main

for package in ("sklearn", "tqdm", "matplotlib", "threadpoolctl"):
    pytest.importorskip(package)

ROOT = Path(nb.__file__).resolve().parents[1]


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the package in reach, and return its output and status."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def fields(text: str) -> dict[str, str]:
    """Return the `name: value` lines at the end of the demo's standard output."""
    keys = ("test accuracy", "fingerprint", "picture")
    pairs = (line.partition(": ") for line in text.splitlines())
    return {key: value for key, _, value in pairs if key in keys}


def test_command_line(tmp_path: Path) -> None:
    done = python("-m", "nbopt", "demo", "--epochs", "2", "--output", "tmp.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "2/2" in done.stderr
    assert "fc2.weight" in done.stdout
    told = fields(done.stdout)
    assert 0.9 < float(told["test accuracy"]) <= 1.0
    assert len(told["fingerprint"]) >= 16
    assert told["picture"] == "tmp.png"
    from matplotlib.image import imread

    picture = imread(tmp_path / "tmp.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1200
    for panel in np.array_split(picture, 3, axis=1):
        assert len(np.unique(panel.reshape(-1, panel.shape[-1]), axis=0)) > 50


def test_weight_norm(tmp_path: Path) -> None:
    done = python("-m", "nbopt", "demo", "--weight-norm", "--epochs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weight norm, dim=1") == 2
    assert done.stdout.count("v: L2 0, g: inherited") == 2  # the decay acts on g alone
    assert "training with weight norm" in done.stderr
    told = fields(done.stdout)
    assert 0.9 < float(told["test accuracy"]) <= 1.0
    assert told["fingerprint"] == demo.run(epochs=2, weight_norm=True, quiet=True).fingerprint
    assert told["picture"] == "nbopt-demo.png"
    assert [path.name for path in tmp_path.iterdir()] == ["nbopt-demo.png"]


def test_comparison(tmp_path: Path) -> None:
    command = ("-m", "nbopt", "demo", "--compare", "--epochs", "2", "--seed", "3", "--batch-size", "64")
    done = python(*command, "--output", "both.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    both = demo.compare(2, 64, 3, quiet=True)
    _, table, rest = done.stdout.partition(f"{both}\n")
    *why, picture = rest.splitlines()
    assert table
    assert re.search("need not win here.*rate is too high.*gallery", " ".join(why))
    assert picture == "picture: both.png"
    assert [path.name for path in tmp_path.iterdir()] == ["both.png"]
    demo.draw_comparison(both, tmp_path / "again.png")
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_comparison_is_the_same_for_any_number_of_threads(tmp_path: Path) -> None:
    command = ("-m", "nbopt", "demo", "--compare", "--epochs", "2", "--no-picture", "--quiet")
    for threads in ("1", "2"):
        environment = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        done = python(*command, cwd=tmp_path, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{demo.compare(epochs=2, quiet=True)}\n"
    assert list(tmp_path.iterdir()) == []


def test_command_line_fingerprint_is_the_same_for_any_number_of_threads(tmp_path: Path) -> None:
    command = ("-m", "nbopt", "demo", "--epochs", "2", "--no-picture", "--quiet")
    told = []
    for threads in ("1", "2", "2"):
        environment = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        done = python(*command, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        told.append(done.stdout)
    assert set(fields(told[0])) == {"test accuracy", "fingerprint"}
    assert told[0] == told[1] == told[2]
    assert list(tmp_path.iterdir()) == []
    assert demo.run(epochs=2, quiet=True).fingerprint == fields(told[0])["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["demo", "--epochs", "0"], "epochs must be >= 1, got 0"),
        (["demo", "--epochs", "many"], "'many'"),
        (["demo", "--epochs"], "--epochs"),
        (["demo", "--batch-size", "-3"], "batch size must be >= 1, got -3"),
        (["demo", "--batch-size", "1438"], "<= 1437"),
        (["demo", "--seed", "-1"], "seed must be >= 0, got -1"),
        (["demo", "--output", "missing/x.png"], "no folder missing"),
        (["demo", "--output", "picture.txt"], ".png"),
        (["demo", "--output", "folder.png"], "is a folder"),
        (["demo", "--output", "x.png", "--no-picture"], "not allowed with"),
        (["demo", "--epoch", "1"], "--epoch"),
        (
            ["demo", "--colour", "red"],
            "demo: error: unrecognized arguments: --colour red (see python -m nbopt demo --help)",
        ),
        (["demo", "--weight-norm", "--compare"], "not allowed with"),
        (["demo", "--weight-norm=1"], "ignored explicit argument"),
        (["demo", "--weight-norm", "1"], "unrecognized arguments: 1"),
        (["demo", "--compare", "plain"], "unrecognized arguments: plain"),
        (["demo", "--comp"], "--comp"),
        (["demo", "--compare", "--epochs", "0"], "epochs must be >= 1, got 0"),
        (["demo", "--compare", "--batch-size", "1438"], "<= 1437"),
        (["demo", "--compare", "--output", "picture.txt"], ".png"),
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
    (tmp_path / "folder.png").mkdir()
    try:
        status: object = main(arguments)
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("python -m nbopt")
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = python("-m", "nbopt", "demo", "--epochs", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["python -m nbopt demo: error: epochs must be >= 1, got 0"]


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("sklearn", "scikit-learn"),
        ("tqdm", "tqdm"),
        ("matplotlib", "matplotlib"),
        ("threadpoolctl", "threadpoolctl"),
    ],
)
def test_missing_package_is_named_with_the_line_that_mends_it(
    module: str, package: str, tmp_path: Path
) -> None:
    block = (
        f"import sys; sys.modules[{module!r}] = None; from nbopt.__main__ import main; "
        "sys.exit(main(['demo', '--epochs', '1']))"
    )
    done = python("-c", block, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"python -m nbopt demo: error: the demo needs {package}, which is not installed: "
        'pip install "nbopt[demo]"\n'
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "full.png").symlink_to("/dev/full")
    done = python("-m", "nbopt", "demo", "--epochs", "1", "--quiet", "--output", "full.png",
                  cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


@pytest.mark.parametrize(
    ("flags", "name"), [([], "run"), (["--weight-norm"], "run"), (["--compare"], "compare")]
)
@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        # no mistake in what was asked for
        (nb.errors.NonFiniteGradientError("gradient of 'fc1.weight' is not finite"), 1, "fc1.weight"),
    ],
)
def test_interrupt_and_failure_are_one_line(
    flags: list[str],
    name: str,
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(demo, name, fail)
    assert main(["demo", "--no-picture", *flags]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m nbopt demo: error: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="a shell pipe")
def test_reader_that_goes_away_leaves_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys, subprocess; p = subprocess.Popen([sys.executable, '-m', 'nbopt', 'demo', "
        "'--epochs', '1', '--no-picture', '--quiet'], stdout=subprocess.PIPE); "
        "p.stdout.close(); sys.exit(p.wait())"
    )
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")


def test_help_is_worth_reading_and_costs_no_heavy_import(tmp_path: Path) -> None:
    general = python("-m", "nbopt", "--help", cwd=tmp_path)
    assert general.returncode == 0
    assert "demo" in general.stdout
    assert "Exit status" in general.stdout
    code = (
        "import sys\nfrom nbopt.__main__ import main\nimport nbopt.demo\n"
        "try:\n    main(['demo', '--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'sklearn', 'matplotlib', 'tqdm', 'threadpoolctl'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    special = python("-c", code, cwd=tmp_path)
    assert special.returncode == 0, special.stderr
    words = [
        "epochs",
        "batch-size",
        "seed",
        "weight-norm",
        "compare",
        "output",
        "no-picture",
        "quiet",
        "save",
    ]
    for word in (*words, "resume"):
        assert f"\n  --{word} " in special.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"nbopt {nb.__version__}\n"
