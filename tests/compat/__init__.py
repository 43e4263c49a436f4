"""The rooms, objects of other people where another process can find them, and what is asked of both."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from nbopt.compat import paddle
from nbopt.compat.jittor import weightnorm as jittor


class Room:
    """One norm per row of a matrix, under either name."""

    def __init__(self, module, dim):
        self.module, self.dim = module, dim

    def norm(self, module, name="weight"):
        return self.module.weight_norm(module, name, self.dim)

    def remove(self, module, name="weight"):
        return self.module.remove_weight_norm(module, name)


ROOMS = {"jittor": Room(jittor, -1), "paddle": Room(paddle, 0)}


def composed(module, name="weight"):
    """From what is there, in one norm per row."""
    v, g = (np.longdouble(getattr(module, f"{name}_{part}")) for part in "vg")
    return g.reshape(-1, 1) * v / np.sqrt(np.sum(v * v, axis=1, keepdims=True))


def assert_current(module, name="weight"):
    assert_allclose(getattr(module, name), np.float64(composed(module, name)), rtol=1e-6, atol=1e-300)


def assert_close(got, expected, rtol=1e-5, atol=1e-6):
    """In shape and dtype too."""
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert_allclose(got, expected, rtol, atol)


def snapshot(module):
    """What is in an object and what it is."""
    return type(module), {key: copy.deepcopy(value) for key, value in vars(module).items()}


def assert_untouched(module, before):
    cls, attributes = before
    assert type(module) is cls
    assert list(vars(module)) == list(attributes)
    for key, value in attributes.items():
        assert_array_equal(vars(module)[key], value)


# --- objects of other people -------------------------------------------------------------------------


class Linear:
    """A layer as anybody would write it."""

    def __init__(self, inputs: int = 3, outputs: int = 4, dtype: str = "float64"):
        rng = np.random.default_rng(inputs)
        self.weight = rng.standard_normal((outputs, inputs)).astype(dtype)
        self.bias = np.zeros(outputs, dtype)

    def execute(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weight.T + self.bias


class Wide(Linear):
    """Derived, with a zero-argument super."""

    def __init__(self) -> None:
        super().__init__(5, 2)

    def execute(self, x: np.ndarray) -> np.ndarray:
        return 2 * super().execute(x)


class Logging(Linear):
    """Sees every attribute that is set."""

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__.setdefault("log", []).append(name)
        super().__setattr__(name, value)


class OwnState(Linear):
    """Pickles what it chooses, and sets it again."""

    def __getstate__(self) -> dict[str, Any]:
        return {"w": self.weight, "b": self.bias}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.weight, self.bias = state["w"], state["b"]


class OwnDict(Linear):
    """Pickles what it chooses; the rest is left to pickle, which writes into the dict of the instance."""

    def __getstate__(self) -> dict[str, Any]:
        return {"weight": np.array(self.weight), "bias": self.bias}


class OwnReduce(Linear):
    """Is made again by its constructor, then gets its whole dict."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (3, 4), dict(vars(self))


class OwnCopy(Linear):
    """Copies as many classes do: an empty object of its own type, then the dict."""

    def __copy__(self) -> OwnCopy:
        new = type(self).__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnCopy:
        new = self.__copy__()
        vars(new).update(copy.deepcopy(vars(self), memo))
        return new


class NewArguments(Linear):
    """Has arguments for `__new__`."""

    def __new__(cls, *args: Any) -> NewArguments:
        self = super().__new__(cls)
        self.made_with = args
        return self

    def __getnewargs__(self) -> tuple[int, int]:
        return 3, 4


@dataclasses.dataclass(eq=False)
class Record:
    weight: np.ndarray
    rate: float = 0.5
