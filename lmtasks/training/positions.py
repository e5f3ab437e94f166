"""The batches of prepared examples: ranges of positions, begun anywhere at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Sampler


class Positions(Sampler[Sequence[int]]):
    """The batches of one of several processes, in place of a list of numbers that each would draw and divide.

    Batches go to the processes in turn. Where there are several, those of the last turn that reach beyond the end are
    filled up from the beginning, as accelerate does it, so that all processes have equally many.

    Args:
        examples: of an epoch.
        rank, size: this process's place among all, and how many they are.
        drop_last: leave out a last turn that is not full.
    """

    def __init__(self, examples: int, batch_size: int, rank: int, size: int, *, drop_last: bool) -> None:
        self.examples, self.batch_size, self.rank, self.size = examples, batch_size, rank, size
        self.turns = examples // (batch_size * size) if drop_last else -(-examples // (batch_size * size))
        self.left_out = 0

    def __len__(self) -> int:
        return self.turns

    def __iter__(self) -> Iterator[Sequence[int]]:
        """All batches; the first ones are empty where it was announced that nobody will look at them."""
        left_out, self.left_out = self.left_out, 0
        yield from itertools.repeat((), left_out)
        for turn in range(left_out, self.turns):
            first = (turn * self.size + self.rank) * self.batch_size
            last = first + self.batch_size
            if last <= self.examples or self.size == 1:
                yield range(first, min(last, self.examples))
            else:
                yield [position % self.examples for position in range(first, last)]

    def leave_out(self, batches: int) -> None:
        """Announce that whoever asks next drops so many batches: a run that goes on asks for all, to count them."""
        self.left_out = batches

    def put_into(self, loader: DataLoader[Any]) -> None:
        """Let a loader take its batches from here.

        Past its own guard, which keeps people from a change that would have no effect; accelerate has put a division of
        batches among processes there already, which would divide these once more, and wrapped the loader itself.
        """
        object.__setattr__(getattr(loader, "base_dataloader", loader), "batch_sampler", self)
