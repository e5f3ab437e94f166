"""The memory that glibc's allocator takes from the kernel for blocks that come and go, when it gives none back.

A block is put where it fits best among what was freed, and what is freed side by side becomes one. What fits nowhere
comes from above. So the heap is as high as it ever had to be, with holes that nothing fits into.

To begin where torch wants it, a block is cut out of a larger one. What is cut off is as large as what autograd notes of
an operation, and taken for it: so it keeps what was freed on its two sides apart, until the graph is gone.
"""

from __future__ import annotations

from bisect import bisect_left, insort

ALIGNED = 64
"""Bytes at whose multiples torch wants its tensors to begin."""


class Heap:
    """A heap, in which blocks have numbers for names."""

    def __init__(self) -> None:
        self.height = 0
        self._blocks: dict[int, tuple[int, int]] = {}
        self._free: list[tuple[int, int]] = []
        """Sizes and places of what is free."""
        self._begins: dict[int, int] = {}
        """Of what is free, the end by its beginning; and the other way round."""
        self._ends: dict[int, int] = {}
        self._edges: list[tuple[int, int]] = []

    def take(self, block: int, size: int) -> None:
        """Find a place for so many bytes."""
        size = -(-size // ALIGNED) * ALIGNED + ALIGNED
        place = bisect_left(self._free, (size, 0))
        if place < len(self._free):
            found, begin = self._free[place]
            self._fill(begin, begin + found)
            if found > size:
                self._empty(begin + size, begin + found)
        else:
            begin = self._ends.get(self.height, self.height)
            if begin < self.height:  # what is free at the top is made longer
                self._fill(begin, self.height)
            self.height = begin + size
        self._blocks[block] = begin, begin + size

    def give(self, block: int, *, edge: bool = True) -> None:
        """Free a block, and what was cut off for it, or let that stay until :meth:`give_edges`."""
        begin, end = self._blocks.pop(block)
        if not edge:
            self._edges.append((end - ALIGNED, end))
            end -= ALIGNED
        self._join(begin, end)

    def give_edges(self) -> None:
        """Free what has stayed."""
        while self._edges:
            self._join(*self._edges.pop())

    def _join(self, begin: int, end: int) -> None:
        if (before := self._ends.get(begin)) is not None:
            self._fill(before, begin)
            begin = before
        if (after := self._begins.get(end)) is not None:
            self._fill(end, after)
            end = after
        self._empty(begin, end)

    def _empty(self, begin: int, end: int) -> None:
        insort(self._free, (end - begin, begin))
        self._begins[begin], self._ends[end] = end, begin

    def _fill(self, begin: int, end: int) -> None:
        self._free.pop(bisect_left(self._free, (end - begin, begin)))
        del self._begins[begin], self._ends[end]
