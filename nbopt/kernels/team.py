"""What the threads that fold together do among themselves; alone, as on the CPU, next to nothing.

Every function of a fold is told which `thread` of how many `threads` it runs in. Binding replaces these for
a device where a team has more than one thread.
"""

# mypy: ignore-errors

from __future__ import annotations

TEAM = False  # whether there may be several


def barrier():
    """Wait for the other threads of the team, and see what they wrote."""


def any_thread(value):
    """Whether `value` is true in any thread of the team; all of it asks at once."""
    return value


def keep_least(table, column, value):
    """Lower `table[0, column]` to a value."""
    if value < table[0, column]:
        table[0, column] = value


def keep_largest(table, row, column, value):
    """Raise `table[row, column]` to a value that is not negative."""
    if value > table[row, column]:
        table[row, column] = value


def count_one(table, column):
    """Add 1 to `table[0, column]`."""
    table[0, column] += 1
