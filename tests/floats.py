"""The float control word of a thread, through the C library, which sets it in whichever thread calls."""

import contextlib
import ctypes
import platform
import sys

import pytest

# Where fenv_t of glibc and musl holds the word, in units of 4 bytes, and its bits for subnormal numbers.
_WORDS = {"x86_64": (7, {"results": 0x8000, "operands": 0x0040}), "aarch64": (0, {"both": 1 << 24})}
_PLACE, BITS = _WORDS.get(platform.machine(), (0, {})) if sys.platform == "linux" else (0, {})

can_flush = pytest.mark.skipif(not BITS, reason="sets the float control word of Linux on x86-64 and AArch64")


def control_word():
    """What holds in this thread, without the flags of what has happened."""
    return _environment()[_PLACE] & ~0x3F


def set_flush(on=True, bits=None):
    """As `torch.set_flush_denormal` does, which sets all bits at once."""
    environment = _environment()
    bits = sum(BITS.values()) if bits is None else bits
    environment[_PLACE] = environment[_PLACE] | bits if on else environment[_PLACE] & ~bits
    assert ctypes.CDLL(None).fesetenv(environment) == 0


@contextlib.contextmanager
def flushing(bits=None):
    """Take subnormal numbers for zero, in this thread and as long as this lasts."""
    set_flush(True, bits)
    try:
        yield
    finally:
        set_flush(False, bits)


def _environment():
    environment = (ctypes.c_uint32 * 8)()
    assert ctypes.CDLL(None).fegetenv(environment) == 0
    return environment
