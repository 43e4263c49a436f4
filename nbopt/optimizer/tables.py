"""The tables that an optimizer owns: allocated once, edited in place, read by every step."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nbopt.buffer import ParameterBuffer
from nbopt.clip import DEFAULT_GROUP, ClipGradByGlobalNorm, GradientClip
from nbopt.errors import HyperparameterError
from nbopt.kernels import tables as t
from nbopt.kernels.rule import Rule
from nbopt.memory import Memory, Table
from nbopt.optimizer.groups import decay_columns
from nbopt.standstill import enlist

if TYPE_CHECKING:
    from nbopt.kernels.cpu.run import BoundStep
    from nbopt.kernels.cuda.memory import CudaMemory
    from nbopt.kernels.cuda.run import BoundStep as CudaStep

__all__ = ["Tables", "clip_rows"]


_live: weakref.WeakSet[Tables] = weakref.WeakSet()
_listing = threading.Lock()  # around the set, which other threads may change


def _free_in_child() -> None:
    """After a fork, the threads that held the locks are gone; steps free themselves."""
    global _listing
    _listing = threading.Lock()
    for tables in list(_live):
        tables.turns = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


# What a step writes into; on a GPU, BUSY and FLUSHED are nothing that it would.
_CLIPS_STEPPED = t.CLIP_COEFFICIENT, t.CLIP_SCALE, t.CLIP_LARGEST
_OF_THE_HOST = t.BUSY, t.GUARD, t.CLIPS_USED, t.REQUESTED, t.ADOPTED, t.FLUSHED
_COUNTERS_STEPPED = tuple(column for column in range(t.COUNTER_COLUMNS) if column not in _OF_THE_HOST)


class Tables:
    """The tables of one optimizer, as `nbopt.kernels.tables` describes them.

    Parameters
    ----------
    rule : Rule
    buffer : ParameterBuffer
        Laid out here if it is not.
    rate : float
        The learning rate.
    guard : int
        What a non-finite gradient does.
    """

    def __init__(self, rule: Rule, buffer: ParameterBuffer, rate: float, guard: int):
        storage, memory = buffer._seal(), buffer._memory
        layout = storage.layout
        count = len(layout.names)
        derived, effective = layout.trainable_start, layout.effective_size
        self.rule = rule
        self.storage = storage
        self.layout = layout
        self.memory: Memory = memory
        self.dtype = buffer.dtype
        self.accumulators = memory.zeros((len(rule.accumulators), layout.size - derived), buffer.dtype)
        self.group_of = np.full(count, -1)  # the row of the group table of each segment
        self.group_rows = np.zeros((count, t.GROUP_HYPER + len(rule.hyper)))
        stages = t.STAGES if memory.is_host else 1
        members = np.zeros((stages * count, t.MEMBER_COLUMNS), np.int64)
        coefficients = np.zeros((count, t.COEFFICIENT_RULE + 1 + len(rule.reads)))
        counters = np.zeros(t.COUNTER_COLUMNS, np.int64)
        counters[t.GUARD] = guard
        counters[t.CLIPS_USED] = 1
        self.is_lent = False  # whether compiled code of the user's may step at any time
        staged = (
            memory.table(members, (t.MEMBER_STEPS,)),
            memory.table(np.zeros((stages * count, self.group_rows.shape[1]))),
            memory.table(np.zeros((stages * (count + 1), t.CLIP_COLUMNS)), _CLIPS_STEPPED),
        )
        self._staged: tuple[Table, ...] = staged  # the rows in use, then on the CPU those of edits
        lengths = count, count, count + 1
        used = [table[:n] if memory.is_host else table for table, n in zip(staged, lengths, strict=True)]
        self.members, self.groups, self.clips = used
        self.coefficients: Table = memory.table(coefficients, tuple(range(coefficients.shape[1])))
        self.rates: Table = memory.table(np.array([rate]))
        self.counters: Table = memory.table(counters, _COUNTERS_STEPPED)
        self.flushed = 0  # FLUSHED of the steps that were looked at, until `Optimizer.check` says it
        self.turns: dict[object, None] = {}  # of calls that write what their step reads, see partial
        self._rank = np.argsort(np.argsort(np.array(layout.names, object)))  # of each name
        # In the order of nbopt.kernels.tables, from TRAINABLE on.
        self._arrays = (
            storage.data[derived:],
            storage.grad[derived:effective],
            storage.data[:derived],
            storage.grad[:derived],
            self.accumulators,
            memory.upload(layout.chunks),
            memory.upload(layout.segments),
            memory.array_of(storage.attributes),
            *map(memory.array_of, staged),
            memory.array_of(self.coefficients),
            memory.zeros((t.SLICE_ROWS, layout.slices), np.float64),
            memory.zeros((t.BINS, layout.partials + count), np.float64),
            memory.zeros((3, layout.tiles), np.float64),
            memory.array_of(self.rates),
            memory.array_of(self.counters),
        )
        with _listing:
            _live.add(self)
        enlist(storage, self)

    def write(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Bring the group and clip tables to what the groups say; refuse before anything is written."""
        rows, clips = clip_rows([group["grad_clip"] for group in groups])
        for index, group in enumerate(groups):
            self.group_rows[index] = self._row(group, rows[index])
        self.publish(clips)

    def _row(self, group: Mapping[str, Any], clip: float) -> tuple[float, ...]:
        """Return a row of the group table; `clip` is that of the clip table."""
        decay = None if "weight_decay" in self.rule.hyper else group["weight_decay"]
        own = (group[name] for name in self.rule.hyper)
        # In the order of the columns.
        return group["learning_rate"], *decay_columns(decay), group["rescale_grad"], clip, *own

    def write_row(self, index: int, group: Mapping[str, Any]) -> bool:
        """Write one group, whose clip is as it was; False where it cannot be: a step may be reading."""
        counters = self.counters
        if self._may_step() or counters[t.REQUESTED] != counters[t.ADOPTED]:
            return False
        row = self._row(group, self.group_rows[index, t.GROUP_CLIP])
        self.group_rows[index] = row
        self.groups[index] = row
        return True

    def _may_step(self) -> bool:
        """Whether compiled code may be reading the rows in use."""
        return self.memory.is_host and bool(self.is_lent or self.counters[t.BUSY])

    def publish(self, clips: Sequence[GradientClip | None]) -> None:
        """Let the steps that follow see groups and clips, all of an edit or nothing of it."""
        count = len(self.group_of)
        clip_of = np.where(self.group_of >= 0, self.group_rows[self.group_of, t.GROUP_CLIP], 0)
        counts = np.bincount(clip_of.astype(np.int64), minlength=len(clips))
        firsts = np.cumsum(counts) - counts
        limits = [clip._columns if clip else (t.CLIP_NONE, np.inf, -np.inf, np.inf) for clip in clips]
        requested, stage = int(self.counters[t.REQUESTED]) + 1, 0
        if self._may_step():
            stage = 1 + requested % 2
        members, table, limited = self._staged
        row = stage * count
        table[row : row + count] = self.group_rows
        members[row : row + count, t.MEMBER_GROUP] = self.group_of
        members[row : row + count, t.MEMBER_ORDER] = np.lexsort((self._rank, clip_of))
        first = stage * (count + 1)
        limited[first : first + len(clips), : t.CLIP_COUNT + 1] = np.column_stack([limits, firsts, counts])
        if stage:
            members[row, t.MEMBER_STEPS] = len(clips)
            self.counters[t.REQUESTED] = requested
        else:
            self.counters[t.CLIPS_USED] = len(clips)
            self.counters[t.ADOPTED] = self.counters[t.REQUESTED]

    @functools.cached_property
    def program(self) -> BoundStep | CudaStep:
        """The step over these tables."""
        elements = int(self.layout.segments[:, t.SEGMENT_SIZE].sum())
        given = self.rule, self.dtype, self.layout.normed, self._arrays, elements
        if self.memory.is_host:
            from nbopt.kernels.cpu.run import BoundStep

            return BoundStep(*given)
        from nbopt.kernels.cuda.run import BoundStep as CudaStep

        return CudaStep(*given, cast("CudaMemory", self.memory))


def clip_rows(
    clips: list[GradientClip | None],
) -> tuple[list[int], list[GradientClip | None]]:
    """Return the row of the clip table of each group, and the clips by row; row 0 clips nothing.

    Raises
    ------
    HyperparameterError
        If clips of one explicit `group_name` have several limits.
    """
    rows: list[int] = []
    table: list[GradientClip | None] = [None]
    seen: dict[Any, int] = {}
    for clip in clips:
        if clip is None:
            rows.append(0)
            continue
        key: Any = id(clip)
        if isinstance(clip, ClipGradByGlobalNorm) and clip.group_name != DEFAULT_GROUP:
            key = clip.group_name
        row = seen.setdefault(key, len(table))
        if row == len(table):
            table.append(clip)
        held = table[row]
        assert held is not None
        if held._columns != clip._columns:
            raise HyperparameterError(
                f"clips of group_name={key!r} have limits {held._columns[1]!r} and {clip._columns[1]!r}; "
                "one norm has one limit"
            )
        rows.append(row)
    return rows, table
