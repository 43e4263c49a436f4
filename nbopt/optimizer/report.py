"""What an optimizer tells of its steps: how many, and what the last one measured."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np

from nbopt.kernels import scalars, trees
from nbopt.kernels import tables as t
from nbopt.optimizer import environment, state
from nbopt.optimizer.explain import Explanation, explain
from nbopt.optimizer.nonfinite import raise_found
from nbopt.strict import Strict

if TYPE_CHECKING:
    from nbopt.buffer import ParameterBuffer
    from nbopt.optimizer.base import Optimizer
    from nbopt.optimizer.tables import Tables
    from nbopt.parameter import Parameter

__all__ = ["Report"]


class Report(Strict):
    """The part of an `Optimizer` that looks back; reading a property raises what is left to raise first."""

    _public = frozenset({"name"})
    _instead = MappingProxyType(
        {
            "learning_rate": "opt.set_lr(value)",
            "lr": "opt.set_lr(value)",
            "grad_clip": "opt.param_groups[0]['grad_clip'] = clip",
            "weight_decay": "opt.param_groups[0]['weight_decay'] = value",
            "param_groups": "opt.param_groups[0][key] = value, or opt.add_param_group(group)",
            "parameters": "opt.add_param_group(group)",
            "step_count": "opt.set_state_dict(state)",
        }
    )
    _buffer: ParameterBuffer
    _tables: Tables
    _last_loss: float | None

    def _mend(self, name: str) -> str:
        if name in self._tables.rule.hyper:
            return f"write opt.param_groups[0][{name!r}] = value"
        return super()._mend(name)

    def check(self) -> None:
        """Raise what a step has found and not yet raised.

        Reading a property, or `get_lr`, does so too; on a GPU only where that waits for the steps anyhow.

        Warns
        -----
        FloatEnvironmentWarning
            If subnormal numbers were taken for zero in a step since the last call of this.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
        >>> opt.check()
        """
        environment.warn_found(self._tables)
        self._raise_found()

    def _raise_found(self) -> None:
        raise_found(self._tables, self._buffer)

    def _raise_at_hand(self) -> None:
        """Raise where that waits for no device: what is read then is on the host."""
        if self._tables.memory.is_host:
            self._raise_found()

    @property
    def step_count(self) -> int:
        """Steps taken, without those that were refused.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
        >>> opt.step({"w": [1.0]})
        >>> opt.step_count
        1
        """
        self._raise_found()
        return int(self._tables.counters[t.STEPS])

    @property
    def steps_skipped(self) -> int:
        """Steps refused for a non-finite gradient.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [1.0]})
        >>> opt = nb.optimizer.SGD(0.1, params, nonfinite="skip")
        >>> opt.step({"w": [float("nan")]})
        >>> opt.steps_skipped, opt.step_count
        (1, 0)
        """
        self._raise_found()
        return int(self._tables.counters[t.SKIPPED])

    @property
    def overflowed(self) -> dict[str, int]:
        """How many elements are not finite, of each array that moves and of its accumulators, by name.

        Under ``nonfinite="raise"`` and ``"skip"`` no step takes a non-finite gradient: what is counted here
        are updates of finite gradients that overflowed, if the program has not written such values itself. It
        is counted when it is read, over all elements; a step does not look.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.Momentum(1e300, 0.9, nb.ParameterBuffer.from_arrays({"w": [1.0, 2.0]}))
        >>> opt.step({"w": [1e10, 0.0]})
        >>> opt.overflowed, opt.steps_skipped
        ({'w': 1}, 0)
        """
        self._raise_found()
        return state.overflowed(cast("Optimizer", self))

    @property
    def last_loss(self) -> float | None:
        """The loss of the last `Optimizer.minimize` that had one.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0]}))
        >>> _ = opt.minimize(0.5)
        >>> opt.last_loss
        0.5
        """
        self._raise_at_hand()
        return self._last_loss

    @property
    def grad_norm(self) -> float | None:
        """Norm of all gradients of the last step, after rescale, before clipping.

        None where the last step was refused, or did not measure every gradient: under
        ``nonfinite="propagate"`` without a clip by norm.

        Frozen parameters and absent gradients do not enter; with weight norm, those of g and v do.

        Examples
        --------
        >>> import nbopt as nb
        >>> opt = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"w": [1.0, 1.0]}))
        >>> opt.step({"w": [3.0, 4.0]})
        >>> opt.grad_norm
        5.0
        """
        self._raise_found()
        if not self._tables.counters[t.MEASURED]:
            return None
        names = self._tables.layout.names
        order = sorted(range(len(names)), key=names.__getitem__)
        rows = self._tables.coefficients[order]
        active = rows[:, t.COEFFICIENT_ACTIVE] != 0.0
        rescale = np.where(active, np.abs(rows[:, t.COEFFICIENT_RESCALE]), 0.0)
        largest = float(rescale.max(initial=0.0))
        if largest == 0.0:
            return 0.0
        squares = rows[:, t.COEFFICIENT_SQUARE : t.COEFFICIENT_SQUARE + t.BINS].T
        sums = np.where(active, squares * (rescale / largest) ** 2, 0.0)
        low, middle, high = (float(trees.pairwise(sums, b, 0, 1, len(order))) for b in range(t.BINS))
        norm, scale = scalars.magnitude_of(low, middle, high)
        return float(largest * norm * scale)

    @property
    def clip_coefficients(self) -> dict[str, float]:
        """What clipping multiplied the gradients by in the last step, by name; 1 for what it left alone.

        Frozen parameters and absent gradients are left out; with weight norm, the names are those of g and v.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays({"w": [0.0, 0.0], "b": [0.0]})
        >>> opt = nb.optimizer.SGD(0.1, params, grad_clip=nb.ClipGradByNorm(2.0))
        >>> opt.step({"w": [3.0, 4.0], "b": [1.0]})
        >>> {name: round(c, 6) for name, c in opt.clip_coefficients.items()}
        {'w': 0.4, 'b': 1.0}
        """
        self._raise_found()
        return {
            self._tables.layout.names[s]: float(row[t.COEFFICIENT_CLIP])
            for s, row in enumerate(self._tables.coefficients[:])
            if row[t.COEFFICIENT_ACTIVE]
        }

    def explain(self, name: Parameter | str | None = None) -> tuple[Explanation, ...]:
        """Print how parameters are treated: rate, regularizer, decay, clip, weight norm, frozen or absent.

        Parameters
        ----------
        name : str or Parameter, optional
            One parameter; all of this optimizer by default.

        Returns
        -------
        tuple of Explanation
            What was printed, one per array that moves: with weight norm, one of g and one of v.

        Examples
        --------
        >>> import nbopt as nb
        >>> params = nb.ParameterBuffer.from_arrays(
        ...     {"w": [1.0], "b": [0.0]}, attrs={"b": nb.ParamAttr(learning_rate=2.0, need_clip=False)}
        ... )
        >>> clip = nb.ClipGradByGlobalNorm(1.0)
        >>> opt = nb.optimizer.SGD(0.1, parameters=params, weight_decay=0.01, grad_clip=clip)
        >>> opt.step({"w": [2.0], "b": [1.0]})
        >>> _ = opt.explain("b")
        b
          state        moves
          rate         0.2 = 0.1 (base) x 1 (group) x 2 (parameter)
          regularizer  L2Decay(coeff=0.01): the optimizer's, as the parameter has none
          clip         none: need_clip is False, so ClipGradByGlobalNorm leaves it out
        >>> round(opt.explain("w")[0].rate, 6)
        w
        ...
          clip         ...; the last step multiplied by 0.5
        0.1
        """
        self._raise_found()
        found = explain(cast("Optimizer", self), name)
        print("\n".join(map(str, found)))  # noqa: T201 - it is what the method is for
        return found
