"""Prepared examples: numbered as before they were prepared, read from shards, and in an order without memory."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmtasks.api import Blocks
from lmtasks.data.prepared.local_copies import LocalCopies
from lmtasks.data.prepared.order import Order
from lmtasks.data.prepared.shard import OpenShard, Shard
from lmtasks.data.text.packing import Packed

OPEN = 8
"""Shards that are held open at most, each with a file and a number for each document; or two for each lane."""

IN_A_WINDOW = 4
"""Shards whose examples are mixed with each other, unless somebody says how many examples are."""


class Sharded:
    """The training examples of prepared data, as :class:`lmtasks.api.medium.Examples`.

    Args:
        told: of all examples, see :class:`lmtasks.data.prepared.manifest.Manifest`.
        window: examples that are mixed with each other; as many as ``IN_A_WINDOW`` shards have when None.
        lanes, seed: see :class:`Order`.
        most: only so many of the first examples; all when None.
    """

    unit = "tokens"
    """The unit of its size."""

    def __init__(
        self,
        shards: Sequence[Shard],
        told: Mapping[str, Any],
        blocks: Blocks,
        files: LocalCopies,
        *,
        seed: int,
        window: int | None = None,
        lanes: int = 1,
        most: int | None = None,
    ) -> None:
        self.shards, self.told, self.blocks, self.files, self.most = shards, told, blocks, files, most
        self._how: dict[str, Any] = {"seed": seed, "window": window, "lanes": lanes}
        ends = [0, *itertools.accumulate(shard.examples for shard in shards)]
        self._ends = [min(end, end if most is None else most) for end in ends]
        sizes = [end - begin for begin, end in itertools.pairwise(self._ends)]
        self._used = sum(map(bool, sizes))
        usual = max(1, IN_A_WINDOW * math.ceil(len(self) / max(1, self._used)) // lanes)
        self.order = Order(sizes, window or usual, lanes, seed)
        self._most_open = max(OPEN, 2 * lanes)
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._windows: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": OrderedDict()}

    def in_order(self, position: int, epoch: int) -> int:
        """The number of the example at a position of an epoch; what its lane needs next is fetched meanwhile."""
        place = self.order(position, epoch)
        if self._windows.get(place.lane) != (epoch, place.window):
            self._windows[place.lane] = epoch, place.window
            coming = (self.order.shards(place.lane, place.window + ahead, epoch) for ahead in (0, 1))
            self.files.expect(self.shards[number] for number in itertools.chain(*coming))
        return self._ends[place.shard] + place.example

    def example(self, index: int) -> dict[str, Any]:
        """An example, by its number in the text.

        Raises:
            RunError: its shard is not what was written.
        """
        shard, there = self.holding(index)
        return shard.example(there)

    def holding(self, index: int) -> tuple[Packed, int]:
        """The shard that has an example, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index) - 1
        return self._packed(number), index - self._ends[number]

    @property
    def shards_first_seen(self) -> list[Shard]:
        """The shards of the first and of the longest example, which are looked at before anything is trained."""
        numbers = {0, bisect.bisect_right(self._ends, min(int(self.told["longest"]), len(self) - 1)) - 1}
        return [self.shards[number] for number in sorted(numbers)]

    @property
    def first(self) -> Packed:
        """The examples of the first shard."""
        return self._packed(0)

    def _packed(self, number: int) -> Packed:
        if number not in self._open:
            shard = self.shards[number]
            self._open[number] = OpenShard(self.files.path(shard), shard, self.blocks)
            if len(self._open) > self._most_open:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number].packed

    @property
    def total(self) -> float:
        """Tokens of the stream."""
        return float(self.told["sizes"]["tokens"])

    @property
    def per_example(self) -> float:
        """Tokens of an example with its frame, on average."""
        return float(self.told["per_example"])

    @property
    def fingerprint(self) -> str:
        """That of the examples before they were prepared; another one for some of them."""
        whole = str(self.told["sizes"]["fingerprint"])
        if self.most is None:
            return whole
        return hashlib.blake2b(f"{whole} {len(self)}".encode(), digest_size=16).hexdigest()

    def longest_first(self) -> Iterator[int]:
        """The longest example, and then all: to know the lengths, each shard would have to be read."""
        longest = int(self.told["longest"])
        return itertools.chain([longest] if longest < len(self) else [], range(len(self)))

    def head(self, examples: int | None) -> Sharded:
        """The first so many examples; all when None."""
        if examples is None:
            return self
        return Sharded(self.shards, self.told, self.blocks, self.files, **self._how, most=examples)

    def sizes(self) -> dict[str, Any]:
        """For plan, record and card: as before they were prepared, and the number of shards."""
        own = {"blocks": len(self), "fingerprint": self.fingerprint, "shards": self._used}
        return {**self.told["sizes"], **own}

    def notes(self, name: str) -> Iterator[str]:
        """The remarks of when they were prepared."""
        yield from self.told["notes"]
