"""`nbopt.minimize`: the loop around a function and an optimizer, with the habits of `scipy.optimize`."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from nbopt._calls import check_calls
from nbopt._validation import as_flag, as_integer, as_number, as_returned_loss
from nbopt.buffer import ParameterBuffer
from nbopt.callbacks import ProgressBar
from nbopt.errors import NonFiniteGradientError, ParameterError
from nbopt.optimizer import Optimizer
from nbopt.optimizer.lr import ReduceOnPlateau

__all__ = ["minimize"]

Vector = NDArray[Any]

# status: success, message
ENDS = {
    0: (True, "All iterations were taken."),
    1: (False, "Maximum number of iterations has been exceeded."),
    3: (False, "The loss is not finite."),
    99: (False, "`callback` raised `StopIteration`."),
    130: (False, "Interrupted; x is the best point so far."),
}
CONVERGED = "No element of the gradient is larger than tol."


HINTS = {
    "jac": "fun writes the gradients into the parameters, as in params['w'].grad = dw",
    "bounds": "scipy.optimize.minimize(..., bounds=bounds, method=nb.scipy.momentum) keeps bounds",
    "options": "write maxiter=... itself, and what is the optimizer's to the optimizer",
}


@partial(check_calls, hints=HINTS)
def minimize(
    fun: Callable[..., Any],
    params: ParameterBuffer,
    opt: Optimizer,
    *,
    maxiter: int,
    args: Any = (),
    callback: Callable[..., Any] | Iterable[Callable[..., Any]] | None = None,
    progress: bool = False,
    tol: float | None = None,
) -> OptimizeResult:
    """Minimize a function of the parameters, as a SciPy user would.

    An iteration is a step of the optimizer, an evaluation at where it leads, a step of the optimizer's
    schedule, if it follows one, and a call of the callbacks. One evaluation comes before the first.

    Parameters
    ----------
    fun : callable
        ``fun(params, *args)`` writes all gradients and returns the loss: a number, or an array or tensor of
        size 1.
    params : ParameterBuffer
        Moved in place.
    opt : Optimizer
        Of parameters of `params`. It goes on from where it is, and can go on afterwards: two calls of 5
        iterations give the bits of one of 10.
    maxiter : int
        Iterations to take.
    args : tuple
        Further arguments of `fun`; what is no tuple is the only one.
    callback : callable or sequence of callable, optional
        Called after each iteration: as ``callback(intermediate_result=result)`` where that is its one
        parameter, else as ``callback(xk)``. The result has `x`, `fun`, `nit`, `nfev`, `params`, `opt`, and
        `lr`, the rate of the step. All of several are called in order; where one raises StopIteration, the
        run stops. At the end, those that have a method ``close`` are closed. `nbopt.callbacks` has some.
    progress : bool
        Show a progress bar, by tqdm.
    tol : float, optional
        Stop where no element of the gradient is larger in size. What counts are the gradients of what the
        optimizer moves, as written by `fun`: with weight norm those of g and v, of no frozen parameter, and
        without penalties of the optimizer.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x`` is what the parameters hold, ``params.to_vector(space="trainable")``, and ``fun`` the loss
        there. ``history`` lists the losses, from that of the start on; ``best_x`` and ``best_fun`` are where
        the loss was lowest. ``nit`` counts iterations, ``nfev`` evaluations. ``message`` tells why the run
        ended, and ``status`` in short: 0 for the tolerance, or for `maxiter` without one (``success`` is True
        for these alone), 1 for `maxiter` where the tolerance was not reached, 3 for a last loss that is not
        finite, 99 for StopIteration, 130 for Ctrl-C, which puts the parameters back to the best point.

    Raises
    ------
    TypeError, ParameterError, HyperparameterError
        If an argument cannot be used, or `fun` returns no number or steps.
    NonFiniteGradientError
        Where the optimizer raises one. Its attribute ``result`` is the result so far.

    Warns
    -----
    RuntimeWarning
        If `fun` leaves all gradients at zero when first called.

    Notes
    -----
    A loss that is not finite is never the best one and stops nothing: what to do about a gradient that is not
    finite is said by the optimizer's `nonfinite`. A schedule is stepped here, once per iteration (and
    `ReduceOnPlateau` with the loss), so not in `fun` or in a callback. Other exceptions pass through; the
    parameters are then where the last step led.

    Examples
    --------
    >>> import numpy as np
    >>> import nbopt as nb
    >>> params = nb.ParameterBuffer.from_arrays({"w": [4.0, -2.0]})
    >>> opt = nb.optimizer.Momentum(0.1, 0.5, parameters=params)
    >>> def fun(params, target):
    ...     w = params["w"]
    ...     w.grad = w.value - target
    ...     return 0.5 * np.sum((w.value - target) ** 2)
    >>> result = nb.minimize(fun, params, opt, maxiter=200, args=(1.0,), tol=1e-3)
    >>> result.success, result.message
    (True, 'No element of the gradient is larger than tol.')
    >>> result.x.round(2), len(result.history) == result.nfev == result.nit + 1
    (array([1., 1.]), True)
    """
    maxiter = as_integer(maxiter, "maxiter", low=0)
    limit = None if tol is None else as_number(tol, "tol", low=0.0)
    calls = as_callbacks(callback)
    _check_arguments(fun, params, opt)
    if as_flag(progress, "progress"):
        calls.append(ProgressBar(total=maxiter))
    run = _Run(fun, args if isinstance(args, tuple) else (args,), params, opt, limit)
    try:
        return run.result(run.iterate(maxiter, [(call, _takes_result(call)) for call in calls]))
    except NonFiniteGradientError as error:
        error.result = run.result(3, str(error))
        raise
    finally:
        for call in calls:
            if callable(close := getattr(call, "close", None)):
                close()


class _History(list[float]):
    """Losses in a row, of which a printed result shows the ends."""

    def __str__(self) -> str:
        return str(np.array(self))


class _Run:
    """What is known so far."""

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        params: ParameterBuffer,
        opt: Optimizer,
        tol: float | None,
    ):
        self._fun, self._args, self._params, self._opt, self._tol = fun, args, params, opt, tol
        self._history = _History()
        self._best_x, self._best = self._x(), math.nan
        self._loss = math.nan
        self._stop = ""

    @property
    def _nit(self) -> int:
        return max(len(self._history) - 1, 0)

    def iterate(self, maxiter: int, callbacks: list[tuple[Callable[..., Any], bool]]) -> int:
        """Evaluate, and iterate; return the status."""
        self._first(maxiter)
        try:
            while not self._converged():
                if self._nit == maxiter:
                    return self._at_the_end(converged=False)
                if self._iteration(callbacks):
                    return 99
        except KeyboardInterrupt:
            self._keep_best()  # where it came before the last loss was looked at
            self._params.from_vector(self._best_x, space="trainable")
            self._loss, self._stop = self._best, ""
            return 130
        status = self._at_the_end(converged=True)
        self._stop = CONVERGED if status == 0 else ""
        return status

    def _at_the_end(self, converged: bool) -> int:
        if not math.isfinite(self._loss):
            return 3
        return 0 if converged or self._tol is None else 1

    def _first(self, maxiter: int) -> None:
        self._evaluate()
        self._best = self._loss
        if maxiter and not any(g.any() for g in self._gradients()):
            warnings.warn(
                "all gradients are zero after the first fun(params): it must write them, as in "
                "params['w'].grad = dw, and return the loss",
                RuntimeWarning,
                stacklevel=5,
            )

    def _steps(self) -> tuple[int, int]:
        return self._opt.step_count, self._opt.steps_skipped

    def _evaluate(self) -> None:
        before = self._steps()
        self._loss = as_returned_loss(self._fun(self._params, *self._args))
        if self._steps() != before:
            raise ParameterError(
                "fun must not step the optimizer, nor another thread while it runs: take opt.step() out of it"
            )
        self._history.append(self._loss)

    def _keep_best(self) -> None:
        loss = self._history[-1]
        if math.isfinite(loss) and not (math.isfinite(self._best) and self._best <= loss):
            self._best_x, self._best = self._x(), loss

    def _iteration(self, callbacks: list[tuple[Callable[..., Any], bool]]) -> bool:
        """Take a step and look where it led; return whether a callback asks to stop."""
        lr = self._opt.get_lr()
        self._opt.step()
        self._evaluate()
        self._keep_best()
        self._opt.check()  # what a step on CUDA has found
        schedule = self._opt._scheduler
        if isinstance(schedule, ReduceOnPlateau):
            schedule.step(self._loss)
        elif schedule is not None:
            schedule.step()
        stopped = False
        x, loss = self._x() if callbacks else self._best_x, self._loss
        for call, takes_result in callbacks:
            shown = OptimizeResult(x=x.copy(), fun=loss, nit=self._nit, nfev=len(self._history), lr=lr)
            shown.update(params=self._params, opt=self._opt)
            try:
                _show(call, takes_result, shown)
            except StopIteration as stop:
                stopped = True
                self._stop = " ".join([ENDS[99][1], *map(str, stop.args)])
                self._loss = shown.fun  # it may have put the parameters back
        return stopped

    def _x(self) -> Vector:
        return self._params.to_vector(space="trainable")

    def _gradients(self) -> list[Vector]:
        self._params.gather_grads()
        parts = [part for p in self._opt.parameters for part in p._moved]
        return [part._current_grad() for part in parts if part.trainable]

    def _converged(self) -> bool:
        tol = self._tol
        return tol is not None and all((np.abs(g) <= tol).all() for g in self._gradients())

    def result(self, status: int, message: str | None = None) -> OptimizeResult:
        success, text = ENDS[status]
        return OptimizeResult(
            x=self._x(),
            fun=self._loss,
            nit=self._nit,
            nfev=len(self._history),
            success=success,
            status=status,
            message=message or self._stop or text,
            history=self._history,
            best_x=self._best_x,
            best_fun=self._best,
        )


# --- arguments ------------------------------------------------------------------------------------


def _check_arguments(fun: Any, params: Any, opt: Any) -> None:
    if not callable(fun):
        raise TypeError(f"fun must be a function of the parameters, got {type(fun).__name__}")
    if not isinstance(params, ParameterBuffer):
        raise TypeError(
            f"params must be a ParameterBuffer, got {type(params).__name__}; write nb.minimize(fun, params, "
            "opt, ...) with params = nb.ParameterBuffer.from_arrays({'x': x0}), or for a plain vector "
            "scipy.optimize.minimize(fun, x0, jac=True, method=nb.scipy.momentum)"
        )
    if not isinstance(opt, Optimizer):
        got = f"the class {opt.__name__}" if isinstance(opt, type) else type(opt).__name__
        raise TypeError(
            f"opt must be an optimizer, got {got}; write opt = nb.optimizer.Momentum(0.1, parameters=params)"
        )
    for p in opt.parameters:
        if params.get(p.name) is not p:
            raise ParameterError(f"opt moves {p.name!r} of another buffer than params")


def as_callbacks(callback: Any) -> list[Callable[..., Any]]:
    """Return callbacks as a list."""
    if callback is None:
        return []
    found = list(callback) if isinstance(callback, Iterable) and not callable(callback) else [callback]
    for call in found:
        if isinstance(call, type):
            raise TypeError(f"callback {call.__name__} is a class: write {call.__name__}(...)")
        if not callable(call):
            raise TypeError(f"callback must be a function, or a list of functions, got {type(call).__name__}")
    return found


def _show(call: Callable[..., Any], takes_result: bool, result: OptimizeResult) -> None:
    if takes_result:
        call(intermediate_result=result)
        return
    try:
        call(result.x)
    except (AttributeError, TypeError) as error:
        error.add_note(
            "A callback takes the vector xk, or a result with fun, nit and more where the name of its one "
            "parameter is intermediate_result."
        )
        raise


def _takes_result(call: Callable[..., Any]) -> bool:
    """Whether a callback takes a result or, as of old, the vector; SciPy tells so by the parameter's name."""
    try:
        names = set(inspect.signature(call).parameters)
    except ValueError:  # a builtin that does not tell
        return False
    return names == {"intermediate_result"}
