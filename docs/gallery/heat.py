"""The heat that a rod held, from what it has become; with a mistake in the adjoint that a check finds.

Checks two adjoints against slopes of the misfit, prints what is found, goes back in time with the right one
and draws the result into heat.png. With --quick it takes fewer steps.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

import nbopt as nb

CELLS, TIMES, FLOW = 200, 200, 0.4  # of the rod; of the simulation; of heat to a neighbour per time
NOISE = 0.002


def forward(heat):
    """Let heat flow to where it is colder; nothing crosses the ends."""
    heat = heat.copy()
    for _ in range(TIMES):
        flow = FLOW * np.diff(heat)
        heat[:-1] += flow
        heat[1:] -= flow
    return heat


def adjoint(residual):
    """Send a residual back in time: each flow is its own transpose."""
    return forward(residual)


def misfit_of(seen, wrong=False):
    """Return the function that writes the gradient and gives the misfit; if wrong, without the factor 2."""

    def misfit(params):
        residual = forward(params["heat"].value) - seen
        params["heat"].grad = adjoint((1 if wrong else 2) * residual)
        return np.sum(residual**2)

    return misfit


def truth():
    x = np.arange(CELLS)
    return 1.0 * ((x > 40) & (x < 70)) + 0.6 * np.exp(-(((x - 130) / 9) ** 2))


def main(steps):
    heat = truth()
    seen = forward(heat) + NOISE * np.random.default_rng(0).standard_normal(CELLS)
    params = nb.ParameterBuffer.from_arrays({"heat": seen.copy()})
    for name, wrong in (("adjoint without the factor 2", True), ("adjoint mended", False)):
        row = nb.check_gradient(misfit_of(seen, wrong), params)["heat"]
        print(f"{name}: written over measured slope {row.ratio:.4f}, {row.verdict}")

    opt = nb.optimizer.Momentum(0.2, 0.95, parameters=params, use_nesterov=True)
    result = nb.minimize(misfit_of(seen), params, opt, maxiter=steps)
    found = params["heat"].numpy()
    for name, guess in (("blurred", seen), ("found", found)):
        print(f"{name}: root mean square error {np.sqrt(np.mean((guess - heat) ** 2)):.4f}")

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(heat, color="#444444", linestyle="--", label="at the start")
    left.plot(seen, color="#d9730d", label="what it has become")
    left.plot(found, color="#3b82c4", label="found from that")
    left.set(xlabel="cell", ylabel="temperature")
    left.grid(alpha=0.3)
    left.legend()
    nb.plot.history(result, ax=right).set(ylabel="misfit")
    figure.savefig("heat.png", dpi=110)


if __name__ == "__main__":
    main(steps=40 if "--quick" in sys.argv else 300)
