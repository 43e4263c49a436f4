"""What averages stand in place of: the own values of parameters, which the buffer keeps."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nbopt.buffer import ParameterBuffer

if TYPE_CHECKING:
    from nbopt.averaging.base import Average

__all__ = ["Applied", "Backup", "refuse_averages"]


class Backup:
    """The own values of parameters that hold averages, by name; the average that has replaced them may go."""

    def __init__(self, average: Average, values: dict[str, NDArray[Any]]):
        self.average = weakref.ref(average)
        self.values = values
        self._type = type(average).__name__

    @property
    def kind(self) -> str:
        """How a message calls the average."""
        return f"another {self._type}" if self.average() is not None else f"{self._type} that is gone"

    @property
    def mend(self) -> str:
        """What puts the own values back."""
        whose = "its" if self.average() is not None else "this one's"
        return f"call {whose} restore()"


def refuse_averages(buffer: ParameterBuffer, reason: str) -> None:
    """Refuse to go on while parameters hold averages."""
    for backup in buffer._seal().backups if buffer.is_sealed else ():
        raise RuntimeError(
            f"the parameters {', '.join(map(repr, backup.values))} hold averages of {backup._type}; call its "
            f"restore() first, {reason}"
        )


class Applied:
    """Averages that are in place of parameters; leaving it restores them, if that was asked for."""

    def __init__(self, average: Average, backup: Backup, need_restore: bool):
        self._average = average
        self._backup = backup
        self._need_restore = need_restore

    def __enter__(self) -> None:
        if self._average._backup is not self._backup:
            raise RuntimeError("these averages were restored already; call apply() again")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._need_restore and self._average._backup is self._backup:
            self._average.restore()
