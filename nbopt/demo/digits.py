"""The images, and the packages of the extra `demo` that bring them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt import packages

__all__ = ["Digits", "FloatArray", "require"]

FloatArray = NDArray[np.floating[Any]]


def require(module: str, package: str) -> Any:
    """Import `module`, or say which package brings it."""
    return packages.require(module, package, "the demo", "demo")


@dataclass(frozen=True)
class Digits:
    """The images and their labels: four fifths to learn from, one fifth held out.

    Attributes
    ----------
    train_images, test_images : numpy.ndarray
        float32, one row of 64 standardised pixels per image; the labels are the digits.
    """

    train_images: FloatArray
    train_labels: NDArray[np.int64]
    test_images: FloatArray
    test_labels: NDArray[np.int64]

    @classmethod
    def load(cls) -> Digits:
        """Read the images out of scikit-learn and split them, always in the same way."""
        datasets = require("sklearn.datasets", "scikit-learn")
        selection = require("sklearn.model_selection", "scikit-learn")
        images, labels = datasets.load_digits(return_X_y=True)
        train, test, train_labels, test_labels = selection.train_test_split(
            images, labels.astype(np.int64), test_size=0.2, stratify=labels, random_state=0
        )
        mean, std = train.mean(), train.std()
        scaled = [((part - mean) / std).astype(np.float32) for part in (train, test)]
        return cls(scaled[0], train_labels, scaled[1], test_labels)
