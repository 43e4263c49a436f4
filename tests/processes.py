"""Work in the child of a fork."""

import os
import signal

import pytest


def forks(test):
    """Mark what forks while there are threads."""
    test = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")(test)


def in_child(work):
    """Run in a child process; return whether that was true."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that waits for ever
        try:
            ok = bool(work())
        except BaseException:
            ok = False
        os._exit(0 if ok else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
