"""Examples of several sources as one, in shares that weights say."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lmtasks.api import Examples
from lmtasks.data.prepared.sharded import Sharded
from lmtasks.errors import InputError

MOST = 1 << 31
"""Examples of the longest epoch, whose order is kept in memory as 32-bit numbers."""

_GOLDEN = (math.sqrt(5) - 1) / 2


def one_source(examples: Examples) -> Examples:
    """The examples of the first source of a mix, or of the first shard; any others as they are."""
    one = next(iter(examples.sources.values())) if isinstance(examples, Mixed) else examples
    return one.first if isinstance(one, Sharded) else one


def origin(examples: Examples, number: int) -> tuple[Examples, int]:
    """The examples of one source, or of one shard, that an example is of, and its number there."""
    if isinstance(examples, Mixed):
        source, number = examples.place(number)
        examples = [*examples.sources.values()][source]
    return examples.holding(number) if isinstance(examples, Sharded) else (examples, number)


def in_own_order(examples: Examples) -> bool:
    """Whether the examples were prepared, so that numbers from 0 on are positions in an order of each epoch's own."""
    return isinstance(examples, Sharded) or (isinstance(examples, Mixed) and examples.prepared)


@dataclass(frozen=True)
class _Stride:
    """A walk through a source: every example once, and then again, by steps of equal length.

    A step near the golden section of the length, without a common divisor, comes to every example once, and any part
    of the walk is spread over the whole source.
    """

    examples: Examples
    size: int
    start: int

    @cached_property
    def step(self) -> int:
        return next(
            step for step in itertools.count(max(1, round(self.size * _GOLDEN))) if math.gcd(step, self.size) == 1
        )

    def __call__(self, turn: int) -> int:
        return (self.start + turn * self.step) % self.size

    def longest_first(self, turns: int) -> Iterator[int]:
        """Those of the first turns that come to long examples before those that come to short ones."""
        back = pow(self.step, -1, self.size)
        for number in self.examples.longest_first():
            turn = (number - self.start) * back % self.size
            if number < self.size and turn < turns:
                yield turn


@dataclass(frozen=True)
class _Ordered:
    """A walk through a prepared source: in the order of its first epoch, then of its second, and so on."""

    examples: Sharded
    size: int

    def __call__(self, turn: int) -> int:
        time, position = divmod(turn, self.size)
        return self._first.in_order(position, time)

    @cached_property
    def _first(self) -> Sharded:
        return self.examples.head(self.size)

    def longest_first(self, turns: int) -> Iterator[int]:
        """The first turns as they come: to know the lengths, each shard would have to be read."""
        return iter(range(turns))


@dataclass(frozen=True)
class Mixed:
    """Examples of several sources; each example is of one of them.

    Which example stands where is a function of the seed, the epoch and its number, and of nothing that happens in a
    run. An epoch has the same number of a source's examples as every other, spread evenly over it. The next epoch goes
    on in a source where the last one ended: every example of a source is seen once before one is seen again.

    Args:
        sources: the examples of each source by name, none of them empty.
        weights: of each source, above 0: how many of the unit, of tokens where it is text, for those of the others.
        stopping_strategy: "first_exhausted": an epoch ends when the first source has no example left for its share.
            "all_exhausted": when every example of every source was seen once at least.
        seed: of the order within sources.
        most: only so many of the first examples, the same ones in each epoch; all when None.
    """

    sources: Mapping[str, Examples]
    weights: Mapping[str, float]
    stopping_strategy: str
    seed: int
    most: int | None = None

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many examples of each source an epoch has: its share, rounded by largest remainders."""
        # By tokens: a source of shorter examples gets more of them. Exact, so that rounding depends on no machine.
        parts = [
            Fraction(str(self.weights[name])) / Fraction(examples.per_example)
            for name, examples in self.sources.items()
        ]
        shares = [part / sum(parts) for part in parts]
        ends = [len(examples) / share for examples, share in zip(self.sources.values(), shares, strict=True)]
        total = math.floor(min(ends)) if self.stopping_strategy == "first_exhausted" else math.ceil(max(ends))
        total = total if self.most is None else min(total, self.most)
        if total >= MOST:
            raise InputError(
                f"an epoch in which all sources are exhausted would have {total:,} examples",
                "stopping_strategy: first_exhausted, or a greater weight for the source that takes longest",
            )
        counts = [math.floor(share * total) for share in shares]
        by_remainder = sorted(range(len(shares)), key=lambda place: counts[place] - shares[place] * total)
        for place in by_remainder[: total - sum(counts)]:
            counts[place] += 1
        return tuple(counts)

    def example(self, index: int, epoch: int = 0) -> dict[str, Any]:
        """An example of an epoch as the collator gets it, without the seed."""
        place, number = self.place(index, epoch)
        return self._examples[place].example(number)

    def place(self, index: int, epoch: int = 0) -> tuple[int, int]:
        """The source, by its place, of which an example of an epoch is, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        event = int(self._order[index])
        place = int(np.searchsorted(self._ends, event, side="right"))
        rank = event - (int(self._ends[place - 1]) if place else 0)
        return place, self._walks[place](epoch * self.counts[place] + rank)

    @property
    def how(self) -> dict[str, Any]:
        """How its sources are mixed, apart from the seed."""
        return {"weights": dict(self.weights), "stopping_strategy": self.stopping_strategy}

    @property
    def prepared(self) -> bool:
        """Whether its sources were."""
        return isinstance(self._examples[0], Sharded)

    @cached_property
    def _examples(self) -> tuple[Examples, ...]:
        return tuple(self.sources.values())

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.counts)

    @cached_property
    def _order(self) -> npt.NDArray[np.int32]:
        """The examples of an epoch as they come, numbered source after source, int32 [examples].

        Each source's come at even distances, as the lines of Bresenham do: the shares hold in every stretch.
        """
        times = [(np.arange(count) + 0.5) / max(1, count) for count in self.counts]
        return np.argsort(np.concatenate(times), kind="stable").astype(np.int32)

    @cached_property
    def _walks(self) -> tuple[_Stride | _Ordered, ...]:
        """How each source is walked through."""
        walks: list[_Stride | _Ordered] = []
        for place, (examples, count) in enumerate(zip(self._examples, self.counts, strict=True)):
            size = len(examples) if self.most is None else max(1, min(len(examples), count))
            start = int(np.random.default_rng([self.seed, place]).integers(size))
            walks.append(_Ordered(examples, size) if isinstance(examples, Sharded) else _Stride(examples, size, start))
        return tuple(walks)

    @property
    def unit(self) -> str:
        """The unit of its size, that of every source."""
        return self._examples[0].unit

    @property
    def total(self) -> float:
        """The number of these in all sources."""
        return sum(examples.total for examples in self._examples)

    @property
    def per_example(self) -> float:
        """The number of these that the model gets with an example, on average over an epoch."""
        pairs = zip(self.counts, self._examples, strict=True)
        return sum(count * examples.per_example for count, examples in pairs) / len(self)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with the sources and the way of mixing them."""
        prints = [(name, examples.fingerprint) for name, examples in self.sources.items()]
        how = (sorted(self.weights.items()), self.stopping_strategy, self.seed, self.most, self.counts)
        return hashlib.blake2b(repr((prints, how)).encode(), digest_size=16).hexdigest()

    def longest_first(self) -> Iterator[int]:
        """The numbers of the examples of the first epoch, those of long examples of each source before its short."""
        when = np.empty_like(self._order)
        when[self._order] = np.arange(len(self), dtype=when.dtype)

        def of_source(place: int) -> Iterator[int]:
            count = self.counts[place]
            before = int(self._ends[place]) - count
            return (int(when[before + turn]) for turn in self._walks[place].longest_first(count))

        sources = map(of_source, range(len(self._examples)))
        return (number for turn in itertools.zip_longest(*sources) for number in turn if number is not None)

    def head(self, examples: int | None) -> Mixed:
        """The first so many examples, in the same shares; all when None."""
        return replace(self, most=examples)

    def sizes(self) -> dict[str, Any]:
        """For plan, record and card: the sizes of all sources together, and how many examples an epoch has."""
        every = [examples.sizes() for examples in self._examples]
        together = {
            name: sum(sizes.get(name, 0) for sizes in every) if isinstance(value, (int, float)) else value
            for name, value in every[0].items()
        }
        if "special" in together:
            together["special"] = dict(sum((Counter(sizes["special"]) for sizes in every), Counter()))
        if len({sizes["unit"] for sizes in every}) > 1:
            together["unit"] = "rows"
        return {**together, "examples_per_epoch": len(self), "fingerprint": self.fingerprint}

    def parts(self, epochs: float) -> dict[str, dict[str, Any]]:
        """What plan, record and card say of each source of a run of so many epochs, ``times_seen`` among it."""
        return {
            name: {
                **examples.sizes(),
                "weight": self.weights[name],
                f"{self.unit.replace(' ', '_')}_per_epoch": round(count * examples.per_example),
                "times_seen": round(epochs * count / walk.size, 2),
            }
            for (name, examples), count, walk in zip(self.sources.items(), self.counts, self._walks, strict=True)
        }

    def notes(self, name: str) -> Iterator[str]:
        """Remarks for a person before training on it, of each source."""
        for (source, examples), count in zip(self.sources.items(), self.counts, strict=True):
            yield from examples.notes(f"{name} {source}")
            if not count:
                yield f"an epoch of {len(self):,} examples is too short for a share of {source}"
