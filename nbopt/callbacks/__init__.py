"""Things to do after each iteration: keep a history, write a log, save, stop early, show progress.

A callback is called with an `intermediate_result`, by `nbopt.minimize` and by SciPy alike, or in a loop of
your own. It takes from it what is there: ``fun``, the loss, alone will do, and a plain number is a loss too.
What else it may hold is what `nbopt.minimize` gives: ``nit``, ``lr``, ``params`` and ``opt``.
"""

from nbopt.callbacks.recording import CSVLogger, History, ProgressBar
from nbopt.callbacks.steering import CheckpointEvery, EarlyStopping

__all__ = ["CSVLogger", "CheckpointEvery", "EarlyStopping", "History", "ProgressBar"]
