"""Faults: the calls of the file layer counted and meddled with, and a file that is old or new."""

import os

import numpy as np

import nbopt as nb
from nbopt.checkpoint import files

OLD, NEW = 1.0, 2.0


class Calls:
    """The module `os` as the file layer sees it: it counts the calls, and meddles with the chosen one.

    Parameters
    ----------
    act : callable
        Takes the number of the call, from 0, its name and its arguments. What it returns, if not None, is the
        result.
    """

    COUNTED = ("open", "write", "fsync", "replace", "lseek", "fchmod", "fchown", "fstat", "lstat", "scandir")

    def __init__(self, act):
        self.names = []
        self._act = act

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self.COUNTED:
            return real

        def call(*args, **kwargs):
            self.names.append(name)
            result = self._act(len(self.names) - 1, name, args)
            return real(*args, **kwargs) if result is None else result

        return call


def buffer(value):
    return nb.ParameterBuffer.from_arrays({"w": np.full(300, value), "b": np.full((2, 3), value)})


def held(path):
    """Which of the two the file holds, after all of it was verified."""
    found = nb.load(path)
    (value,) = set(found["w"]) | set(found["b"].ravel())
    assert value in (OLD, NEW)
    return value


def meddled(monkeypatch, act):
    calls = Calls(act)
    monkeypatch.setattr(files, "os", calls)
    return calls


def nothing(number, name, args):
    """Let every call be."""


def recorded(monkeypatch, path):
    """The calls of a save that works, which replaces a file."""
    with monkeypatch.context() as patch:
        calls = meddled(patch, nothing)
        nb.save(path, buffer(OLD))
    return calls.names
