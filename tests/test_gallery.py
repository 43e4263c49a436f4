"""The gallery: every program runs, and its page, output and picture are there and fit it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nbopt as nb
from tests.kernels import ROOT

for package in ("autograd", "sklearn", "matplotlib"):
    pytest.importorskip(package)

GALLERY = ROOT / "docs" / "gallery"
NAMES = sorted(path.stem for path in GALLERY.glob("*.py"))

every_program = pytest.mark.parametrize("name", NAMES)


def read(file: str) -> str:
    return (GALLERY / file).read_text(encoding="utf-8")


def form(output: str) -> list[str]:
    """Return the words of an output, one number like another."""
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "0", output).split()


def load(name: str) -> ModuleType:
    """Import a program without running it."""
    spec = importlib.util.spec_from_file_location(name, GALLERY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_program_is_four_files_of_one_name() -> None:
    assert NAMES
    files = {path.name for path in GALLERY.iterdir() if path.is_file()}
    assert files == {f"{name}.{kind}" for name in NAMES for kind in ("py", "rst", "txt", "png")} | {
        "index.rst"
    }


def test_the_index_lists_every_page() -> None:
    entries = read("index.rst").partition("toctree::")[2].partition("..")[0]
    assert [line.strip() for line in entries.splitlines() if line.strip() and ":" not in line] == NAMES


@every_program
def test_a_page_shows_program_output_and_picture(name: str) -> None:
    shown = re.findall(r"^\.\. (\w+):: (\S+)$", read(f"{name}.rst"), re.MULTILINE)
    assert sorted(shown) == [
        ("image", f"{name}.png"),
        ("literalinclude", f"{name}.py"),
        ("literalinclude", f"{name}.txt"),
    ]


@every_program
def test_a_program_runs(name: str, tmp_path: Path) -> None:
    """A short run, in a process and a folder of its own: no warnings, and what the page shows in form."""
    from matplotlib.image import imread

    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(GALLERY / f"{name}.py"), "--quick"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert form(done.stdout) == form(read(f"{name}.txt"))
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
    picture = imread(tmp_path / f"{name}.png")
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 50
    assert picture.shape == imread(GALLERY / f"{name}.png").shape


# --- what the pages say ---------------------------------------------------------------------------


def test_weight_norm_digits() -> None:
    """Alike at the lower rate; at the higher one, weight norm alone converges."""
    program = load("weight_norm_digits")
    data = program.load()
    low, high = (
        {name: program.train(*data, rate, attr, epochs=20) for name, attr in program.ATTRS.items()}
        for rate in program.RATES
    )

    def last(run: tuple[np.ndarray, float]) -> float:
        return float(run[0][-44:].mean())

    assert last(low["plain"]) < last(low["weight norm"]) < 0.01
    assert last(high["weight norm"]) < 0.01 < 0.05 < last(high["plain"])
    assert min(low["plain"][1], low["weight norm"][1], high["weight norm"][1]) > 0.97


def test_rules() -> None:
    """The loss falls with each rule, and the images held out are read."""
    program = load("rules")
    data = program.load()
    for rule, rate, options in program.RULES.values():
        losses, accuracy = program.train(*data, rate=rate, rule=rule, options=options, epochs=10)
        assert losses[-44:].mean() < 0.1 < 1.0 < losses[:5].mean()
        assert accuracy > 0.97


def test_ultrasound() -> None:
    """The adjoint gives the slope of the misfit, and a few passes find most of the phantom."""
    program = load("ultrasound")
    around, truth = program.bench(), program.phantom()
    data, waves = program.measure(around, truth, np.ones(program.TRANSDUCERS))
    direction = truth.astype(np.float32) * around.inside
    slopes = np.empty_like(direction), np.empty(program.TRANSDUCERS, np.float32)

    def misfit(speed: float, gain: float) -> float:
        gains = np.full(program.TRANSDUCERS, gain, np.float32)
        arguments = speed * direction, gains, *slopes, waves
        return float(program.misfit(around, 3, data[3], np.float32(1.0), *arguments))

    by_speed, by_gain = (
        (misfit(0.5 + s, 0.9 + g) - misfit(0.5 - s, 0.9 - g)) / 0.1 for s, g in np.eye(2) / 20
    )
    misfit(0.5, 0.9)
    assert np.vdot(slopes[0], direction) == pytest.approx(by_speed, rel=0.01)
    assert slopes[1][3] == pytest.approx(by_gain, rel=0.01)
    assert not slopes[1][np.arange(program.TRANSDUCERS) != 3].any()

    params, _, losses = program.solve(around, data, epochs=4)
    assert losses[-1].mean() < 0.3 * losses[0, 0]
    speed = params["speed"].value
    assert program.error(speed, truth, around.inside) < 0.5 * program.error(0 * speed, truth, around.inside)


def test_handover() -> None:
    """The gradients are right, and from momentum on L-BFGS-B gets further than alone."""
    program = load("handover")
    _, seen, pixels = program.measure()
    params, other = program.model(), program.model()
    program.with_momentum(params, seen, pixels, passes=4)
    params.unfreeze("light")
    other.unfreeze("light")
    report = nb.check_gradient(
        program.misfit, params, args=(seen[:5], pixels[:5]), coordinates=1, directions=1
    )
    assert report.ok
    program.with_lbfgs(params, seen, pixels, passes=25)
    program.with_lbfgs(other, seen, pixels, passes=29)
    assert program.misfit(params, seen, pixels) < 0.6 * program.misfit(other, seen, pixels)


def test_heat() -> None:
    """The adjoint is the transpose of the simulation."""
    program = load("heat")
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, program.CELLS))
    assert np.vdot(program.forward(one), two) == pytest.approx(np.vdot(one, program.adjoint(two)), rel=1e-12)


def test_variational() -> None:
    """Of patients held out nearly all are judged rightly; weights are surer than the prior."""
    program = load("variational")
    _, features, labels = program.load()
    mean, log_std, losses = program.fit(features[: program.TRAIN], labels[: program.TRAIN], steps=200)
    held_out = slice(program.TRAIN, None)
    assert np.mean((features[held_out] @ mean > 0) == labels[held_out]) > 0.95
    assert np.all(log_std < 0)
    assert losses[-20:].mean() < 0.2 * losses[0]


def test_estimator() -> None:
    """It keeps to the rules of scikit-learn that clones and searches rest on."""
    from sklearn.base import clone
    from sklearn.datasets import load_digits

    program = load("estimator")
    x, y = load_digits(return_X_y=True)
    model = program.WeightNormClassifier(epochs=10, hidden=16)
    first = model.fit(x[:600] / 16, y[:600])
    assert first is model
    again = clone(model).fit(x[:600] / 16, y[:600])
    assert again.params_.fingerprint() == model.params_.fingerprint()
    assert model.score(x[600:900] / 16, y[600:900]) > 0.85
    assert clone(model).set_params(rate=0.5).rate == 0.5
