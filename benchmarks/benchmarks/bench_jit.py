"""Steps inside compiled code, and a rule of the user's beside the same one of the package."""

from __future__ import annotations

import numba

import nbopt as nb

from .common import LIMIT, MOMENTUM, RATE, arrays, nbopt_momentum

STEPS = 1000


class JitStep:
    """A thousand steps of ten small parameters under a clip: by a compiled loop, and by one in Python."""

    param_names = ["loop"]
    params = [["compiled", "python"]]

    def setup(self, loop: str) -> None:
        opt = nbopt_momentum("10x100", "clip+l2")
        step, state = opt.jit_step()

        def steps(state: object) -> int:
            refused = 0
            for _ in range(STEPS):
                refused += step(state)
            return refused

        compiled = numba.njit(nogil=True)(steps)
        self.run = {
            "compiled": lambda: compiled(state),
            "python": lambda: [opt.step() for _ in range(STEPS)],
        }[loop]
        self.run()  # compiles

    def time_thousand_steps(self, loop: str) -> None:
        self.run()


@nb.rule
def heavy_ball(param, velocity, grad, lr, momentum, use_nesterov):
    """The arithmetic of `nb.optimizer.Momentum`."""
    velocity = momentum * velocity + grad
    direction = velocity if use_nesterov == 0 else grad + momentum * velocity
    return param - lr * direction, velocity


class Rule:
    """What it costs to bring a rule: nothing, if the two take the same time."""

    param_names = ["layout", "rule"]
    params = [["10x100", "100x1000", "1x1e6"], ["built-in", "own"]]

    def setup(self, layout: str, rule: str) -> None:
        values, grads = ({f"p{i}": a for i, a in enumerate(drawn)} for drawn in arrays(layout))
        params = nb.ParameterBuffer.from_arrays(values, dtype="float32")
        params.set_grads(grads)
        options = {"momentum": MOMENTUM, "use_nesterov": False, "grad_clip": nb.ClipGradByGlobalNorm(LIMIT)}
        if rule == "own":
            self.opt = nb.Optimizer(heavy_ball, RATE, params, **{**options, "use_nesterov": 0.0})
        else:
            self.opt = nb.optimizer.Momentum(RATE, parameters=params, **options)
        self.opt.step()  # compiles

    def time_step(self, layout: str, rule: str) -> None:
        self.opt.step()
