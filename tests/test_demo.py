"""The demonstration and the command line around it, as a user runs them."""

from __future__ import annotations

import math
import os
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


@pytest.fixture(scope="module")
def short() -> demo.DemoResult:
    return demo.run(epochs=3, quiet=True)


def test_default_run_reads_the_held_out_fifth() -> None:
    result = demo.run(quiet=True)
    assert result.accuracy >= 0.97
    assert result.history.train_accuracy[-1] >= 0.99


def test_split_holds_out_a_stratified_fifth() -> None:
    digits = demo.Digits.load()
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert len(digits.test_labels) == math.ceil(1797 / 5)
    assert digits.train_images.dtype == np.float32
    counts = np.bincount(digits.test_labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_history_tells_what_happened(short: demo.DemoResult) -> None:
    history = short.history
    assert len(history.train_loss) == len(history.test_accuracy) == 3
    steps = 3 * math.ceil(1437 / 32)
    assert len(history.grad_norm) == len(history.weight_grad_norm) == steps
    assert short.opt.step_count == steps
    assert short.accuracy == history.test_accuracy[-1]
    assert history.train_loss[-1] < history.train_loss[0]
    # The norm over all gradients, the optimizer's own, is no less than that over the weights.
    assert np.all(history.grad_norm >= history.weight_grad_norm * (1 - 1e-5))
    assert 0.0 < history.clipped_share < 1.0


def test_biases_have_their_own_policy(short: demo.DemoResult) -> None:
    assert list(short.params) == [f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")]
    for name, parameter in short.params.items():
        bias = name.endswith(".bias")
        assert parameter.learning_rate == (2.0 if bias else 1.0)
        assert parameter.need_clip is not bias
        assert (parameter.regularizer == nb.regularizer.L2Decay(0.0)) is bias


def test_hand_written_gradients_are_right() -> None:
    params = nb.ParameterBuffer(dtype="float64", seed=3)
    network = demo.Network(params, widths=(5, 7, 6, 4))
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(9, 5)), rng.integers(0, 4, size=9)
    for bias in network.biases:  # away from the kink of ReLU, where a dead row would sit
        bias.value[:] = rng.normal(scale=0.3, size=bias.shape)
    loss = network.backward(network.forward(images), labels)
    assert loss == pytest.approx(network.evaluate(images, labels)[0], rel=1e-12)
    for name, parameter in params.items():
        for index in np.ndindex(parameter.shape):
            numeric, kept, h = 0.0, parameter.value[index], 1e-6
            for sign in (1.0, -1.0):
                parameter.value[index] = kept + sign * h
                numeric += sign * network.evaluate(images, labels)[0] / (2.0 * h)
            parameter.value[index] = kept
            assert parameter.grad[index] == pytest.approx(numeric, rel=1e-5, abs=1e-8), (
                name,
                index,
            )


def test_same_seed_same_bits_other_seed_others(short: demo.DemoResult) -> None:
    assert demo.run(epochs=3, quiet=True).fingerprint == short.fingerprint
    assert demo.run(epochs=3, seed=1, quiet=True).fingerprint != short.fingerprint


def test_blas_threads_are_given_back() -> None:
    import threadpoolctl

    def counts() -> list[int]:
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]

    demo.run(epochs=1, quiet=True)
    before = counts()
    demo.run(epochs=1, quiet=True)
    assert counts() == before


def test_quiet_says_nothing_and_loud_shows_table_and_bar(capfd: pytest.CaptureFixture[str]) -> None:
    demo.run(epochs=1, quiet=True)
    assert capfd.readouterr() == ("", "")
    demo.run(epochs=1)
    out, err = capfd.readouterr()
    for name in ("fc1.weight", "fc3.bias"):
        assert name in out
    assert "1/1" in err
    assert "accuracy=" in err
    assert "loss=" in err


def test_picture_does_not_touch_the_users_backend(
    short: demo.DemoResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    demo.draw(short, tmp_path / "a.png")
    assert "matplotlib.pyplot" not in sys.modules
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("batch_size", [1000, 1437])
def test_batches_that_leave_a_rest_or_are_everything(batch_size: int) -> None:
    result = demo.run(epochs=1, batch_size=batch_size, quiet=True)
    assert len(result.history.grad_norm) == math.ceil(1437 / batch_size)


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
        (["demo", "--colour", "red"], "--colour"),
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


def test_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupt)
    assert main(["demo", "--no-picture"]) == 130
    assert capsys.readouterr() == ("", "python -m nbopt demo: error: interrupted\n")


def test_failure_that_is_no_mistake_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(*arguments: object, **options: object) -> None:
        raise nb.errors.NonFiniteGradientError("gradient of 'fc1.weight' is not finite")

    monkeypatch.setattr(demo, "run", diverge)
    assert main(["demo", "--no-picture"]) == 1
    assert "fc1.weight" in capsys.readouterr().err


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
    for word in ("--epochs", "--batch-size", "--seed", "--output", "--no-picture", "--quiet"):
        assert word in special.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"nbopt {nb.__version__}\n"
