"""`nb.scipy`: the optimizers as methods of `scipy.optimize.minimize`."""

import inspect
import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.optimize import Bounds, basinhopping, minimize, rosen, rosen_der

import nbopt as nb
from nbopt.errors import HyperparameterError, NonFiniteGradientError, ParameterError
from tests.optimizer import expand

METHODS = {
    "momentum": (nb.scipy.momentum, nb.optimizer.Momentum),
    "sgd": (nb.scipy.sgd, nb.optimizer.SGD),
    "adam": (nb.scipy.adam, nb.optimizer.Adam),
    "adamw": (nb.scipy.adamw, nb.optimizer.AdamW),
}
X0 = [-1.2, 1.0, 0.5]

every_method = pytest.mark.parametrize(("method", "kind"), expand("", METHODS))


def pair(x, *args):
    """Half the squared distance from 1, and its gradient."""
    return 0.5 * np.sum((x - 1.0) ** 2), x - 1.0


def solve(x0=X0, fun=pair, jac=True, method=nb.scipy.momentum, **given):
    """`minimize` with options in line."""
    mine = ("args", "bounds", "callback", "constraints", "hess", "hessp", "tol")
    return minimize(
        fun,
        x0,
        jac=jac,
        method=method,
        options={key: value for key, value in given.items() if key not in mine},
        **{key: value for key, value in given.items() if key in mine},
    )


# --- the steps are those of a loop by hand ---------------------------------------------------------

OPTIONS = {
    "momentum": {"momentum": 0.5, "use_nesterov": True, "rescale_grad": 0.5},
    "sgd": {"weight_decay": 0.1},
    "adam": {"beta1": 0.5, "epsilon": 1e-3, "amsgrad": True},
    "adamw": {"weight_decay": 0.1, "grad_clip": nb.ClipGradByNorm(1.0)},
}


@pytest.mark.parametrize("bounds", [None, [(-1.0, 0.2), (None, 0.9), (None, None)]], ids=["free", "bounds"])
@every_method
def test_as_by_hand(method, kind, bounds):
    options = OPTIONS[method.__name__]
    result = solve(
        fun=rosen, jac=rosen_der, method=method, maxiter=20, learning_rate=1e-3, bounds=bounds, **options
    )

    params = nb.ParameterBuffer.from_arrays({"x": X0})
    x, opt = params["x"].value, kind(1e-3, parameters=params, **options)
    lower, upper = ([-1.0, -math.inf, -math.inf], [0.2, 0.9, math.inf]) if bounds else (-math.inf, math.inf)
    x[:] = np.clip(x, lower, upper)
    losses = [rosen(x)]
    for _ in range(20):
        opt.step({"x": rosen_der(x)})
        x[:] = np.clip(x, lower, upper)
        losses.append(rosen(x))
    assert_array_equal(result.x, x)
    assert result.history == losses
    assert result.fun == losses[-1]
    assert_array_equal(result.jac, rosen_der(x))
    assert (result.nit, result.nfev, result.njev) == (20, 21, 21)
    assert (result.success, result.status) == (False, 1)
    at = int(np.argmin(losses))
    assert result.best_fun == losses[at] == rosen(result.best_x)


def test_one_evaluation_for_loss_and_gradient():
    calls = []

    def fun(x):
        calls.append(x)
        return pair(x)

    result = solve(fun=fun, maxiter=4)
    assert len(calls) == result.nfev == 5


def test_a_schedule_moves_once_per_iteration():
    seen = []
    solve(
        learning_rate=nb.optimizer.lr.StepDecay(0.5, step_size=1, gamma=0.5),
        maxiter=3,
        callback=lambda intermediate_result: seen.append(intermediate_result.lr),
    )
    assert seen == [0.5, 0.25, 0.125]


# --- starts ----------------------------------------------------------------------------------------

STARTS = {
    "list": ([2, 3], 2),
    "integers": (np.array([2, 3]), 2),
    "single": (np.array([2.0, 3.0], np.float32), 2),
    "number": (2.0, 1),
    "empty": ([], 0),
}


@pytest.mark.parametrize(("x0", "size"), expand("", STARTS))
def test_x0(x0, size):
    kinds = set()

    def fun(x):
        kinds.add((x.dtype, x.shape))
        return pair(x)

    result = solve(x0, fun=fun, learning_rate=0.1)
    assert result.success
    assert kinds == {(np.dtype("float64"), (size,))} == {(result.x.dtype, result.x.shape)}
    assert np.abs(result.x - 1).max(initial=0.0) < 1e-4


def test_x0_is_left_alone_and_x_is_lent_to_nobody():
    x0 = np.array(X0)

    def fun(x):
        value = pair(x.copy())
        x[:] = 7.0
        return value

    spoilt = solve(x0, fun=lambda x: fun(x)[0], jac=lambda x: fun(x)[1], learning_rate=0.1)
    assert_array_equal(x0, X0)
    clean = solve(x0, learning_rate=0.1)
    assert_array_equal(spoilt.x, clean.x)
    assert_array_equal(spoilt.jac, clean.jac)


def test_args():
    seen = []

    def fun(x, *args):
        seen.append(args)
        return pair(x)

    solve(fun=fun, maxiter=1, args=(1, "a"))
    solve(fun=fun, maxiter=0, args=2)
    assert seen == [(1, "a"), (1, "a"), (2,)]


# --- bounds ----------------------------------------------------------------------------------------

BOUNDS = {
    "pairs": [(-2.0, 0.5), (0.0, None), (None, np.inf)],
    "arrays": np.array([[-2.0, 0.5], [0.0, np.inf], [-np.inf, np.inf]]),
    "object": Bounds([-2.0, 0.0, -np.inf], [0.5, np.inf, np.inf]),
}


@pytest.mark.parametrize("bounds", [pytest.param(value, id=key) for key, value in BOUNDS.items()])
def test_bounds(bounds):
    """The minimum is the free one, moved inside; no evaluation is outside, and x0 may be."""
    seen = []

    def fun(x):
        seen.append(x)
        return pair(x)

    result = solve([9.0, -9.0, 0.0], fun=fun, learning_rate=0.1, bounds=bounds)
    assert result.success
    np.testing.assert_allclose(result.x, [0.5, 1.0, 1.0], atol=1e-4)
    assert_array_equal(seen[0], [0.5, 0.0, 0.0])
    assert all(x[0] <= 0.5 and x[1] >= 0.0 for x in seen)


def test_one_bound_for_all():
    result = solve(bounds=Bounds(-0.5, 0.5), learning_rate=0.1)
    assert result.success
    assert_array_equal(result.x, [0.5, 0.5, 0.5])


NO_BOUNDS = {
    "few": ([(0.0, 1.0)], "3 pairs 3 variables"),
    "triple": ([(0.0, 1.0, 2.0)] * 3, "3 pairs"),
    "shape": (Bounds([0.0, 0.0], [1.0, 1.0]), "3 variables"),
    "crossed": ([(0.0, 1.0), (2.0, 1.0), (0.0, 1.0)], "x[1] lower 2 upper 1"),
    "nan": ([(0.0, 1.0), (0.0, 1.0), (math.nan, 1.0)], "x[2] nan"),
}


@pytest.mark.parametrize(("bounds", "words"), expand("", NO_BOUNDS))
def test_what_are_no_bounds(bounds, words):
    with pytest.raises(ParameterError, match="bounds") as caught:
        solve(bounds=bounds)
    assert not [word for word in words.split() if word not in str(caught.value)]


def test_one_pair_for_all_is_no_bounds():
    with pytest.raises(TypeError, match=r"3 pairs for 3 variables, got \(0, 1\)"):
        solve(bounds=(0, 1))


# --- why a run ends --------------------------------------------------------------------------------


@every_method
def test_success_is_a_small_gradient(method, kind):
    given = {"weight_decay": 0.0} if method is nb.scipy.adamw else {}
    result = solve(method=method, learning_rate=0.05, **given)
    assert (result.success, result.status) == (True, 0)
    assert 0 < np.abs(result.jac).max() <= 1e-5
    assert result.nit < 1000
    looser = solve(method=method, learning_rate=0.05, tol=1e-2, **given)
    assert 1e-5 < np.abs(looser.jac).max() <= 1e-2


def test_at_the_minimum_already():
    result = solve([1.0, 1.0])
    assert (result.success, result.nit, result.nfev) == (True, 0, 1)
    blocked = solve([5.0, 5.0], bounds=[(2.0, 9.0)] * 2, learning_rate=0.5)
    assert blocked.success
    assert_array_equal(blocked.x, [2.0, 2.0])


def test_no_tolerance():
    result = minimize(pair, X0, jac=True, method=nb.scipy.sgd, options={"tol": None, "maxiter": 7})
    assert (result.success, result.status, result.nit) == (True, 0, 7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite(bad):
    """As SciPy's methods end: a result without success, at the last good point."""
    calls = []

    def fun(x):
        calls.append(x)
        loss, gradient = pair(x)
        return loss, np.full_like(x, bad) if len(calls) > 3 else gradient

    result = solve(fun=fun)
    assert (result.success, result.status, result.nit) == (False, 3, 3)
    assert "'x'" in result.message
    assert_array_equal(result.x, calls[-1])
    assert result.best_fun == min(result.history)
    calls.clear()
    with pytest.raises(NonFiniteGradientError):
        solve(fun=fun, nonfinite="raise")
    calls.clear()
    assert solve(fun=fun, nonfinite="skip", maxiter=8).nit == 8
    calls[:] = [0] * 3
    assert solve(fun=fun).nit == 0


def test_a_loss_that_is_not_finite():
    result = solve(fun=lambda x: (math.nan, x - 1.0), maxiter=3)
    assert (result.success, result.status, result.nit) == (False, 3, 3)
    result = solve(fun=lambda x: (math.nan, x - 1.0), tol=1e9)
    assert (result.success, result.status, result.nit) == (False, 3, 0)


def test_interrupted():
    def fun(x):
        if x[0] > 0.0:
            raise KeyboardInterrupt
        return pair(x)

    result = solve(fun=fun, learning_rate=0.1)
    assert (result.success, result.status) == (False, 130)
    assert result.fun == result.best_fun == pair(result.x)[0]


def test_stop():
    seen = []

    def stop(xk):
        seen.append(xk)
        if len(seen) == 3:
            raise StopIteration

    result = solve(callback=stop)
    assert (result.success, result.status, result.nit) == (False, 99, 3)
    assert_array_equal(result.x, seen[-1])


def test_callbacks_of_the_house():
    history, early = nb.callbacks.History(), nb.callbacks.EarlyStopping(patience=2)
    result = solve(learning_rate=0.1, callback=[history, early], maxiter=50)
    assert result.status == 99
    assert history.loss == result.history[1:]
    assert result.fun == result.best_fun == early.best
    assert_array_equal(result.x, result.best_x)
    assert "jac" not in result  # it would be that of another point
    assert history.grad_norm[0] == pytest.approx(np.linalg.norm(np.array(X0) - 1))


# --- what a newcomer writes first ------------------------------------------------------------------


@every_method
def test_no_gradient(method, kind):
    for jac in (None, False, "2-point"):
        with pytest.raises(TypeError, match=f"nb.scipy.{method.__name__} needs the gradient.*jac=True"):
            minimize(rosen, X0, method=method, jac=jac)


def test_a_pair_beside_a_gradient():
    with pytest.raises(TypeError, match=r"jac=True says that fun returns \(loss, gradient\)"):
        solve(jac=rosen_der)


def test_no_pair():
    with pytest.raises(TypeError, match=r"jac=True says that fun returns \(loss, gradient\), but"):
        solve(fun=rosen)
    with pytest.raises(TypeError, match=r"jac=True says that fun returns \(loss, gradient\), but"):
        solve(fun=lambda x: None)


def test_a_mistake_in_the_function_is_its_own():
    with pytest.raises(IndexError, match="out of bounds"):
        solve(fun=lambda x: (x[7], x))
    with pytest.raises(TypeError, match="NoneType"):
        solve(fun=lambda x: (x + None, x))


GRADIENTS = {
    "short": (np.ones(2), ParameterError, r"shape \(3,\), got \(2,\)"),
    "number": (1.0, ParameterError, r"shape \(3,\), got \(1,\)"),
    "row": (np.ones((1, 3)), ParameterError, r"got \(1, 3\)"),
    "column": (np.ones((3, 1)), ParameterError, r"got \(3, 1\)"),
    "none": ([None] * 3, TypeError, "real numbers"),
    "nothing": (None, TypeError, "jac must return the gradient, got None; is the return missing"),
    "complex": (np.ones(3) * 1j, TypeError, "real numbers"),
    "masked": (
        np.ma.masked_array(np.ones(3), [0, 1, 0]),
        ParameterError,
        "the whole gradient, got one with masked",
    ),
}


@pytest.mark.parametrize(("gradient", "error", "words"), expand("", GRADIENTS))
def test_what_is_no_gradient(gradient, error, words):
    with pytest.raises(error, match=words):
        solve(fun=lambda x: (1.0, gradient))


WRONG = {
    "torch": ({"lr": 0.1}, TypeError, "no option 'lr'; did you mean 'learning_rate'[?] Options: "),
    "misspelt": ({"learning_rat": 0.1}, TypeError, "'learning_rat'; did you mean 'learning_rate'"),
    "of-scipy": ({"gtol": 1e-5}, TypeError, "no option 'gtol'"),
    "parameters": ({"parameters": []}, TypeError, "no option 'parameters'"),
    "of-another": ({"beta1": 0.5}, TypeError, "nb.scipy.momentum has no option 'beta1'"),
    "range": ({"momentum": 1.5}, HyperparameterError, "momentum"),
    "maxiter": ({"maxiter": -1}, HyperparameterError, "maxiter"),
    "tolerance": ({"tol": -1.0}, HyperparameterError, "tol"),
    "tolerance-text": ({"tol": "small"}, TypeError, "tol must be a number, got str 'small'"),
    "callback": ({"callback": nb.callbacks.History}, TypeError, r"write History\(...\)"),
}


@pytest.mark.parametrize(("given", "error", "words"), expand("", WRONG))
def test_wrong_options(given, error, words):
    with pytest.raises(error, match=words):
        solve(**given)


@pytest.mark.parametrize("x0", [[1j, 2.0], ["a"], [None]])
def test_what_is_no_start(x0):
    with pytest.raises(TypeError, match="real numbers"):
        solve(x0)


def test_a_matrix_is_no_start():
    with pytest.raises(ValueError, match="one dimension"):  # by SciPy
        solve(np.ones((2, 3)))
    with pytest.raises(ParameterError, match=r"one dimension.*x0.ravel\(\)"):
        nb.scipy.sgd(rosen, np.ones((2, 3)), jac=rosen_der)


UNUSED = {
    "hess": ({"hess": lambda x: np.eye(3)}, r"does not use Hessian information \(hess\)"),
    "hessp": ({"hessp": lambda x, p: p}, r"does not use Hessian-vector product information \(hessp\)"),
    "constraints": ({"constraints": {"type": "eq", "fun": np.sum}}, "cannot handle constraints"),
}


@pytest.mark.parametrize(("given", "words"), expand("", UNUSED))
def test_what_is_not_used(given, words):
    """In the words of SciPy's methods, and told of the line that calls `minimize`."""
    with pytest.warns(RuntimeWarning, match=f"Method nb.scipy.momentum {words}") as caught:
        solve(maxiter=1, **given)
    assert caught[0].filename == __file__


# --- at home ---------------------------------------------------------------------------------------


def test_display(capsys):
    solve(maxiter=2)
    assert capsys.readouterr().out == ""
    solve(maxiter=2, disp=True)
    shown = capsys.readouterr().out
    assert shown.startswith("Maximum number of iterations has been exceeded.\n")
    assert "Iterations: 2\n" in shown
    assert "Function evaluations: 3\n" in shown


def test_inside_another_solver():
    """Basin hopping calls a method as it calls its own."""
    options = {"learning_rate": 0.01, "maxiter": 300}
    seed = {"rng" if "rng" in inspect.signature(basinhopping).parameters else "seed": 0}  # since SciPy 1.15
    found = basinhopping(
        lambda x: (
            np.cos(14.5 * x[0] - 0.3) + (x[0] + 0.2) * x[0],
            -14.5 * np.sin(14.5 * x - 0.3) + 2 * x + 0.2,
        ),
        [1.0],
        niter=20,
        **seed,
        minimizer_kwargs={"jac": True, "method": nb.scipy.momentum, "options": options},
    )
    assert found.fun == pytest.approx(-1.0009, abs=1e-4)


def test_the_name_hides_nothing():
    """Inside the package, scipy is SciPy."""
    assert nb.scipy.__name__ == "nbopt.interop.scipy"
    assert nb.scipy.OptimizeResult.__module__.startswith("scipy.optimize")
    assert "scipy" in dir(nb)
    assert "scipy" not in nb.__all__
