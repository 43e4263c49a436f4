"""How far a run has come, and the file that a later one goes on from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import nbopt as nb
from nbopt.errors import CheckpointError, HyperparameterError

__all__ = ["Path", "Progress", "saved_setting"]

Path = str | os.PathLike[str]


class Progress:
    """What a run keeps beside parameters and optimizer.

    Parameters
    ----------
    setting : dict
        Epochs, batch size, seed and weight norm, which a run that goes on must share.
    """

    def __init__(self, setting: Mapping[str, int]):
        self.setting = dict(setting)
        self.rng = np.random.Generator(np.random.PCG64(setting["seed"]))
        self.per_epoch: list[tuple[float, ...]] = []
        self.per_step: list[tuple[float, ...]] = []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "setting": self.setting,
            "rng": self.rng.bit_generator.state,
            "per_epoch": np.array(self.per_epoch).reshape(-1, 4),
            "per_step": np.array(self.per_step).reshape(-1, 2),
        }

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what a checkpoint holds."""
        if state["setting"] != self.setting:
            raise ValueError(f"it is of a run with {_listed(state['setting'])}, not {_listed(self.setting)}")
        self.rng.bit_generator.state = state["rng"]
        self.per_epoch = [tuple(row) for row in state["per_epoch"].tolist()]
        self.per_step = [tuple(row) for row in state["per_step"].tolist()]


def saved_setting(path: Path, given: Mapping[str, int]) -> dict[str, int]:
    """Return the setting of the run in a file; what is `given` must agree with it.

    Raises
    ------
    OSError, CheckpointError
        If the file cannot be read, or holds no run of the demo.
    HyperparameterError
        If an option differs.
    """
    setting = nb.load(path).get("progress/setting")
    if not isinstance(setting, dict) or setting.keys() != {"epochs", "batch_size", "seed", "weight_norm"}:
        raise CheckpointError(f"{os.fspath(path)!r} holds no run of the demo")
    for name, value in given.items():
        if setting.get(name) != value:
            raise HyperparameterError(
                f"{name.replace('_', ' ')} is {setting.get(name)} in {os.fspath(path)!r}, which cannot go on "
                f"with {value}"
            )
    return setting


def _listed(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items())
