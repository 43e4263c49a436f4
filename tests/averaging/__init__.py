"""What the tests of averages share: models, and averages written down in plain NumPy."""

import numpy as np

import nbopt as nb
from tests.optimizer import frozen_bytes

SHAPES = {"w": (3, 5), "b": (7,), "empty": (0, 2), "one": ()}


def buffer(dtype="float64", seed=0, **attrs):
    """A matrix, a vector, an empty array and a scalar; `attrs` by name."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    return nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype=dtype)


def normed_buffer(dtype="float64", dim=0, **options):
    """A weight-normed w (3, 5) that averages take in, and a plain b (7,)."""
    rng = np.random.default_rng(1)
    attrs = {"w": nb.WeightNormParamAttr(**{"dim": dim, "do_model_average": True, **options})}
    values = {"w": rng.normal(size=(3, 5)), "b": rng.normal(size=7)}
    return nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype=dtype)


def bits_of(params):
    """Every value, those of g, v and w too, and every gradient, as bytes."""
    return params._seal().data.tobytes(), params.flat_grad.tobytes()


def applied(params, average):
    """Copies of all values while the averages are in place."""
    with average.apply():
        moved = [part for p in params.values() for part in p._moved]
        return {p.name: p.numpy() for p in (*params.values(), *moved)}


def same_bits(got, expected):
    assert frozen_bytes(got) == frozen_bytes(expected)


class Window:
    """`ModelAverage` of one array: three sums in its dtype, and the values that they stand for."""

    def __init__(self, value, rate, least, most):
        self.sums = [np.zeros_like(value) for _ in range(3)]
        self.rate, self.least, self.most = rate, least, most
        self.updates = 0
        self.open, self.closed = [], []

    def step(self, value):
        self.updates += 1
        self.open.append(value.copy())
        first, second, _ = self.sums
        first += value
        if self.updates % 16384 == 0:
            second += first
            first[...] = 0
        length = min(self.most, int(np.float32(self.updates) * np.float32(self.rate)))
        if len(self.open) >= self.least and len(self.open) >= length:
            self.sums = [np.zeros_like(value), np.zeros_like(value), first + second]
            self.open, self.closed = [], self.open

    def average(self, value):
        """From the sums, to the bit; `value` where there is nothing to average."""
        first, second, third = self.sums
        count = len(self.open) + len(self.closed)
        return (first + second + third) / value.dtype.type(count) if count else value

    def mean(self):
        """The same, from the values."""
        return np.mean(np.array([*self.closed, *self.open], float), axis=0)

    def state(self, name):
        counts = {
            "num_accumulates": len(self.open),
            "old_num_accumulates": len(self.closed),
            "num_updates": self.updates,
        }
        arrays = {f"sum_{i + 1}": np.asarray(total) for i, total in enumerate(self.sums)}
        return {f"{name}.{key}": value for key, value in (arrays | counts).items()}


class Exponential:
    """`ExponentialMovingAverage` of one array, and the values with the weights that they have in it."""

    def __init__(self, value):
        self.ema, self.weight = np.zeros_like(value), 0.0
        self.values, self.weights = [], []

    def update(self, value, decay):
        decay = value.dtype.type(decay)
        self.ema = decay * self.ema + value.dtype.type(1.0 - float(decay)) * value
        self.weight = float(decay) * self.weight + (1.0 - float(decay))
        self.weights = [weight * float(decay) for weight in self.weights] + [1.0 - float(decay)]
        self.values.append(value.astype(float))

    def average(self, value):
        return self.ema / value.dtype.type(self.weight) if self.weight else value

    def mean(self):
        return np.average(self.values, axis=0, weights=self.weights)

    def state(self, name):
        return {f"{name}.ema": np.asarray(self.ema), f"{name}.ema_weight": self.weight}
