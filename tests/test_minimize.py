"""`nb.minimize`: its steps are those of a loop by hand, and its habits those of `scipy.optimize`."""

import _thread
import math
import signal
import sys
import threading
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nbopt as nb
from nbopt import minimizing
from nbopt.errors import HyperparameterError, MissingPackageError, NonFiniteGradientError, ParameterError
from tests.optimizer import expand, normed, refuses, small

lr = nb.optimizer.lr


def bowl(params, *args):
    """Half the squared distance from 1, and its gradient."""
    loss = 0.0
    for p in params.values():
        p.grad = p.value - 1.0
        loss += 0.5 * float(np.sum(p.grad**2))
    return loss


def momentum(params, **options):
    return nb.optimizer.Momentum(options.pop("learning_rate", 0.1), 0.9, parameters=params, **options)


def run(params, opt=None, fun=bowl, maxiter=5, **options):
    return nb.minimize(fun, params, opt or momentum(params), maxiter=maxiter, **options)


# --- the steps are those of a loop by hand ---------------------------------------------------------

RATES = {
    "number": (lambda: 0.1,),
    "schedule": (lambda: lr.StepDecay(0.1, step_size=2, gamma=0.5),),
    "warm-up": (lambda: lr.LinearWarmup(lr.CosineAnnealingDecay(0.1, T_max=4), 2, 0.0, 0.1),),
    "plateau": (lambda: lr.ReduceOnPlateau(0.9, factor=0.5, patience=0),),
}


@pytest.mark.parametrize("make", [small, normed])
@pytest.mark.parametrize("rate", expand("", RATES))
def test_as_by_hand(rate, make):
    """Also a frozen parameter, weight norm, a clip and a decay; the schedule moves once per iteration."""
    params, plain = make(), make()
    clip = nb.ClipGradByGlobalNorm(1.0)
    opt, reference = (
        momentum(p, learning_rate=rate(), grad_clip=clip, weight_decay=0.01) for p in (params, plain)
    )
    for p in (params, plain):
        p.freeze("b")
    result = run(params, opt)

    losses, schedule = [bowl(plain)], reference._scheduler
    for _ in range(5):
        reference.step()
        losses.append(bowl(plain))
        if schedule is not None:
            schedule.step(*[losses[-1]] * isinstance(schedule, lr.ReduceOnPlateau))
    assert params.fingerprint() == plain.fingerprint()
    assert opt.get_lr() == reference.get_lr()
    assert result.history == losses
    assert result.fun == losses[-1]
    assert_array_equal(result.x, plain.to_vector(space="trainable"))
    assert (result.nit, result.nfev, result.status, result.success) == (5, 6, 0, True)


def test_two_runs_are_one():
    params, plain = small(), small()
    opt = momentum(params, learning_rate=lr.StepDecay(0.1, step_size=2, gamma=0.5))
    first = run(params, opt, maxiter=3)
    second = run(params, opt, maxiter=4)
    whole = run(plain, momentum(plain, learning_rate=lr.StepDecay(0.1, step_size=2, gamma=0.5)), maxiter=7)
    assert params.fingerprint() == plain.fingerprint()
    assert first.history + second.history[1:] == whole.history


def test_nothing_to_do():
    params = small()
    before = params.fingerprint()
    result = run(params, maxiter=0)
    assert (result.nit, result.nfev, result.success) == (0, 1, True)
    assert params.fingerprint() == before
    assert result.history == [result.fun] == [result.best_fun]


def test_arguments_are_handed_on():
    seen = []

    def fun(params, *args):
        seen.append(args)
        return bowl(params)

    params = small()
    run(params, fun=fun, maxiter=1, args=(1, "a"))
    run(params, fun=fun, maxiter=0, args=[3])
    assert seen == [(1, "a"), (1, "a"), ([3],)]


def test_an_optimizer_of_some_parameters():
    params = small()
    before = params.numpy()
    opt = momentum([params["w"]])
    result = run(params, opt, tol=1e-2, maxiter=300)
    assert result.success
    assert np.abs(params["w"].value - 1).max() <= 1e-2 < np.abs(params["b"].value - 1).max()
    assert_array_equal(params["b"].value, before["b"])


# --- the best point --------------------------------------------------------------------------------


def scripted(losses):
    """A function with the losses of a list."""
    losses = iter(losses)

    def fun(params):
        bowl(params)
        return next(losses)

    return fun


BEST = {
    "inside": ([3.0, 1.0, 2.0], 1),
    "start": ([1.0, 2.0, 3.0], 0),
    "first-of-equals": ([2.0, 1.0, 1.0], 1),
    "end": ([3.0, 2.0, 1.0], 2),
    "not-nan": ([math.nan, 2.0, 3.0], 1),
    "not-infinite": ([2.0, -math.inf, 3.0], 0),
    "after-infinite": ([-math.inf, 2.0, math.inf], 1),
    "none": ([math.nan, math.inf, math.nan], 0),
}


@pytest.mark.parametrize(("losses", "at"), expand("", BEST))
def test_best(losses, at):
    params, trace = small(), []
    start = params.to_vector()
    result = run(params, fun=scripted(losses), maxiter=2, callback=lambda xk: trace.append(xk))
    assert_array_equal(result.best_x, [start, *trace][at])
    assert_array_equal(result.best_fun, losses[at])
    assert_array_equal(result.history, losses)
    params.from_vector(result.best_x, space="trainable")
    assert_array_equal(params.to_vector(), result.best_x)


def test_the_best_point_is_no_view():
    def spoil(xk):
        xk[:] = 7.0

    params = small()
    result = run(params, callback=spoil)
    assert 7.0 not in result.best_x
    assert 7.0 not in params.to_vector()
    result.x[:] = 8.0
    assert 8.0 not in params.to_vector()


# --- losses ----------------------------------------------------------------------------------------

LOSSES = {
    "int": (3, 3.0),
    "numpy": (np.float32(0.5), 0.5),
    "array-0d": (np.array(2.0), 2.0),
    "array-1": (np.array([2], np.int32), 2.0),
    "array-1x1": (np.array([[2.0]]), 2.0),
    "list": ([2.0], 2.0),
    "tensor": (SimpleNamespace(item=lambda: 2.0), 2.0),
}


@pytest.mark.parametrize(("loss", "expected"), expand("", LOSSES))
def test_a_loss_is_a_number(loss, expected):
    result = run(small(), fun=scripted([loss, loss]), maxiter=1)
    assert result.history == [expected, expected]
    assert type(result.fun) is float


NO_LOSSES = {
    "none": (None, "must return the loss, a number, got None"),
    "pair": ((1.0, np.ones(3)), "the loss alone, got a tuple of 2"),
    "array": (np.ones(2), "must return the loss"),
    "string": ("low", "'low'"),
    "true": (True, "True"),
    "complex": (1j, "1j"),
    "fraction": (Fraction(1, 2), "Fraction"),
    "masked": (np.ma.masked, "masked"),
}


@pytest.mark.parametrize(("loss", "words"), expand("", NO_LOSSES))
def test_what_is_no_loss(loss, words):
    params = small()
    opt = momentum(params)
    with pytest.raises(TypeError) as caught:
        run(params, opt, fun=scripted([loss]))
    assert words in str(caught.value)
    assert opt.step_count == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_last_loss_that_is_not_finite(loss):
    """It stops nothing, but is no success."""
    passing = run(small(), fun=scripted([2.0, loss, 1.0]), maxiter=2)
    assert (passing.success, passing.nit) == (True, 2)
    result = run(small(), fun=scripted([2.0, 1.0, loss]), maxiter=2)
    assert (result.success, result.status, result.best_fun) == (False, 3, 1.0)
    assert "not finite" in result.message
    flat = run(small(), fun=scripted([loss]), tol=1e9)
    assert (flat.success, flat.status, flat.message) == (False, 3, result.message)


def break_after(count):
    """A function whose gradient is NaN from some evaluation on."""
    calls = []

    def fun(params):
        loss = bowl(params)
        calls.append(loss)
        if len(calls) > count:
            params["b"].grad = [0.0, math.nan, 0.0]
        return loss

    return fun


def test_a_gradient_that_is_not_finite():
    """The error has what was found before; nothing is lost."""
    params, plain = small(), small()
    opt = momentum(params)
    with pytest.raises(NonFiniteGradientError, match="'b'") as caught:
        run(params, opt, fun=break_after(3))
    expected = run(plain, maxiter=3)
    result = caught.value.result
    assert result.history == expected.history
    assert (result.nit, result.nfev, result.status, result.success) == (3, 4, 3, False)
    assert result.message == str(caught.value)
    assert_array_equal(result.best_x, expected.best_x)
    assert params.fingerprint() == plain.fingerprint()


def test_a_gradient_that_is_skipped():
    params = small()
    opt = momentum(params, nonfinite="skip")
    result = run(params, opt, fun=break_after(3))
    assert (result.nit, opt.step_count, opt.steps_skipped) == (5, 3, 2)
    with pytest.raises(NonFiniteGradientError):
        run(params, opt, fun=break_after(0), maxiter=20)


def test_an_error_of_the_function_passes_through():
    class OwnError(Exception):
        pass

    def fun(params):
        if opt.step_count == 2:
            raise OwnError
        return bowl(params)

    params, plain = small(), small()
    opt = momentum(params)
    with pytest.raises(OwnError):
        run(params, opt, fun=fun)
    run(plain, maxiter=2)
    assert params.fingerprint() == plain.fingerprint()
    run(params, opt, maxiter=1)
    assert opt.step_count == 3


# --- why a run ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small, normed])
def test_tolerance(make):
    """The largest element of the gradient, at the point that is returned and at none before."""
    params, largest = make(), []

    def watch(intermediate_result):
        largest.append(np.abs(params.to_vector("grad", space="trainable")).max())

    result = run(params, maxiter=500, tol=0.01, callback=watch)
    assert (result.success, result.status) == (True, 0)
    assert "tol" in result.message
    assert largest[-1] <= 0.01 < min(largest[:-1])
    assert result.nit == len(largest) > 5


def test_tolerance_at_the_start():
    params = small()
    before = params.fingerprint()
    result = run(params, tol=1e3)
    assert (result.success, result.nit, result.nfev) == (True, 0, 1)
    assert params.fingerprint() == before


def test_tolerance_looks_at_what_moves():
    params = small()
    params.freeze("[bk]")
    result = run(params, maxiter=300, tol=0.01)
    assert result.success
    assert np.abs(params["b"].grad).max() > 0.01


def test_gradients_that_lie_elsewhere():
    """The start is not mistaken for one without gradients, and the tolerance sees them."""
    written = np.zeros(2)

    class Elsewhere(nb.ParameterBuffer):
        def gather_grads(self):
            self.set_grads({"w": written})

    def fun(params):
        written[:] = params["w"].value - 1.0
        return 0.5 * written @ written

    params = Elsewhere.from_arrays({"w": [3.0, -1.0]})
    result = run(params, fun=fun, maxiter=500, tol=0.01)
    assert result.success
    assert 0.0 < np.abs(result.x - 1.0).max() <= 0.01


def test_tolerance_not_reached():
    result = run(small(), tol=1e-9, maxiter=3)
    assert (result.success, result.status, result.nit) == (False, 1, 3)
    assert result.message == "Maximum number of iterations has been exceeded."


def test_interrupted():
    """Ctrl-C in the function: back to the best point."""
    params = normed()
    losses = iter([3.0, 1.0, 2.0])
    seen = []

    def fun(params):
        bowl(params)
        seen.append(params.to_vector(space="trainable"))
        for loss in losses:
            return loss
        raise KeyboardInterrupt

    opt = momentum(params)
    result = run(params, opt, fun=fun)
    assert (result.success, result.status, result.nit, result.nfev) == (False, 130, 2, 3)
    assert "best point" in result.message
    assert_array_equal(result.x, seen[1])
    assert_array_equal(params.to_vector(space="trainable"), seen[1])
    assert (result.fun, result.best_fun, result.history) == (1.0, 1.0, [3.0, 1.0, 2.0])
    run(params, opt, maxiter=1)


def test_interrupted_before_a_loss_is_looked_at(monkeypatch):
    """Between the evaluation and what follows: the point belongs to those that are known."""
    params = small()
    opt = momentum(params)

    keep = minimizing._Run._keep_best
    kept = iter([KeyboardInterrupt])

    def interrupted(run):
        for error in kept:
            raise error
        keep(run)

    monkeypatch.setattr(minimizing._Run, "_keep_best", interrupted)
    result = run(params, opt)
    assert (result.status, result.nit) == (130, 1)
    assert result.fun == min(result.history) == result.history[1]
    assert bowl(params) == result.fun


def test_interrupted_by_a_signal():
    """A real one, from another thread, somewhere in the loop."""
    started = threading.Event()

    def fun(params):
        loss = bowl(params)
        if opt.step_count == 10:
            started.set()
        return loss

    def interrupt():
        started.wait()
        _thread.interrupt_main()

    params = small()
    opt = momentum(params, learning_rate=1e-6)
    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker may ignore it
    try:
        thread.start()
        result = run(params, opt, fun=fun, maxiter=10**6)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert (result.status, result.fun) == (130, min(result.history))
    assert result.nit >= 10


def test_interrupted_before_anything_is_known():
    def fun(params):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(), fun=fun)


# --- callbacks -------------------------------------------------------------------------------------


def test_a_result_or_a_vector():
    """Told apart as SciPy does, by the name of the parameter."""
    params, results, vectors, more = small(), [], [], []

    def new(intermediate_result):
        results.append(intermediate_result)

    class Old:
        def __call__(self, xk, unused=None):
            vectors.append(xk)

    opt = momentum(params)
    result = run(params, opt, maxiter=3, callback=[new, Old(), more.append])
    assert [r.nit for r in results] == [1, 2, 3]
    assert [r.nfev for r in results] == [2, 3, 4]
    assert [r.fun for r in results] == result.history[1:]
    assert all(r.params is params and r.opt is opt and r.lr == 0.1 for r in results)
    for shown, vector, other in zip(results, vectors, more, strict=True):
        assert_array_equal(shown.x, vector)
        assert_array_equal(shown.x, other)
        assert not np.shares_memory(shown.x, vector)
    assert_array_equal(vectors[-1], result.x)


def test_the_rate_of_the_step():
    params, rates = small(), []
    opt = momentum(params, learning_rate=lr.StepDecay(0.5, step_size=1, gamma=0.5))
    run(params, opt, maxiter=3, callback=lambda intermediate_result: rates.append(intermediate_result.lr))
    assert rates == [0.5, 0.25, 0.125]


def test_stop():
    """The other callbacks are called too, and the schedule has moved with the step."""
    params, calls = small(), []

    def stop(xk):
        calls.append("stop")
        if len(calls) == 3:
            raise StopIteration("enough")

    opt = momentum(params, learning_rate=lr.StepDecay(0.5, step_size=1, gamma=0.5))
    result = run(params, opt, callback=(stop, lambda xk: calls.append("other")))
    assert calls == ["stop", "other", "stop", "other"]
    assert (result.success, result.status, result.nit) == (False, 99, 2)
    assert result.message == "`callback` raised `StopIteration`. enough"
    assert opt.get_lr() == 0.125


@pytest.mark.parametrize(
    ("callback", "error"), [(lambda state: state.fun, AttributeError), (lambda i, loss: None, TypeError)]
)
def test_a_callback_of_another_form_is_told_how(callback, error):
    with pytest.raises(error) as caught:
        run(small(), callback=callback)
    assert "is intermediate_result." in caught.value.__notes__[0]


def test_a_printed_result_shows_the_ends_of_its_history():
    result = run(small(), maxiter=200)
    assert "..." in str(result)
    assert len(str(result)) < len(str(list(result.history)))
    assert repr(result.history) == repr(list(result.history))


def test_callbacks_are_closed():
    class Closing:
        closed = 0

        def __call__(self, intermediate_result):
            pass

        def close(self):
            self.closed += 1

    closing = Closing()
    run(small(), callback=closing)
    assert closing.closed == 1
    with pytest.raises(ZeroDivisionError):
        run(small(), fun=lambda params: 1 / 0, callback=[closing])
    assert closing.closed == 2


def test_progress(capsys):
    pytest.importorskip("tqdm")
    run(small(), fun=scripted([4.0, 3.0, 2.5]), maxiter=2, progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "loss=2.5" in shown
    assert shown.endswith("\n")


def test_progress_without_tqdm(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    params = small()
    opt = momentum(params)
    words = "progress tqdm nbopt[progress]"
    error = refuses(lambda: run(params, opt, progress=True), MissingPackageError, words, params, opt)
    assert isinstance(error, ImportError)


# --- refused ---------------------------------------------------------------------------------------

REFUSED = {
    "fun-number": ({"fun": 3.0}, TypeError, "fun float"),
    "fun-none": ({"fun": None}, TypeError, "fun NoneType"),
    "params-array": (
        {"params": np.ones(3)},
        TypeError,
        "ParameterBuffer ndarray from_arrays nb.scipy.momentum",
    ),
    "params-dict": ({"params": {"w": 1.0}}, TypeError, "ParameterBuffer dict"),
    "jac": ({"jac": True}, TypeError, "minimize 'jac' params['w'].grad"),
    "bounds": ({"bounds": [(0, 1)]}, TypeError, "minimize 'bounds' nb.scipy.momentum"),
    "options": ({"options": {"maxiter": 3}}, TypeError, "minimize 'options' maxiter=..."),
    "opt-class": ({"opt": nb.optimizer.SGD}, TypeError, "optimizer class SGD parameters=params"),
    "opt-name": ({"opt": "adam"}, TypeError, "optimizer str"),
    "opt-of-others": ({"params": small()}, ParameterError, "'w' another buffer"),
    "maxiter-negative": ({"maxiter": -1}, HyperparameterError, "maxiter >= 0 -1"),
    "maxiter-float": ({"maxiter": 1e3}, TypeError, "maxiter integer 1000.0"),
    "tol-negative": ({"tol": -1e-3}, HyperparameterError, "tol >= 0"),
    "tol-nan": ({"tol": math.nan}, HyperparameterError, "tol nan"),
    "tol-string": ({"tol": "1e-3"}, TypeError, "tol '1e-3'"),
    "progress": ({"progress": 1}, TypeError, "progress True False"),
    "callback-number": ({"callback": 3}, TypeError, "callback int"),
    "callback-class": ({"callback": nb.callbacks.History}, TypeError, "History class History(...)"),
    "callback-in-list": ({"callback": [print, "x"]}, TypeError, "callback str"),
}


@pytest.mark.parametrize(("arguments", "error", "words"), expand("", REFUSED))
def test_refused(arguments, error, words):
    params = small()
    opt = momentum(params)
    given = {"fun": bowl, "params": params, "opt": opt, "maxiter": 3} | arguments
    refuses(
        lambda: nb.minimize(given.pop("fun"), given.pop("params"), given.pop("opt"), **given),
        error,
        words,
        params,
        opt,
    )


def test_a_function_that_steps():
    params = small()
    opt = momentum(params)

    def train(params):
        loss = bowl(params)
        opt.step()
        return loss

    with pytest.raises(ParameterError, match=r"take opt.step\(\) out"):
        run(params, opt, fun=train)
    losses = []

    def train_later(params):
        losses.append(bowl(params))
        if len(losses) == 3:
            opt.step()
        return losses[-1]

    with pytest.raises(ParameterError, match=r"take opt.step\(\) out"):
        run(params, opt, fun=train_later)
    assert len(losses) == 3


def test_a_function_that_writes_no_gradient():
    def forgets(params):
        return sum(float(np.sum(p.value**2)) for p in params.values())

    params = small()
    with pytest.warns(RuntimeWarning, match="must write them") as caught:
        nb.minimize(forgets, params, momentum(params), maxiter=1)
    assert caught[0].filename == __file__
    run(small(), fun=forgets, maxiter=0)


def test_gradients_of_the_last_point_are_there():
    params = small()
    result = run(params)
    assert_array_equal(params.to_vector("grad"), result.x - 1.0)
