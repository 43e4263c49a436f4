"""How an optimizer steps: from Python, from compiled code, on some of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import ArrayLike, NDArray

from nbopt._validation import as_flag
from nbopt.collection import ParameterCollection
from nbopt.errors import ConcurrencyError, DeviceError
from nbopt.kernels import tables as t
from nbopt.optimizer import environment, partial
from nbopt.optimizer.report import Report
from nbopt.parameter import Parameter

if TYPE_CHECKING:
    from nbopt.kernels.cpu.jit import JitState
    from nbopt.kernels.cpu.run import BoundStep

__all__ = ["Stepping"]


class Stepping(Report):
    """The part of an `Optimizer` that moves parameters."""

    _groups: Sequence[Mapping[str, Any]]
    _run: Callable[[], int]

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters, in group order.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0], "b": [0.0]})
        >>> nb.optimizer.SGD(0.1, params.select("b")).parameters
        [Parameter('b', shape=(1,), float64)]
        """
        self._raise_at_hand()
        return self._held()

    def _held(self) -> list[Parameter]:
        return [p for group in self._groups for p in group["params"]]

    def _first_run(self) -> int:
        self.compile()
        return self._run()

    def compile(self) -> None:
        """Make machine code now, else the first step does; another number of threads may need other code.

        Examples
        --------
        >>> import nbopt as nb
        >>> nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]})).compile()
        """
        run = self._tables.program.entry()
        prepare = getattr(self._buffer, "_prepare_step", self._buffer.gather_grads)
        if type(self._buffer).gather_grads is ParameterCollection.gather_grads:
            self._run = run
            return

        def prepare_and_run() -> int:
            prepare()
            return run()

        self._run = prepare_and_run

    def jit_step(self) -> tuple[Callable[[JitState], int], JitState]:
        """Return the whole step as a compiled function, and its argument, for compiled code of your own.

        Returns
        -------
        step_fn : numba dispatcher
            ``step_fn(state)`` takes a step without the GIL and returns 0; or 1 if a gradient was not finite
            and nothing changed, which under ``nonfinite="raise"`` stays so until `check` has raised it; or 2
            if another thread is stepping this optimizer. The bits are those of `step`.
        state : JitState
            Live: it sees every edit of the optimizer and its parameters. ``state.lr[0]`` is the base learning
            rate, which compiled code may set, unchecked. Pass it as an argument. The number of threads is
            Numba's at the time of this call; under the workqueue layer, one.

        Examples
        --------
        >>> import numba
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [4.0]})
        >>> opt = nb.optimizer.SGD(0.25, params)
        >>> step, state = opt.jit_step()
        >>> @numba.njit
        ... def train(state, w, dw, steps):
        ...     for _ in range(steps):
        ...         dw[:] = 2 * w
        ...         if step(state):
        ...             return False
        ...         state.lr[0] *= 0.5
        ...     return True
        >>> w = params["w"]
        >>> train(state, w.value, w.grad, 2)
        True
        >>> w.value, opt.step_count, opt.get_lr()
        (array([1.5]), 2, 0.0625)
        """
        if not self._tables.memory.is_host:
            raise DeviceError(
                f"jit_step() is for compiled code of the CPU, which cannot step arrays on "
                f"{self._buffer.device}; call step(), or make the ParameterBuffer with device='cpu'"
            )
        from nbopt.kernels.cpu.jit import JitState, jit_step

        self._tables.is_lent = True
        rates = self._tables.memory.array_of(self._tables.rates)
        return jit_step, JitState(rates, cast("BoundStep", self._tables.program).call())

    def step(self, grads: Mapping[str, ArrayLike | None] | ArrayLike | None = None) -> None:
        """Take one step.

        Parameters
        ----------
        grads : mapping of str to array_like, or vector, optional
            Gradients to copy in first, as in `ParameterBuffer.set_grads`. Of a mapping, this optimizer's
            parameters that it leaves out become absent.

        Raises
        ------
        NonFiniteGradientError
            If a gradient holds NaN or Inf, under ``nonfinite="raise"``; nothing was changed.
        ConcurrencyError
            If another thread is stepping this optimizer; nothing was changed by this call.

        Warns
        -----
        FloatEnvironmentWarning
            If subnormal numbers were taken for zero; once per process.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]})
        >>> opt = nb.optimizer.SGD(0.5, params)
        >>> opt.step({"w": [1.0, -1.0]})
        >>> params["w"].value
        array([0.5, 2.5])
        """
        if grads is not None:
            partial.step_with(self, grads)
            return
        code = self._run()
        if code:
            self._look_at(code)

    def _look_at(self, code: int) -> None:
        if code >= t.FLUSHING:
            environment.warn_once(self._tables)
            code -= t.FLUSHING
        if code:
            self._refused(code)

    def _refused(self, code: int) -> None:
        if code == t.CONCURRENT:
            raise ConcurrencyError(
                f"another thread is stepping this {type(self).__name__}; give each thread an optimizer "
                "of its own, or hold a lock around step()"
            )
        self._raise_found()

    def minimize(
        self,
        loss: float | Callable[[], Any] | None = None,
        startup_program: Any = None,
        parameters: Iterable[Parameter | str] | None = None,
        no_grad_set: Iterable[Parameter | str] | None = None,
    ) -> tuple[list[Any], list[tuple[Parameter, NDArray[Any]]]]:
        """Take one step on some of the parameters.

        Parameters
        ----------
        loss : float or callable, optional
            A callable writes the gradients and returns the loss; the number is then `last_loss`.
        startup_program : object
            Accepted as in Paddle and not used.
        parameters : iterable of Parameter or str, optional
            Move only these.
        no_grad_set : iterable of Parameter or str, optional
            Do not move these.

        Returns
        -------
        tuple
            An empty list, and the pairs (parameter, gradient) that took part.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [3.0]})
        >>> w = params["w"]
        >>> opt = nb.optimizer.SGD(0.5, params)
        >>> def loss():
        ...     w.grad = 2 * w.value
        ...     return float(w.value @ w.value)
        >>> _ = opt.minimize(loss)
        >>> opt.last_loss, w.value
        (9.0, array([0.]))
        """
        return partial.minimize(self, loss, parameters, no_grad_set)

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Fill the gradients of this optimizer's parameters with zeros.

        Parameters
        ----------
        set_to_zero : bool
            False also marks them absent: steps skip a parameter until its gradient is written again.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt = nb.optimizer.SGD(0.1, params, weight_decay=0.5)
        >>> opt.clear_grad(set_to_zero=False)
        >>> opt.step()
        >>> params["w"].value
        array([1.])
        """
        keep = as_flag(set_to_zero, "set_to_zero")
        own = dict.fromkeys(parameter._parent or parameter for parameter in self._held())
        if len(own) == len(self._buffer):
            self._buffer.clear_grad(keep)
            return
        self._buffer.gather_grads()
        for parameter in own:
            parameter.clear_grad(keep)

    def zero_grad(self) -> None:
        """Fill the gradients of this optimizer's parameters with zeros; torch's name of `clear_grad`.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt = nb.optimizer.SGD(0.1, params)
        >>> params["w"].grad = [3.0]
        >>> opt.zero_grad()
        >>> params["w"].grad
        array([0.])
        """
        self.clear_grad()
