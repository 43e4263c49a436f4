"""The inputs, and the words for what came of them.

A case is done by each library of `PEERS` in its own words: a function of that name in a module of
`benchmarks.behaviours`. It returns values, or a text; an exception is an answer too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

__all__ = ["CASES", "Case", "show"]


class Case(NamedTuple):
    """One row of the table.

    `method` is what a peer's module calls it, `arguments` go there; `right` is what it should give, in words.
    """

    about: str
    method: str
    arguments: tuple[object, ...] = ()
    right: str = ""


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


CASES = (
    Case("Clip [1e30, 1e30] to norm 1", "clip", ([f32(1e30, 1e30)], 1.0), "0.7071 each"),
    Case("Clip four times 1e-30 to norm 1e-31", "clip", ([f32(*[1e-30] * 4)], 1e-31), "5e-32 each"),
    Case("Clip [3e-8, 4e-8] to norm 1e-8", "clip", ([f32(3e-8, 4e-8)], 1e-8), "6e-9, 8e-9"),
    Case("Clip [3, 4] to norm 5, which it has", "keeps", ([f32(3, 4)], 5.0), "unchanged"),
    Case("Clip [0, 0] to norm 0", "clip", ([f32(0, 0)], 0.0), "zeros"),
    Case("Clip [3, 4] to norm inf", "clip", ([f32(3, 4)], np.inf), "unchanged"),
    Case(
        "Clip [1, inf] and [1] to norm 1", "clip", ([f32(1, np.inf), f32(1)], 1.0), "an error that names it"
    ),
    Case("A second clip of 1,000 drawn gradients", "clip_twice", (), "changes none"),
    Case("Norm after a clip of 1,000 drawn gradients", "clip_bound", (), "never above the limit"),
    Case("Norm of 3e7 times 0.1 in float32", "norm", (), "547.72257"),
    Case("Sums of squares with 1 and 2 threads, 40 arrays", "threads", (), "all equal"),
    Case("Weight norm of a row of zeros", "weight_norm", (f32(0, 0),), "an error, or 0"),
    Case("Weight norm of [3e-30, 4e-30], g = 1", "weight_norm", (f32(3e-30, 4e-30), 1.0), "0.6, 0.8"),
    Case("Step with a NaN in one of two gradients", "nan_step", (), "an error that names it; nothing moves"),
    Case("learning_rate = nan", "bad_rate", (np.nan,), "refused"),
    Case("learning_rate = -0.1", "bad_rate", (-0.1,), "refused"),
    Case("A group with the key `momentun`", "misspelt", (), "refused"),
    Case("Load a state whose arrays are swapped", "swapped", (), "refused, or by name"),
    Case("A gradient of shape (3, 1) for (3,)", "wrong_shape", (), "refused"),
    Case("One bit of a saved file flipped, at 200 places", "flipped", (), "all refused"),
)


def show(arrays: Iterable[np.ndarray], digits: int = 4) -> str:
    """Write the numbers of some arrays as a person would."""
    return "; ".join(", ".join(f"{float(x):.{digits}g}" for x in np.ravel(a)) for a in arrays)
