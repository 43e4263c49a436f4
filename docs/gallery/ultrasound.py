"""Ultrasound tomography, with the whole inversion in one compiled function.

A ring of transducers surrounds a phantom in water. From what they record of each other's pulses, the speed of
sound inside and the gain of every transmitter are found. The forward solver, its adjoint, the random order of
the transmitters and the optimizer's steps are compiled together. Prints how it went and draws ultrasound.png.
With --quick it takes one pass only.
"""

import sys
from typing import NamedTuple

import numba
import numpy as np
from matplotlib.figure import Figure

import nbopt as nb

CELLS, DT, TIMES = 96, 0.4, 230  # cells of 1 mm, microseconds, time levels
WATER = 1.5  # mm per microsecond
RADIUS, TRANSDUCERS = 34, 32


def ring():
    """Return the cells of the transducers."""
    angles = 2 * np.pi * np.arange(TRANSDUCERS) / TRANSDUCERS
    middle = CELLS // 2
    return (
        np.stack([middle + RADIUS * np.sin(angles), middle + RADIUS * np.cos(angles)], 1).round().astype(int)
    )


def phantom():
    """Return the relative deviation of the speed from that of water."""
    y, x = np.mgrid[:CELLS, :CELLS] - CELLS // 2
    body = np.where(x**2 / 27**2 + y**2 / 23**2 < 1, 0.02, 0.0)
    body[(x + 9) ** 2 + (y + 5) ** 2 < 49] = 0.06
    body[(x - 10) ** 2 / 2 + (y - 2) ** 2 < 30] = -0.03
    body[(x - 1) ** 2 + (y - 14) ** 2 < 12] = 0.05
    return body


def sponge():
    """Return factors that swallow waves in the outer 12 cells."""
    edge = np.minimum(np.arange(CELLS), np.arange(CELLS)[::-1])
    depth = np.maximum(12 - edge, 0)
    factor = np.exp(-((0.03 * depth) ** 2))
    return (factor[:, None] * factor).astype(np.float32)


def pulse():
    """Return a Ricker wavelet of 0.12 MHz."""
    phase = (np.pi * 0.12 * (DT * np.arange(TIMES) - 9.0)) ** 2
    return ((1 - 2 * phase) * np.exp(-phase)).astype(np.float32)


class Bench(NamedTuple):
    """What stands around the phantom."""

    transducers: np.ndarray  # their cells
    wavelet: np.ndarray
    damp: np.ndarray
    inside: np.ndarray  # 1 where the speed is looked for


def bench():
    y, x = np.mgrid[:CELLS, :CELLS] - CELLS // 2
    inside = (x**2 + y**2 < (RADIUS - 3) ** 2).astype(np.float32)
    return Bench(ring(), pulse(), sponge(), inside)


# --- the physics: second differences in time and space, and the adjoint of exactly that


@numba.njit
def forward(courant, bench, source, gain, waves):
    """Write the pressure at all times into zeros; `courant` is (speed * time step / cell)**2."""
    i0, j0 = bench.transducers[source]
    damp = bench.damp
    waves[:2] = 0.0
    for t in range(1, len(waves) - 1):
        for i in range(1, CELLS - 1):
            for j in range(1, CELLS - 1):
                u = waves[t, i, j]
                around = waves[t, i - 1, j] + waves[t, i + 1, j] + waves[t, i, j - 1] + waves[t, i, j + 1]
                moved = 2 * u - damp[i, j] * waves[t - 1, i, j] + courant[i, j] * (around - 4 * u)
                waves[t + 1, i, j] = damp[i, j] * moved
        waves[t + 1, i0, j0] += gain * bench.wavelet[t]


@numba.njit
def backward(courant, bench, source, waves, residuals, slope):
    """Write the derivative by `courant` into `slope`; return that by the gain."""
    i0, j0 = bench.transducers[source]
    damp = bench.damp
    levels = np.zeros((3, CELLS, CELLS), np.float32)  # of the adjoint wave
    carried, sent = np.zeros((2, CELLS, CELLS), np.float32)
    slope[:] = 0.0
    by_gain = 0.0
    for t in range(len(waves) - 1, 0, -1):
        now, after, later = levels[t % 3], levels[(t + 1) % 3], levels[(t + 2) % 3]
        for i in range(1, CELLS - 1):
            for j in range(1, CELLS - 1):
                carried[i, j] = damp[i, j] * after[i, j]
                sent[i, j] = courant[i, j] * carried[i, j]
        for i in range(1, CELLS - 1):
            for j in range(1, CELLS - 1):
                around = sent[i - 1, j] + sent[i + 1, j] + sent[i, j - 1] + sent[i, j + 1] - 4 * sent[i, j]
                now[i, j] = 2 * carried[i, j] + around - damp[i, j] ** 2 * later[i, j]
                around = waves[t, i - 1, j] + waves[t, i + 1, j] + waves[t, i, j - 1] + waves[t, i, j + 1]
                slope[i, j] += carried[i, j] * (around - 4 * waves[t, i, j])
        for k, (i, j) in enumerate(bench.transducers):
            now[i, j] += residuals[t, k]
        by_gain += bench.wavelet[t - 1] * now[i0, j0]
    return by_gain


@numba.njit
def record(waves, bench):
    traces = np.empty((len(waves), TRANSDUCERS), np.float32)
    for k, (i, j) in enumerate(bench.transducers):
        traces[:, k] = waves[:, i, j]
    return traces


@numba.njit
def misfit(bench, source, data, scale, speed, gains, d_speed, d_gains, waves):
    """Return the loss of one transmitter, and write its gradient."""
    unit = np.float32((WATER * DT) ** 2)
    courant = unit * (1 + speed) ** 2
    forward(courant, bench, source, gains[source], waves)
    residuals = record(waves, bench) - data
    residuals[:, source] = 0.0  # it does not hear itself
    loss = 0.5 * scale * np.sum(residuals**2)
    d_gains[:] = 0.0
    d_gains[source] = backward(courant, bench, source, waves, scale * residuals, d_speed)
    d_speed *= 2 * unit * (1 + speed) * bench.inside
    return loss


@numba.njit
def invert(step, state, rng, epochs, bench, data, speed, gains, d_speed, d_gains):
    """Train; return the loss of every step."""
    waves = np.zeros((TIMES, CELLS, CELLS), np.float32)  # the outermost cells stay so
    scale = np.float32(TRANSDUCERS / np.sum(data**2))
    order, rate = np.arange(TRANSDUCERS), state.lr[0]
    losses = np.zeros((epochs, TRANSDUCERS))
    for epoch in range(epochs):
        rng.shuffle(order)
        for k, shot in enumerate(order):
            losses[epoch, k] = misfit(bench, shot, data[shot], scale, speed, gains, d_speed, d_gains, waves)
            done = (epoch + k / TRANSDUCERS) / epochs
            state.lr[0] = rate * 0.5 * (1 + np.cos(np.pi * done))
            if step(state) != 0:  # the gradient was not finite; opt.check() says where
                return losses[: epoch + 1]
    return losses


# --- the problem


def measure(bench, speed, gains):
    """Return what all record of each, with noise, and the waves of the first transmitter."""
    waves = np.zeros((TIMES, CELLS, CELLS), np.float32)  # the outermost cells stay so
    courant = ((WATER * DT * (1 + speed)) ** 2).astype(np.float32)
    data = np.empty((TRANSDUCERS, TIMES, TRANSDUCERS), np.float32)
    for source in reversed(range(TRANSDUCERS)):
        forward(courant, bench, source, np.float32(gains[source]), waves)
        data[source] = record(waves, bench)
    noise = np.random.default_rng(0).standard_normal(data.shape, dtype=np.float32)
    return data + 0.05 * data.std() * noise, waves


def model():
    """Return parameters, and an optimizer that moves them."""
    params = nb.ParameterBuffer(dtype="float32", seed=0)
    smooth = nb.ParamAttr(initializer=nb.initializer.Constant(0.0), regularizer=nb.regularizer.L2Decay(1e-3))
    params.create_parameter([CELLS, CELLS], name="speed", attr=smooth)
    coupled = nb.ParamAttr(initializer=nb.initializer.Constant(1.0), learning_rate=5.0)
    params.create_parameter([TRANSDUCERS], name="gains", attr=coupled)
    return params, nb.optimizer.Adam(0.004, parameters=params)


def solve(bench, data, epochs):
    """Return parameters, optimizer and losses."""
    params, opt = model()
    speed, gains = params["speed"], params["gains"]
    step, state = opt.jit_step()
    views = speed.value, gains.value, speed.grad, gains.grad
    losses = invert(step, state, np.random.default_rng(0), epochs, bench, data, *views)
    opt.check()
    return params, opt, losses


def error(found, truth, inside):
    """Return the root mean square error of the speed inside the ring, in m/s."""
    return 1000 * WATER * np.sqrt(np.mean((found - truth)[inside > 0] ** 2))


def main(epochs):
    around, truth = bench(), phantom()
    gains = np.random.default_rng(1).uniform(0.8, 1.2, TRANSDUCERS)
    data, waves = measure(around, truth, gains)
    params, opt, losses = solve(around, data, epochs)
    speed, gain, means = params["speed"].value, params["gains"].value, losses.mean(axis=1)

    print(f"{opt.step_count} steps, {len(losses)} passes over {TRANSDUCERS} transmitters")
    print("error    speed of sound   gains")
    print(f"before   {error(0 * speed, truth, around.inside):6.1f} m/s       {np.abs(1 - gains).mean():.3f}")
    print(f"after    {error(speed, truth, around.inside):6.1f} m/s       {np.abs(gain - gains).mean():.3f}")

    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    left, middle, right, last = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.2])
    left.imshow(waves[110], cmap="RdBu", vmin=-0.1, vmax=0.1)
    left.set_title("pressure after 44 µs")
    for axes, title, deviation in ((middle, "phantom", truth), (right, "found", speed)):
        picture = axes.imshow(1000 * WATER * (1 + deviation), vmin=1440, vmax=1600)
        axes.set_title(title)
    figure.colorbar(picture, ax=[middle, right], label="speed of sound (m/s)", shrink=0.8)
    for axes in (left, middle, right):
        axes.scatter(*around.transducers.T[::-1], s=5, color="0.3")
        axes.set_axis_off()
    last.plot(losses.ravel(), ".", markersize=2, color="0.7")
    last.plot(TRANSDUCERS * (np.arange(len(means)) + 0.5), means, marker=".")
    last.set(title="misfit", xlabel="step", yscale="log")
    last.grid(alpha=0.25)
    figure.savefig("ultrasound.png", dpi=110)


if __name__ == "__main__":
    main(epochs=1 if "--quick" in sys.argv else 20)
