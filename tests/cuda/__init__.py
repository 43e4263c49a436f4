"""The CUDA backend: what is said where it cannot run, and, in Numba's simulator, what it does."""

from __future__ import annotations

import importlib.util
import os

import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="the package numba-cuda is not installed"
)
