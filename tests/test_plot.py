"""Pictures: what they show is what is there, on Axes that come and go, in light and in dark."""

import sys

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

import nbopt as nb
from nbopt.errors import HyperparameterError, ParameterError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.fixture
def params():
    arrays = {"w": np.array([[3.0, 0.0], [4.0, 0.0]]), "b": np.zeros(2), "s": np.array(-2.0)}
    params = nb.ParameterBuffer.from_arrays(arrays)
    params["w"].grad = [[0.0, 6.0], [8.0, 0.0]]
    return params


class Record:
    """As `nb.callbacks.History` has it."""

    loss = [2.0, 1.0, 0.5]  # noqa: RUF012


DRAWN = {
    "history": lambda p, ax: nb.plot.history([3.0, 2.0, 1.0], ax=ax),
    "schedule": lambda p, ax: nb.plot.schedule(nb.optimizer.lr.StepDecay(0.1, 3), 10, ax=ax),
    "norms": lambda p, ax: nb.plot.norms(p, ax=ax),
    "sparsity": lambda p, ax: nb.plot.sparsity(p, ax=ax),
}
every_plot = pytest.mark.parametrize("name", DRAWN)


@every_plot
def test_axes_in_and_out(name, params):
    figure, ax = pyplot.subplots()
    assert DRAWN[name](params, ax) is ax
    assert pyplot.get_fignums() == [figure.number]
    fresh = DRAWN[name](params, None)
    assert fresh is not ax
    assert len(pyplot.get_fignums()) == 2
    assert ax.get_xlabel()


@every_plot
def test_a_plot_changes_nothing(name, params):
    prints, grads = params.fingerprint(), params.to_vector("grad")
    DRAWN[name](params, None)
    assert params.fingerprint() == prints
    np.testing.assert_array_equal(params.to_vector("grad"), grads)


@pytest.mark.parametrize(
    "record",
    [[2.0, 1.0, 0.5], np.array([2.0, 1.0, 0.5]), OptimizeResult(history=[2.0, 1.0, 0.5], x=0), Record()],
    ids=["list", "array", "result", "recorder"],
)
def test_what_holds_losses(record):
    line = nb.plot.history(record).lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [2.0, 1.0, 0.5])


def test_a_run_starts_at_no_iteration():
    line = nb.plot.history(OptimizeResult(history=[2.0, 1.0, 0.5], nit=2)).lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(line.get_ydata(), [2.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([10.0, 1.0], "log"), ([9.0, 1.0], "linear"), ([10.0, -1.0], "linear"), ([np.nan, 1.0], "linear")],
)
def test_the_axis_of_a_loss(losses, scale):
    assert nb.plot.history(losses).get_yscale() == scale


def test_several_runs_in_one_picture_are_told_apart():
    ax = nb.plot.history([3.0, 2.0], label="one")
    for label in ("two", "three", "four"):
        nb.plot.history([2.0, 1.0], ax=ax, label=label)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two", "three", "four"]
    assert len({line.get_color() for line in ax.lines}) == 4


def test_a_schedule_is_drawn_from_where_it_stands_and_does_not_move(params):
    scheduler = nb.optimizer.lr.StepDecay(0.8, step_size=2, gamma=0.5)
    opt = nb.optimizer.SGD(scheduler, params)
    scheduler.step()
    x, y = nb.plot.schedule(scheduler, 4).lines[0].get_data()
    np.testing.assert_array_equal(x, [1, 2, 3, 4])
    np.testing.assert_allclose(y, [0.8, 0.4, 0.4, 0.2], rtol=1e-15)
    assert (scheduler.last_epoch, opt.get_lr()) == (1, 0.8)


def test_norms_and_update_ratios(params):
    before = params.numpy()
    params["w"].value += [[0.0, 0.5], [0.0, 0.0]]
    ax = nb.plot.norms(params, before)
    value, grad, ratio = (line.get_xdata() for line in ax.lines)
    np.testing.assert_allclose(value, [np.sqrt(25.25), np.nan, 2.0])
    np.testing.assert_allclose(grad, [10.0, np.nan, np.nan])
    np.testing.assert_allclose(ratio, [0.1, np.nan, np.nan])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["w", "b", "s"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


def test_sparsity(params):
    assert [bar.get_width() for bar in nb.plot.sparsity(params).patches] == [50.0, 100.0, 0.0]
    assert [bar.get_width() for bar in nb.plot.sparsity(params, 3.0, names="[ws]").patches] == [75.0, 100.0]


def luminance(color):
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("style", ["default", "dark_background"])
@every_plot
def test_what_is_drawn_stands_out_from_its_ground(name, style, params):
    """A contrast of 3 : 1 at least, as the guidelines for web content ask of graphics."""
    with pyplot.style.context(style):
        ax = DRAWN[name](params, None)
        ground = luminance(ax.get_facecolor())
        drawn = [line.get_color() for line in ax.lines] + [bar.get_facecolor() for bar in ax.patches]
        for color in [*drawn, ax.xaxis.label.get_color()]:
            light, dark = sorted((luminance(color), ground), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3.0
        ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda p: nb.plot.history({"loss": 1}), TypeError, "record must be a list of losses"),
        (lambda p: nb.plot.history("loss"), TypeError, "record must be a list of losses"),
        (lambda p: nb.plot.history([]), ParameterError, "one loss or more"),
        (lambda p: nb.plot.history([1.0], ax=3), TypeError, "ax must be matplotlib Axes"),
        (lambda p: nb.plot.schedule(0.1, 5), TypeError, "scheduler must be"),
        (
            lambda p: nb.plot.schedule(nb.optimizer.lr.ReduceOnPlateau(1.0), 5),
            HyperparameterError,
            "losses yet",
        ),
        (lambda p: nb.plot.schedule(nb.optimizer.lr.NoamDecay(4, 4), 0), ValueError, "steps"),
        (lambda p: nb.plot.norms(p.numpy()), TypeError, "params must be a ParameterBuffer"),
        (lambda p: nb.plot.norms(p, names="x*"), ParameterError, "chooses no parameter"),
        (lambda p: nb.plot.norms(p, {"w": np.zeros(4)}), ParameterError, "has shape"),
        (lambda p: nb.plot.norms(p, {"b": np.zeros(2)}), ParameterError, "before lacks 'w'"),
        (lambda p: nb.plot.sparsity(p, -1.0), ValueError, "threshold"),
        (lambda p: nb.plot.sparsity(p, treshold=1.0), TypeError, "did you mean 'threshold'"),
    ],
)
def test_wrong_arguments(call, error, match, params):
    with pytest.raises(error, match=match):
        call(params)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "nbopt\[plot\]"'):
        nb.plot.history([1.0])
