"""A heap of numbers does what glibc's does with blocks: the best place, neighbours made one, the rest from above."""

from __future__ import annotations

import random
from itertools import pairwise

from lmtasks.training.heap import ALIGNED, Heap

SMALL, LARGE = 10 * ALIGNED, 100 * ALIGNED


def taken(size: int) -> int:
    """What a block of so many bytes takes, with what the allocator keeps about it."""
    return size + ALIGNED


def test_a_freed_block_is_used_again() -> None:
    heap = Heap()
    for turn in range(3):
        heap.take(turn, LARGE)
        heap.give(turn)
    assert heap.height == taken(LARGE)


def test_neighbours_that_are_free_become_one() -> None:
    heap = Heap()
    for block in range(4):
        heap.take(block, SMALL)
    for block in (1, 3, 2, 0):
        heap.give(block)
    heap.take(9, 4 * taken(SMALL) - ALIGNED)
    assert heap.height == 4 * taken(SMALL)


def test_a_block_between_makes_a_hole() -> None:
    heap = Heap()
    for block in range(3):
        heap.take(block, SMALL)
    heap.give(0)
    heap.give(2)
    heap.take(9, 2 * SMALL)  # 0 is too small for it, and 2 is made longer
    assert heap.height == 2 * taken(SMALL) + taken(2 * SMALL)
    heap.take(10, SMALL)
    assert heap.height == 2 * taken(SMALL) + taken(2 * SMALL), "what fits into the hole goes there"


def test_what_was_cut_off_keeps_neighbours_apart_until_it_goes() -> None:
    heap = Heap()
    for block in range(2):
        heap.take(block, SMALL)
    for block in range(2):
        heap.give(block, edge=False)
    heap.take(2, 2 * SMALL)
    assert heap.height == taken(SMALL) * 2 + taken(2 * SMALL)
    heap.give_edges()
    heap.take(3, 2 * SMALL)
    assert heap.height == taken(SMALL) * 2 + taken(2 * SMALL), "all that is left of the two is one"


def test_the_place_that_fits_best_is_taken() -> None:
    heap = Heap()
    for block, size in enumerate((LARGE, SMALL, SMALL, SMALL)):
        heap.take(block, size)
    heap.give(0)
    heap.give(2)
    heap.take(9, SMALL)
    heap.take(10, LARGE)
    assert heap.height == taken(LARGE) + 3 * taken(SMALL)


def test_blocks_never_overlap_and_nothing_is_lost() -> None:
    draw, heap, there = random.Random(0), Heap(), {}
    for number in range(3000):
        if there and draw.random() < 0.5:
            heap.give(block := draw.choice(sorted(there)))
            del there[block]
        else:
            heap.take(number, size := draw.randrange(1, 5000))
            there[number] = size
        places = sorted(heap._blocks.values())
        assert all(end <= begin for (_, end), (begin, _) in pairwise(places))
        free = sum(size for size, _ in heap._free)
        assert sum(end - begin for begin, end in places) + free == heap.height
    for block in there:
        heap.give(block)
    assert heap._free == [(heap.height, 0)]
