"""Callbacks: what they record, write, save and stop, in `nb.minimize`, in SciPy and in loops of one's own."""

import csv
import io
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.optimize import OptimizeResult, minimize, rosen, rosen_der

import nbopt as nb
from nbopt.errors import HyperparameterError, MissingPackageError
from tests.optimizer import expand, normed, small
from tests.test_minimize import bowl, momentum, run, scripted

callbacks = nb.callbacks
nan = math.nan

# --- one protocol ----------------------------------------------------------------------------------


class Quiet(io.StringIO):
    """Where a progress bar is shown."""


MAKE = {
    "history": lambda folder: callbacks.History(),
    "early-stopping": lambda folder: callbacks.EarlyStopping(patience=99),
    "log": lambda folder: callbacks.CSVLogger(folder / "log.csv"),
    "checkpoint": lambda folder: callbacks.CheckpointEvery(folder / "w.safetensors", 1, objects=[small()]),
    "progress": lambda folder: callbacks.ProgressBar(file=Quiet()),
}
every_callback = pytest.mark.parametrize("make", [pytest.param(make, id=key) for key, make in MAKE.items()])


@every_callback
def test_what_they_are_called_with(make, tmp_path):
    """A result by its name or not, a mapping, a number of any kind."""
    callback = make(tmp_path)
    callback(intermediate_result=OptimizeResult(fun=1.0, x=np.ones(2)))
    for loss in (OptimizeResult(fun=np.float32(1.0)), {"fun": 1, "nit": 3}, 1.0, 1, np.float32(1.0), nan):
        callback(loss)
    if hasattr(callback, "close"):
        callback.close()
        callback.close()


@every_callback
@pytest.mark.parametrize("given", [None, "low", [1.0, 2.0], 1j])
def test_what_is_neither_result_nor_loss(make, given, tmp_path):
    with pytest.raises(TypeError, match=r"takes an intermediate_result.*or the loss"):
        make(tmp_path)(given)


@every_callback
def test_in_a_method_of_scipy(make, tmp_path):
    """SciPy finds the protocol by the name of the parameter."""
    callback = make(tmp_path)
    result = minimize(rosen, [0.9, 0.9], jac=rosen_der, method="L-BFGS-B", callback=callback)
    assert result.success
    if isinstance(callback, callbacks.History):
        assert callback.loss[-1] == result.fun
        assert len(callback) == result.nit


# --- history ---------------------------------------------------------------------------------------


def test_history():
    params = small()
    opt = momentum(params, learning_rate=nb.optimizer.lr.StepDecay(0.5, step_size=1, gamma=0.5))
    norms = []

    def fun(params):
        loss = bowl(params)
        norms.append(float(np.linalg.norm(params.to_vector("grad"))))
        return loss

    history = callbacks.History()
    result = run(params, opt, fun=fun, maxiter=3, callback=history)
    assert history.step == [1, 2, 3]
    assert history.loss == result.history[1:]
    assert history.lr == [0.5, 0.25, 0.125]
    np.testing.assert_allclose(history.grad_norm, norms[:3], rtol=1e-14)
    run(params, opt, maxiter=1, callback=history)
    assert history.step == [1, 2, 3, 4]
    assert repr(history) == "History(4 entries)"


ROWS = {
    "loss": (0.5, (1, 0.5, nan, nan)),
    "nit": ({"fun": 0.5, "nit": 7}, (7, 0.5, nan, nan)),
    "lr": ({"fun": 0.5, "lr": 0.1}, (1, 0.5, 0.1, nan)),
}


@pytest.mark.parametrize(("given", "expected"), expand("", ROWS))
def test_what_is_not_known(given, expected):
    history = callbacks.History()
    history(given)
    assert_array_equal([history.step, history.loss, history.lr, history.grad_norm], np.transpose([expected]))


def test_history_of_an_own_loop():
    """With the optimizer, all is known; without a norm, that is not."""
    params = small()
    opt = nb.optimizer.SGD(0.1, params, nonfinite="propagate")
    history = callbacks.History()
    for _ in range(2):
        loss = bowl(params)
        opt.step()
        history(OptimizeResult(fun=loss, opt=opt))
    assert (history.step, history.lr) == ([1, 2], [0.1, 0.1])
    assert np.isnan(history.grad_norm).all()


# --- stopping early --------------------------------------------------------------------------------

STOPS = {
    "no-better": ({"patience": 2}, [3.0, 2.0, 2.0, 2.0, 1.0], 4),
    "nan-is-no-better": ({"patience": 2}, [3.0, nan, nan, 1.0], 3),
    "better-again": ({"patience": 2}, [3.0, 4.0, 2.0, 4.0, 1.0], None),
    "at-once": ({"patience": 1}, [3.0, 3.0], 2),
    "delta": ({"patience": 2, "min_delta": 0.5}, [3.0, 2.75, 2.5, 1.0], 3),
    "delta-in-sum": ({"patience": 2, "min_delta": 0.5}, [3.0, 2.75, 2.25, 2.0, 1.7], None),
    "infinite": ({"patience": 2}, [math.inf, math.inf, 1.0], 2),
}


def first_stop(early, losses):
    """The number of the call that stops."""
    for number, loss in enumerate(losses, 1):
        try:
            early(loss)
        except StopIteration:
            return number
    return None


@pytest.mark.parametrize(("options", "losses", "stops"), expand("", STOPS))
def test_when_to_stop(options, losses, stops):
    assert first_stop(callbacks.EarlyStopping(**options), losses) == stops


@pytest.mark.parametrize("make", [small, normed])
@pytest.mark.parametrize("restore", [True, False])
def test_the_best_point_comes_back(restore, make):
    """The bits of it, with weight norm too; the result says what the parameters hold."""
    params, prints = make(), []
    early = callbacks.EarlyStopping(patience=2, restore_best=restore)
    losses = [9.0, 3.0, 2.0, 5.0, 4.0, 1.0]
    watch = callbacks.History()
    result = run(
        params,
        fun=scripted(losses),
        callback=[lambda xk: prints.append(params.fingerprint()), early, watch],
    )
    assert (result.status, result.nit, result.history) == (99, 4, losses[:5])
    assert "no lower than 2 for 2 calls" in result.message
    assert result.fun == (2.0 if restore else 4.0)
    assert params.fingerprint() == prints[1 if restore else 3]
    assert_array_equal(result.x, params.to_vector(space="trainable"))
    assert_array_equal(result.best_x, result.x) if restore else None
    assert watch.loss == losses[1:5]


def test_an_own_loop_stops():
    params = small()
    opt, early = momentum(params), callbacks.EarlyStopping(patience=3)

    def train():
        for _ in range(1000):
            opt.step()
            early(OptimizeResult(fun=bowl(params), params=params))

    with pytest.raises(StopIteration, match="for 3 calls"):
        train()
    assert bowl(params) == early.best
    assert early.waited == 0


def test_a_method_of_scipy_stops():
    early = callbacks.EarlyStopping(patience=1, min_delta=0.5)
    result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method="L-BFGS-B", callback=early)
    assert not result.success
    assert rosen(early.best_x) == early.best


# --- a log -----------------------------------------------------------------------------------------


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_log(tmp_path):
    """Read back exactly, by the csv module and by NumPy."""
    params = small()
    opt, history = momentum(params), callbacks.History()
    log = callbacks.CSVLogger(tmp_path / "log.csv")
    run(params, opt, callback=[log, history])
    rows = read(log.path)
    assert list(rows[0]) == ["step", "loss", "lr", "grad_norm"]
    for name in rows[0]:
        assert [float(row[name]) for row in rows] == getattr(history, name)
    table = np.genfromtxt(log.path, delimiter=",", names=True)
    assert_array_equal(table["loss"], history.loss)


def test_a_log_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    params = small()
    opt = momentum(params)
    run(params, opt, maxiter=2, callback=callbacks.CSVLogger(path))
    run(params, opt, maxiter=2, callback=callbacks.CSVLogger(path))
    assert [row["step"] for row in read(path)] == ["1", "2", "3", "4"]
    callbacks.CSVLogger(path, append=False)(0.5)
    assert read(path) == [{"step": "1", "loss": "0.5", "lr": "", "grad_norm": ""}]


@pytest.mark.parametrize("kept", range(0, 40, 3))
def test_a_row_that_was_cut_short_is_dropped(kept, tmp_path):
    """Wherever a kill cut the file."""
    path = tmp_path / "log.csv"
    log = callbacks.CSVLogger(path)
    for loss in (0.5, 0.25):
        log({"fun": loss, "lr": 0.125})
    whole = path.read_bytes()
    assert len(whole) > kept
    path.write_bytes(whole[:kept])
    callbacks.CSVLogger(path)({"fun": 0.125, "nit": 9})
    lines = whole.splitlines(keepends=True)
    rows = [line for line in lines if len(b"".join(lines[: lines.index(line) + 1])) <= kept] or lines[:1]
    assert path.read_bytes() == b"".join(rows) + b"9,0.125,,\n"


def test_a_row_that_found_no_room_leaves_nothing(tmp_path):
    """Else the next one would go on in the middle of it."""
    resource = pytest.importorskip("resource", reason="limits are of POSIX")
    path = tmp_path / "log.csv"
    log = callbacks.CSVLogger(path)
    log(0.5)
    whole, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 3, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            log(0.25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == whole
    log(0.125)
    assert [row["loss"] for row in read(path)] == ["0.5", "0.125"]


def test_a_log_that_a_spreadsheet_saved(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"step,loss,lr,grad_norm\r\n1,0.5,,\r\n")
    callbacks.CSVLogger(path)(0.25)
    assert [row["loss"] for row in read(path)] == ["0.5", "0.25"]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "notes", "step,loss\n", "\n"])
def test_another_file_is_left_alone(text, tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text(text)
    with pytest.raises(HyperparameterError, match="has other columns"):
        callbacks.CSVLogger(path)
    assert path.read_text() == text


def test_a_log_survives_a_kill(tmp_path):
    """Every row that a call has written is there."""
    path = tmp_path / "log.csv"
    program = (
        "import os, sys, nbopt as nb; log = nb.callbacks.CSVLogger(sys.argv[1])\n"
        "for loss in (0.5, 0.25): log(loss)\n"
        "os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert [row["loss"] for row in read(path)] == ["0.5", "0.25"]


# --- checkpoints -----------------------------------------------------------------------------------


def test_checkpoints(tmp_path):
    """A run that is killed goes on from the last file, schedule and all, to the same bits."""

    def make():
        params = small()
        return params, momentum(params, learning_rate=nb.optimizer.lr.StepDecay(0.5, step_size=2, gamma=0.5))

    plain, reference = make()
    run(plain, reference, maxiter=9)
    params, opt = make()
    path = tmp_path / "run-{step:03d}.safetensors"
    saving = callbacks.CheckpointEvery(path, every=2, keep=2)
    (tmp_path / "run-000.safetensors").write_text("of another run")
    run(params, opt, maxiter=7, callback=saving)
    names = ["run-000.safetensors", "run-004.safetensors", "run-006.safetensors"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names

    params, opt = make()
    nb.restore(tmp_path / "run-006.safetensors", params, opt)
    run(params, opt, maxiter=3, callback=callbacks.CheckpointEvery(path, every=3))
    assert params.fingerprint() == plain.fingerprint()
    assert opt.get_lr() == reference.get_lr()
    assert (tmp_path / "run-009.safetensors").exists()


def test_one_file(tmp_path):
    path = tmp_path / "run.safetensors"
    params = small()
    run(params, maxiter=5, callback=callbacks.CheckpointEvery(path, every=2))
    assert nb.load(path)["step_count"] == 4
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_what_is_saved(tmp_path):
    path, params = tmp_path / "run.safetensors", small()
    opt, mean = momentum(params), nb.ModelAverage(0.5, params)
    run(params, opt, callback=callbacks.CheckpointEvery(path, 5, objects=[params]))
    assert set(nb.load(path)) == {"w", "b", "k"}
    run(params, opt, callback=callbacks.CheckpointEvery(path, 5, objects={"model": params, "mean": mean}))
    assert {key.partition("/")[0] for key in nb.load(path)} == {"model", "mean"}


def test_nothing_to_save(tmp_path):
    saving = callbacks.CheckpointEvery(tmp_path / "run", every=1)
    with pytest.raises(TypeError, match=r"has nothing to save.*objects="):
        saving(0.5)


def test_a_file_that_was_taken_away(tmp_path):
    saving = callbacks.CheckpointEvery(tmp_path / "{step}", every=1, keep=1, objects=[small()])
    saving(0.5)
    (tmp_path / "1").unlink()
    saving(0.5)
    assert [file.name for file in tmp_path.iterdir()] == ["2"]


# --- progress --------------------------------------------------------------------------------------


def test_a_bar_goes_on_with_another_run():
    shown = Quiet()
    bar = callbacks.ProgressBar(total=2, desc="fit", file=shown)
    assert "fit:   0%" in shown.getvalue()
    for _ in range(2):
        run(small(), fun=scripted([4.0, 3.0, 2.5]), maxiter=2, callback=bar)
    assert shown.getvalue().count("2/2") == 2
    assert "loss=2.5" in shown.getvalue()


def test_without_tqdm(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(
        MissingPackageError, match=r"tqdm, which is not installed: pip install .nbopt\[progress\]"
    ):
        callbacks.ProgressBar()


# --- refused ---------------------------------------------------------------------------------------

REFUSED = {
    "patience-zero": ("EarlyStopping", {"patience": 0}, HyperparameterError, "patience must be >= 1, got 0"),
    "patience-float": ("EarlyStopping", {"patience": 2.0}, TypeError, "patience must be an integer"),
    "patience-true": ("EarlyStopping", {"patience": True}, TypeError, "patience must be an integer"),
    "delta-negative": ("EarlyStopping", {"min_delta": -1.0}, HyperparameterError, "min_delta"),
    "delta-nan": ("EarlyStopping", {"min_delta": nan}, HyperparameterError, "min_delta"),
    "delta-string": ("EarlyStopping", {"min_delta": "1"}, TypeError, "min_delta must be a number, got str"),
    "misspelt": ("EarlyStopping", {"patence": 3}, TypeError, "did you mean 'patience'?"),
    "restore": ("EarlyStopping", {"restore_best": 1}, TypeError, "restore_best must be True or False"),
    "append": ("CSVLogger", {"path": "x.csv", "append": "a"}, TypeError, "append must be True or False"),
    "folder": ("CSVLogger", {"path": "no/such/folder.csv"}, FileNotFoundError, "folder.csv"),
    "device": ("CSVLogger", {"path": os.devnull}, HyperparameterError, "no regular file"),
    "every": ("CheckpointEvery", {"path": "x", "every": 0}, HyperparameterError, "every must be >= 1"),
    "keep": ("CheckpointEvery", {"path": "{step}", "keep": 0}, HyperparameterError, "keep must be >= 1"),
    "keep-one-file": ("CheckpointEvery", {"path": "x", "keep": 2}, HyperparameterError, "{step}"),
    "field": ("CheckpointEvery", {"path": "{nit}"}, HyperparameterError, "may have {step} in it"),
    "brace": ("CheckpointEvery", {"path": "{"}, HyperparameterError, "may have {step} in it"),
    "objects": ("CheckpointEvery", {"path": "x", "objects": 3}, TypeError, "objects must be a list"),
}


@pytest.mark.parametrize(("kind", "arguments", "error", "words"), expand("", REFUSED))
def test_refused(kind, arguments, error, words):
    with pytest.raises(error) as caught:
        getattr(callbacks, kind)(**arguments)
    assert words in str(caught.value)
