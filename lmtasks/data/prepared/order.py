"""The order of prepared examples: a function of seed, epoch and position, whoever asks and in how many processes."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from lmtasks.data.prepared.permutation import Permutation


class Place(NamedTuple):
    """Where the example of a position lies: in a shard, as one of its examples, and in which window of which lane."""

    lane: int
    window: int
    shard: int
    example: int


class Order:
    """Shards in an order of the epoch's own, one behind the other; and in each window of these, examples in another.

    An epoch has every example once. Any position is found without those before it. What is kept is a number for each
    shard, as in the manifest.

    Args:
        sizes: the examples of each shard.
        window: examples that are mixed with each other.
        lanes: equal parts of the line of shards, from which positions are dealt in turn. With as many as a global
            batch has examples, a process that takes the same part of each batch reads the same lanes all the time, and
            no others.
        seed: of the run.
    """

    def __init__(self, sizes: Sequence[int], window: int, lanes: int, seed: int) -> None:
        self.sizes, self.window, self.lanes, self.seed = tuple(sizes), window, lanes, seed
        self.total = sum(self.sizes)
        self._epoch = -1
        self._shards: list[int] = []
        self._ends: list[int] = []

    def __call__(self, position: int, epoch: int) -> Place:
        """The place of a position, from 0, in an epoch.

        Raises:
            IndexError: the epoch has no such position.
        """
        if not 0 <= position < self.total:
            raise IndexError(f"position {position} of {self.total}")
        row, lane = divmod(position, self.lanes)
        begin, size = self._lane(lane)
        window = row // self.window
        first = window * self.window
        mixed = Permutation(min(self.window, size - first), self.seed, epoch, lane, window)
        self._begin(epoch)
        there = begin + first + mixed(row - first)
        turn = bisect.bisect_right(self._ends, there)
        return Place(lane, window, self._shards[turn], there - (self._ends[turn - 1] if turn else 0))

    def shards(self, lane: int, window: int, epoch: int) -> list[int]:
        """The shards that a window has examples of, by number; none behind the last window."""
        begin, size = self._lane(lane)
        first, last = window * self.window, min((window + 1) * self.window, size)
        if first >= last:
            return []
        self._begin(epoch)
        from_turn, to_turn = (bisect.bisect_right(self._ends, begin + row) for row in (first, last - 1))
        return [shard for shard in self._shards[from_turn : to_turn + 1] if self.sizes[shard]]

    def _lane(self, lane: int) -> tuple[int, int]:
        """Where in the line a lane begins, and how many examples it has."""
        size, rest = divmod(self.total, self.lanes)
        return lane * size + min(lane, rest), size + (lane < rest)

    def _begin(self, epoch: int) -> None:
        if epoch != self._epoch:
            mixed = Permutation(max(1, len(self.sizes)), self.seed, epoch, "shards")
            self._shards = [mixed(turn) for turn in range(len(self.sizes))]
            self._ends = list(itertools.accumulate(self.sizes[shard] for shard in self._shards))
            self._epoch = epoch
