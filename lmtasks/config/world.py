"""The processes that carry out one request together: this one's place among them, and what they tell each other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from lmtasks.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, as torchrun and its like start them: this one is number ``rank``, from 0, of ``size``."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls, *, talking: bool = False) -> World:
        """This process's world: torch's process group, else what the launcher told; itself alone if ``talking``."""
        if group := _group():
            return cls(group.get_rank(), group.get_world_size())
        if talking:  # without a group the others cannot be heard, and each does the whole work
            return ALONE
        rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
        if not 0 <= rank < size:  # the others would wait for a process that there is not
            told = f"the variables RANK and WORLD_SIZE are {rank} and {size}: processes are counted from 0"
            raise InputError(told, "unset both, or let a launcher set them: --num_processes 2")
        return cls(rank, size)

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all are here."""
        if group := _group():
            group.barrier()

    def broadcast(self, value: Any) -> Any:
        """The main process's value, in all; needs torch's process group where there are several."""
        values = [value]
        if self.size > 1:
            _group(required=True).broadcast_object_list(values)
        return values[0]

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes, in all; where it refuses to, all do.

        Raises:
            InputError: the main process raised it.
        """
        made: tuple[Any, InputError | None] = None, None
        if self.is_main:
            try:
                made = make(), None
            except InputError as error:
                if self.size == 1:
                    raise
                made = None, error
        value, refusal = self.broadcast(made)
        if refusal is not None:
            raise refusal
        found: T = value
        return found

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, in all."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            _group(required=True).all_gather_object(values, value)
        return values


ALONE = World()
"""The world of a single process."""


def _number(variable: str, alone: int) -> int:
    """What a launcher has told in a variable; as it is for a single process where it has told nothing."""
    told = os.environ.get(variable, "")
    try:
        return int(told or alone)
    except ValueError as error:
        raise InputError(f"the variable {variable} is {told!r}, which is no number", f"unset {variable}") from error


def _group(*, required: bool = False) -> Any:
    """``torch.distributed`` where a process group is up; whoever has not imported it has none."""
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        return distributed
    if required:
        raise RuntimeError("the processes of this world cannot talk yet: there is no process group")
    return None
