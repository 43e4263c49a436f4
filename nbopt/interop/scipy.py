"""Methods for `scipy.optimize.minimize`, reached as ``nb.scipy``: the optimizers, on a plain vector.

A function of named parameters is minimized by `nbopt.minimize`, whose loop this is.
"""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, OptimizeResult

import nbopt as nb
from nbopt.errors import HyperparameterError, NonFiniteGradientError, ParameterError

__all__ = ["adam", "adamw", "momentum", "sgd"]

Vector = NDArray[np.float64]


def momentum(fun: Callable[..., Any], x0: ArrayLike, args: Any = (), **options: Any) -> OptimizeResult:
    """Minimize by gradient descent with momentum, as a method of `scipy.optimize.minimize`.

    Parameters
    ----------
    fun, x0, args
        As `scipy.optimize.minimize` hands them over. `x0` is copied, to float64.
    **options
        Arguments of `nbopt.optimizer.Momentum` by name, but for ``parameters``, and these of every method:
        ``maxiter``, the most iterations (1000); ``tol``, where to stop (1e-5; None takes all iterations);
        ``disp``, to print a summary at the end.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As of `nbopt.minimize`, with ``njev``, and with ``jac`` where x is the last point that was evaluated.
        ``success`` is True where the tolerance was reached, or where there was none. A gradient that is not
        finite ends the run with status 3, unless the option ``nonfinite="raise"`` asks for the error.

    Raises
    ------
    TypeError
        If there is no gradient, or an option is unknown.
    ParameterError, HyperparameterError
        If an array has a wrong shape, or an option a wrong value.

    Notes
    -----
    An iteration is a step, and an evaluation of `fun` and the gradient at where it leads. A run ends where no
    element of the gradient is larger in size than ``tol``; with bounds, of the projected gradient
    ``x - clip(x - g, lower, upper)``. Of the other arguments of `scipy.optimize.minimize`:

    - ``jac`` is the gradient, or True where `fun` returns the pair of loss and gradient.
    - ``bounds``: `x0`, and x after every step, are moved to the nearest point inside.
    - ``callback`` is as of `nbopt.minimize`.
    - ``hess``, ``hessp`` and ``constraints`` are not used, with a RuntimeWarning where they are given.

    Examples
    --------
    >>> from scipy.optimize import minimize, rosen, rosen_der
    >>> import nbopt as nb
    >>> options = {"learning_rate": 3e-4, "momentum": 0.95, "maxiter": 5000}
    >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=nb.scipy.momentum, options=options)
    >>> result.success, result.x.round(3), result.fun < 1e-8
    (True, array([1., 1.]), True)
    """
    return _run(nb.optimizer.Momentum, fun, x0, args, **options)


def sgd(fun: Callable[..., Any], x0: ArrayLike, args: Any = (), **options: Any) -> OptimizeResult:
    """Minimize by gradient descent, as a method of `scipy.optimize.minimize`.

    Parameters
    ----------
    fun, x0, args
        As of `momentum`.
    **options
        As of `momentum`, with the arguments of `nbopt.optimizer.SGD`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As of `momentum`.

    Examples
    --------
    >>> from scipy.optimize import minimize
    >>> import nbopt as nb
    >>> def fun(x):
    ...     return 0.5 * x @ x - x.sum(), x - 1.0
    >>> bounds = [(None, 0.5), (0.0, None)]
    >>> options = {"learning_rate": 0.5}
    >>> result = minimize(fun, [3.0, 3.0], jac=True, method=nb.scipy.sgd, bounds=bounds, options=options)
    >>> result.success, result.x.round(3)
    (True, array([0.5, 1. ]))
    """
    return _run(nb.optimizer.SGD, fun, x0, args, **options)


def adam(fun: Callable[..., Any], x0: ArrayLike, args: Any = (), **options: Any) -> OptimizeResult:
    """Minimize by Adam, as a method of `scipy.optimize.minimize`.

    Parameters
    ----------
    fun, x0, args
        As of `momentum`.
    **options
        As of `momentum`, with the arguments of `nbopt.optimizer.Adam`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As of `momentum`.

    Examples
    --------
    >>> from scipy.optimize import minimize, rosen, rosen_der
    >>> import nbopt as nb
    >>> options = {"learning_rate": 0.1, "maxiter": 2000}
    >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=nb.scipy.adam, options=options)
    >>> result.success, result.x.round(3)
    (True, array([1., 1.]))
    """
    return _run(nb.optimizer.Adam, fun, x0, args, **options)


def adamw(fun: Callable[..., Any], x0: ArrayLike, args: Any = (), **options: Any) -> OptimizeResult:
    """Minimize by AdamW, as a method of `scipy.optimize.minimize`.

    Its weight decay, 0.01 unless the options say otherwise, pulls x towards zero and away from the minimum of
    `fun`; the tolerance, which is on the gradient of `fun`, is then not reached.

    Parameters
    ----------
    fun, x0, args
        As of `momentum`.
    **options
        As of `momentum`, with the arguments of `nbopt.optimizer.AdamW`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As of `momentum`.

    Examples
    --------
    >>> from scipy.optimize import minimize
    >>> import nbopt as nb
    >>> options = {"learning_rate": 0.1, "weight_decay": 0.0, "maxiter": 2000}
    >>> def fun(x):
    ...     return 0.5 * x @ x - x.sum(), x - 1.0
    >>> minimize(fun, [3.0, -3.0], jac=True, method=nb.scipy.adamw, options=options).x.round(3)
    array([1., 1.])
    """
    return _run(nb.optimizer.AdamW, fun, x0, args, **options)


# --- how --------------------------------------------------------------------------------------------


def _run(
    kind: type[nb.Optimizer],
    fun: Callable[..., Any],
    x0: ArrayLike,
    args: Any,
    *,
    jac: Callable[..., Any] | None = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Any = None,
    maxiter: int = 1000,
    tol: Any = 1e-5,
    disp: bool = False,
    **options: Any,
) -> OptimizeResult:
    name = f"nb.scipy.{kind.__name__.lower()}"
    if not callable(jac):
        raise TypeError(
            f"{name} needs the gradient, and makes no finite differences: write minimize(fun, x0, "
            f"jac=gradient, method={name}) with a function, or jac=True where fun returns (loss, gradient)"
        )
    _warn_of_unused(name, hess=hess, hessp=hessp, constraints=constraints)
    _check_options(name, kind, options)
    start = np.atleast_1d(np.asarray(x0))
    if start.dtype.kind not in "iuf":
        raise TypeError(f"x0 must hold real numbers, got dtype {start.dtype}; write minimize(fun, x0, ...)")
    if start.ndim != 1:
        raise ParameterError(f"x0 must have one dimension, got shape {start.shape}; write x0.ravel()")
    params = nb.ParameterBuffer.from_arrays({"x": start}, dtype="float64")
    opt = kind(parameters=params, **options)
    if not isinstance(tol, numbers.Real | None):
        raise TypeError(f"tol must be a number, got {type(tol).__name__} {tol!r}")
    limit = None if tol is None else float(tol)
    if limit is not None and not limit >= 0.0:
        raise HyperparameterError(f"tol must be a number >= 0, got {tol!r}")
    args = args if isinstance(args, tuple) else (args,)
    problem = _Problem(fun, jac, args, _limits(bounds, start.size), limit, params["x"])
    result = _solve(problem, params, opt, callback, maxiter, raises=options.get("nonfinite") == "raise")
    if disp:
        lines = [
            result.message,
            f"         Current function value: {result.fun:f}",
            f"         Iterations: {result.nit}",
            f"         Function evaluations: {result.nfev}",
            f"         Gradient evaluations: {result.njev}",
        ]
        print("\n".join(lines))  # noqa: T201 - it is what the option is for
    return result


def _solve(
    problem: _Problem,
    params: nb.ParameterBuffer,
    opt: nb.Optimizer,
    callback: Any,
    maxiter: int,
    raises: bool,
) -> OptimizeResult:
    callbacks = [] if callback is None else [callback] if callable(callback) else list(callback)
    problem.look_ahead(params)
    most = 0 if problem.converged else maxiter
    try:
        result = nb.minimize(problem, params, opt, maxiter=most, callback=[problem.stop, *callbacks])
    except NonFiniteGradientError as error:
        if raises or error.result is None:
            raise
        result = error.result
    at_last = np.array_equal(result.x, problem.x, equal_nan=True)  # neither put back nor interrupted
    if problem.converged and at_last and not math.isfinite(result.fun):
        result.update(success=False, status=3, message="The loss is not finite.")
    elif problem.converged and at_last and result.status in (0, 99):
        result.update(success=True, status=0, message="No element of the gradient is larger than tol.")
    elif problem.tol is not None and result.status == 0:
        result.update(success=False, status=1, message="Maximum number of iterations has been exceeded.")
    result.njev = result.nfev
    if at_last:
        result.jac = problem.gradient
    return result


class _Problem:
    """The function of a buffer that a function and a gradient of a vector are."""

    def __init__(
        self,
        fun: Callable[..., Any],
        jac: Callable[..., Any],
        args: tuple[Any, ...],
        limits: tuple[Vector, Vector] | None,
        tol: float | None,
        variable: nb.Parameter,
    ):
        self._fun, self._jac, self._args, self._limits, self.tol = fun, jac, args, limits, tol
        self._variable = variable
        self._ahead: Any = None
        self.converged = False

    def look_ahead(self, params: nb.ParameterBuffer) -> None:
        """Evaluate the first point; the next call gives what was found."""
        self._ahead = (self(params),)

    def __call__(self, params: nb.ParameterBuffer) -> Any:
        if self._ahead is not None:
            (loss,), self._ahead = self._ahead, None
            return loss
        x = self._variable.value
        if self._limits is not None:
            np.clip(x, *self._limits, out=x)
        self.x = x.copy()
        loss = self._loss()
        if isinstance(loss, tuple):
            raise TypeError(
                f"fun must return the loss alone where jac is a function, got a tuple of {len(loss)}; "
                "jac=True says that fun returns (loss, gradient)"
            )
        gradient = self._jac(self.x.copy(), *self._args)
        if gradient is None:
            raise TypeError("jac must return the gradient, got None; is the return missing?")
        if np.ma.is_masked(gradient):
            raise ParameterError("jac must return the whole gradient, got one with masked elements")
        gradient = np.atleast_1d(np.asarray(gradient))
        if gradient.shape != self.x.shape:
            raise ParameterError(f"jac must return a gradient of shape {self.x.shape}, got {gradient.shape}")
        if gradient.dtype.kind not in "iuf":
            raise TypeError(f"jac must return real numbers, got dtype {gradient.dtype}")
        self.gradient = self._variable.grad = gradient.astype(np.float64)
        self.converged = self.tol is not None and bool(np.all(np.abs(self._slope()) <= self.tol))
        return loss

    def _loss(self) -> Any:
        try:
            return self._fun(self.x.copy(), *self._args)
        except (IndexError, TypeError) as error:
            # With jac=True, fun and jac are of an object of SciPy, which takes the pair apart.
            (*_, innermost) = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
            code = getattr(getattr(type(self._fun), innermost.co_name, None), "__code__", None)
            if getattr(self._jac, "__self__", None) is not self._fun or code is not innermost:
                raise
            raise TypeError(
                "jac=True says that fun returns (loss, gradient), but it returns no pair"
            ) from error

    def _slope(self) -> Vector:
        """Return the gradient as far as one can go."""
        if self._limits is None:
            return self.gradient
        slope: Vector = self.x - np.clip(self.x - self.gradient, *self._limits)
        return slope

    def stop(self, intermediate_result: OptimizeResult) -> None:
        if self.converged:
            raise StopIteration


def _warn_of_unused(name: str, **given: Any) -> None:
    unused = {
        "hess": "does not use Hessian information (hess)",
        "hessp": "does not use Hessian-vector product information (hessp)",
        "constraints": "cannot handle constraints",
    }
    for argument, value in given.items():
        if value is not None and not (isinstance(value, (tuple, list)) and not value):
            warnings.warn(f"Method {name} {unused[argument]}.", RuntimeWarning, stacklevel=5)


def _check_options(name: str, kind: type[nb.Optimizer], options: dict[str, Any]) -> None:
    legal = ["maxiter", "tol", "disp", *inspect.signature(kind).parameters]
    legal.remove("parameters")
    for option in options:
        if option not in legal:
            close = difflib.get_close_matches(option.replace("lr", "learning_rate"), legal, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? Options" if close else "options"
            raise TypeError(f"{name} has no option {option!r}; {hint}: {', '.join(legal)}")


def _limits(bounds: Any, size: int) -> tuple[Vector, Vector] | None:
    """Return lower and upper limits, of either form that SciPy takes."""
    if bounds is None:
        return None
    if isinstance(bounds, Bounds):
        pair = [bounds.lb, bounds.ub]
    else:
        form = f"bounds must be Bounds(lower, upper), or {size} pairs for {size} variables"
        try:
            pairs = [tuple(item) for item in bounds]
        except TypeError as cause:
            raise TypeError(f"{form}, got {bounds!r:.60}") from cause
        if len(pairs) != size or any(len(item) != 2 for item in pairs):
            raise ParameterError(form)
        pair = [
            [default if item[end] is None else item[end] for item in pairs]
            for end, default in enumerate((-np.inf, np.inf))
        ]
    try:
        lower, upper = (np.broadcast_to(np.asarray(limit, np.float64), (size,)) for limit in pair)
    except ValueError as cause:
        raise ParameterError(f"bounds do not fit {size} variables: {cause}") from cause
    for i in np.flatnonzero(~(lower <= upper)):
        raise ParameterError(f"bounds of x[{i}] have lower {lower[i]:g} and upper {upper[i]:g}")
    return lower, upper
