"""The step as a function for the user's own compiled code.

One function serves every optimizer: what differs, the machine code included, lies in its argument. So a loop
that calls it compiles as fast as if it called nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numba
import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload
from numpy.typing import NDArray

from nbopt.kernels.intrinsics import enter
from nbopt.kernels.tables import CALL_COLUMNS, FLUSHING

__all__ = ["JitState", "jit_step"]


class JitState(NamedTuple):
    """The argument of a jit step; it keeps alive what the step works on.

    Code that users keep on disk knows it by its name and its fields: change one of them with `CALL_COLUMNS`.
    """

    lr: NDArray[np.float64]
    call: NDArray[np.int64]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        mend = "; write state.lr[0] = value" if name == "lr" else ""
        raise AttributeError(f"{name} of a JitState cannot be set{mend}")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "the state of a jit step belongs to its optimizer and cannot be copied or pickled; copy the "
            "optimizer and call jit_step() of the copy"
        )

    def __copy__(self) -> JitState:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        self.__reduce__()


def _row(state: JitState) -> NDArray[np.int64]:
    """What `enter` needs."""
    return state.call


@overload(_row, strict=False)  # which would compare annotations, too
def _typed_row(state: Any) -> Any:
    """Refuse at compilation what is no state: `enter` would read its memory as one."""
    call = state.types[1] if getattr(state, "instance_class", None) is JitState else None
    if not isinstance(call, types.Array) or (call.dtype, call.ndim, call.layout) != (types.int64, 1, "C"):
        raise TypingError(f"step(state) takes the state that jit_step() returned, got {state}")
    return lambda state: state.call


@numba.njit(nogil=True)
def jit_step(state: JitState) -> int:
    """Take one step: 0 stepped, 1 nothing changed, 2 another thread is stepping this optimizer."""
    call = _row(state)
    code: int = enter(call) if call.size == CALL_COLUMNS else -1
    if code < 0:
        raise RuntimeError(
            "the state of a jit step was copied into a compiled function that reads it as a global or "
            "enclosing variable; pass it as an argument: def train(state, ...)"
        )
    return code % FLUSHING
