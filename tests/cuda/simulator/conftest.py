"""Numba reads the switch of its simulator once: elsewhere these files are not collected."""

from tests.cuda import SIMULATED

collect_ignore_glob = [] if SIMULATED else ["*.py"]
