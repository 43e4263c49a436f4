"""Ptychography: momentum first, then L-BFGS-B on the same buffer.

A beam of light is moved over a thin object in overlapping steps, and a camera far behind records the
diffraction pattern of each. From these, which have lost all phases, the object is found, and in the end the
beam as well. Prints how it went and draws handover.png. With --quick it takes a few iterations only.
"""

import sys

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize
from sklearn.datasets import load_sample_image

import nbopt as nb

SIZE, WINDOW = 64, 24  # pixels of the object, and of the window that the beam fills
BATCH, PHOTONS = 4, 1e7
OWN = {"space": "trainable", "frozen": False}


def beam(width, curvature):
    """Return a Gaussian beam out of focus, as two real images."""
    y, x = np.mgrid[:WINDOW, :WINDOW] - (WINDOW - 1) / 2
    wave = np.exp((1j * curvature - 0.5 / width**2) * (x**2 + y**2))
    return np.stack([wave.real, wave.imag])


def picture(name, top, left):
    """Return a part of a photograph, from 0 to 1."""
    part = load_sample_image(name)[top : top + 384, left : left + 384].mean(axis=2)
    small = part.reshape(SIZE, 6, SIZE, 6).mean(axis=(1, 3))
    return (small - small.min()) / np.ptp(small)


def windows(rng):
    """Return the indices of the object's pixels in the beam, for each of its places."""
    steps = np.arange(0, SIZE - WINDOW + 1, 5)
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    places = np.clip(places + rng.integers(-1, 2, places.shape), 0, SIZE - WINDOW)
    inside = SIZE * np.arange(WINDOW)[:, None] + np.arange(WINDOW)
    return (places @ [SIZE, 1])[:, None, None] + inside


def patterns(phase, absorption, light, pixels):
    """Return the waves at the camera, behind the object, and the object's windows."""
    through = np.exp(1j * phase - absorption).ravel()[pixels]
    return np.fft.fft2((light[0] + 1j * light[1]) * through, norm="ortho"), through


def misfit(params, seen, pixels):
    """Return how far amplitudes are from those that were seen, and write the gradients."""
    phase, absorption, light = params.values()
    far, through = patterns(phase.value, absorption.value, light.value, pixels)
    size = np.sqrt(np.abs(far) ** 2 + 1e-6)
    scale = 1 / np.sum(seen**2)
    near = scale * np.fft.ifft2(far * (1 - seen / size), norm="ortho")  # the adjoint of fft2
    by_light = np.sum(near * through.conj(), axis=0)
    slope = (near * (light.value[0] - 1j * light.value[1]) * through.conj()).ravel()
    slope = np.bincount(pixels.ravel(), slope.real, SIZE**2), np.bincount(pixels.ravel(), slope.imag, SIZE**2)
    phase.grad, absorption.grad = slope[1].reshape(SIZE, SIZE), -slope[0].reshape(SIZE, SIZE)
    light.grad = np.stack([by_light.real, by_light.imag])
    return 0.5 * scale * np.sum((size - seen) ** 2)


def measure():
    """Return the object's phase, what the camera sees of it, and where."""
    rng = np.random.default_rng(0)
    phase, absorption = 2.0 * picture("flower.jpg", 40, 150), 0.5 * picture("china.jpg", 20, 100)
    pixels = windows(rng)
    intensity = np.abs(patterns(phase, absorption, beam(4.5, 0.04), pixels)[0]) ** 2
    per_unit = PHOTONS * len(pixels) / intensity.sum()
    return phase, np.sqrt(rng.poisson(per_unit * intensity) / per_unit), pixels


def model():
    """Return an empty object, and the beam that one believes to have."""
    empty = np.zeros((SIZE, SIZE))
    return nb.ParameterBuffer.from_arrays(
        {"phase": empty, "absorption": empty, "light": beam(5.0, 0.03)},
        attrs={"light": nb.ParamAttr(trainable=False)},
    )


def with_momentum(params, seen, pixels, passes):
    """Take steps, each on a few patterns; return the losses."""
    rng = np.random.default_rng(1)

    def fun(params):
        few = rng.choice(len(seen), BATCH, replace=False)
        return misfit(params, seen[few], pixels[few])

    steps = passes * len(seen) // BATCH
    rate = nb.optimizer.lr.CosineAnnealingDecay(30.0, T_max=steps)
    opt = nb.optimizer.Momentum(rate, 0.9, parameters=params)
    return nb.minimize(fun, params, opt, maxiter=steps).history


def with_lbfgs(params, seen, pixels, passes):
    """Let SciPy move what is not frozen, on all patterns; return the losses."""
    losses = []

    def fun(x):
        params.from_vector(x, **OWN)
        losses.append(misfit(params, seen, pixels))
        return losses[-1], params.to_vector("grad", **OWN)

    options = {"maxfun": passes, "maxiter": passes, "ftol": 0.0, "gtol": 0.0}
    found = minimize(fun, params.to_vector(**OWN), jac=True, method="L-BFGS-B", options=options)
    params.from_vector(found.x, **OWN)
    return losses


def without_plane(phase):
    """Return a phase in the middle without a plane, which object and beam can exchange."""
    middle = phase[12:-12, 12:-12]
    y, x = np.indices(middle.shape).reshape(2, -1)
    plane = np.stack([x, y, np.ones_like(x)], axis=1)
    flat = middle.ravel() - plane @ np.linalg.lstsq(plane, middle.ravel(), rcond=None)[0]
    return flat.reshape(middle.shape)


def main(first, second):
    truth, seen, pixels = measure()
    rows, pictures = [], {"phase of the object": truth}

    def note(label, params, passes):
        error = without_plane(params["phase"].value - truth)
        loss = misfit(params, seen, pixels)
        rows.append(f"{label:24}{passes:4}   {loss:.1e}   {np.sqrt(np.mean(error**2)):.3f} rad")

    params = model()
    start = with_momentum(params, seen, pixels, first)
    note("momentum, beam frozen", params, first)
    pictures["with momentum"] = params["phase"].numpy()
    params.unfreeze("light")
    end = with_lbfgs(params, seen, pixels, second)
    note("then L-BFGS-B on all", params, first + second)
    pictures["then with L-BFGS-B"] = params["phase"].numpy()
    other = model()
    other.unfreeze("light")
    alone = with_lbfgs(other, seen, pixels, first + second)
    note("L-BFGS-B alone", other, first + second)
    print("                      passes      loss   error of the phase", *rows, sep="\n")

    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    *frames, last = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.5])
    for axes, (title, phase) in zip(frames, pictures.items(), strict=True):
        shown = axes.imshow(without_plane(phase), vmin=-0.8, vmax=0.8)
        axes.set_title(title)
        axes.set_axis_off()
    figure.colorbar(shown, ax=frames, label="radian", shrink=0.7)
    last.plot(
        np.arange(len(start)) * BATCH / len(seen), start, ".", markersize=2, color="0.6", label="momentum"
    )
    last.plot(first + np.arange(len(end)), np.minimum.accumulate(end), label="then L-BFGS-B")
    last.plot(np.minimum.accumulate(alone), "--", label="L-BFGS-B alone")
    last.set(title="misfit", xlabel="passes over the patterns", yscale="log")
    last.grid(alpha=0.25)
    last.legend()
    figure.savefig("handover.png", dpi=110)


if __name__ == "__main__":
    main(*((1, 3) if "--quick" in sys.argv else (20, 200)))
