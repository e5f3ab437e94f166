"""Mixed examples: exact shares, an order that anybody can work out, and nothing that depends on the run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lmtasks import Blocks
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.mixed import Mixed
from lmtasks.data.text.packing import Packed, cut
from lmtasks.data.text.tokenize import Stream
from lmtasks.errors import InputError


def source(first: int, examples: int, size: int = 1) -> Packed:
    """Blocks whose tokens are numbers from ``first`` on: of size 1, the example 3 of ``source(100, 6)`` is [103]."""
    ids = np.arange(first, first + examples * size, dtype=np.int32)
    return cut(Stream(ids, np.zeros(1, np.int64), rows=examples), Blocks(size=size))


def mix(*sizes: int, weights: tuple[float, ...], strategy: str = "first_exhausted", seed: int = 0) -> Mixed:
    names = "abcdef"[: len(sizes)]
    sources = {name: source(100 * place, size) for place, (name, size) in enumerate(zip(names, sizes, strict=True))}
    return Mixed(sources, dict(zip(names, weights, strict=True)), strategy, seed)


def ids(mixed: Mixed, epoch: int = 0) -> list[int]:
    return [int(mixed.example(number, epoch)["input_ids"][0]) for number in range(len(mixed))]


def test_an_epoch_by_hand() -> None:
    """Six of a in 3/4 of an epoch make one of 8, two of them of b.

    Those of a come at 1/12, 3/12, 5/12, 7/12, 9/12 and 11/12 of it, those of b at 3/12 and 9/12, a first.
    The generator of seed 0 begins with example 5 of a's six and 2 of b's four; the steps are 5 and 3, the next
    numbers from 0.618 × 6 and 0.618 × 4 on that have no divisor in common with 6 and 4.
    """
    mixed = mix(6, 4, weights=(0.75, 0.25))
    assert mixed.counts == (6, 2)
    assert ids(mixed) == [5, 4, 102, 3, 2, 1, 101, 0]
    assert ids(mixed, epoch=1) == [5, 4, 100, 3, 2, 1, 103, 0], "b goes on where it was"
    assert ids(mixed, epoch=2) == ids(mixed), "all of b was seen"


def test_until_all_are_exhausted_by_hand() -> None:
    mixed = mix(6, 4, weights=(3, 1), strategy="all_exhausted")
    assert mixed.counts == (12, 4), "four of b are a quarter of 16"
    seen = Counter(ids(mixed))
    assert {number: seen[number] for number in (*range(6), *range(100, 104))} == {
        **dict.fromkeys(range(6), 2),
        **dict.fromkeys(range(100, 104), 1),
    }


def test_a_repeated_example_has_another_seed() -> None:
    dataset = ExampleDataset(mix(3, 9, weights=(1, 1), strategy="all_exhausted"), seed=7)
    repeats = [one["seed"] for one in map(dataset.__getitem__, range(len(dataset))) if one["input_ids"][0] == 1]
    assert len(repeats) == 3 and len(set(repeats)) == 3
    dataset.start_epoch(1)
    assert dataset[5]["seed"] == (7, 1, 5)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    parts=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    strategy=st.sampled_from(["first_exhausted", "all_exhausted"]),
    seed=st.integers(0, 3),
)
def test_shares_hold_everywhere_and_nothing_is_seen_twice_before_all_is_seen(
    sizes: list[int], parts: list[int], strategy: str, seed: int
) -> None:
    mixed = mix(*sizes, weights=tuple(parts[: len(sizes)]), strategy=strategy, seed=seed)
    weights = parts[: len(sizes)]
    walked: list[list[int]] = [[] for _ in sizes]
    for epoch in range(3):
        so_far = [0] * len(sizes)
        for index in range(len(mixed)):
            place, number = mixed.place(index, epoch)
            walked[place].append(number)
            so_far[place] += 1
            for count, share in zip(so_far, mixed.counts, strict=True):
                assert abs(count - (index + 1) * share / len(mixed)) < len(sizes)
    for size, count, walk, weight in zip(sizes, mixed.counts, walked, weights, strict=True):
        assert abs(count - len(mixed) * weight / sum(weights)) < 1
        assert count <= size if strategy == "first_exhausted" else count >= size
        for start in range(0, len(walk), size):
            piece = walk[start : start + size]
            assert len(set(piece)) == len(piece), "every example once before one comes again"


def test_shares_of_an_epoch_of_a_million_tokens() -> None:
    big = {"big": source(0, 2000, 512), "small": source(0, 391, 512)}
    mixed = Mixed(big, {"big": 0.8, "small": 0.2}, "first_exhausted", 42)
    tokens = Counter[int]()
    for index in range(len(mixed)):
        tokens[mixed.place(index)[0]] += len(mixed.example(index)["input_ids"])
    assert 1_000_000 <= tokens.total() < 1_001_000
    assert abs(tokens[0] / tokens.total() - 0.8) < 0.001
    assert mixed.per_example == 512
    part = mixed.parts(epochs=2.5)["small"]
    assert (part["weight"], part["tokens_per_epoch"], part["times_seen"]) == (0.2, tokens[1], 2.5)
    assert mixed._order.nbytes == 4 * len(mixed)


def test_weights_count_tokens_not_examples() -> None:
    short = cut(Stream(np.zeros(600, np.int32), np.arange(0, 600, 3)), Blocks(size=8, line_by_line=True))
    long = cut(Stream(np.zeros(600, np.int32), np.arange(0, 600, 6)), Blocks(size=8, line_by_line=True))
    mixed = Mixed({"short": short, "long": long}, {"short": 1, "long": 1}, "first_exhausted", 0)
    assert mixed.counts == (200, 100), "three and six tokens each"


def test_a_part_of_an_epoch_spreads_over_its_source() -> None:
    mixed = mix(1000, 100, weights=(0.1, 0.9))
    numbers = [number for place, number in map(mixed.place, range(len(mixed))) if place == 0]
    assert len(numbers) == 11
    assert np.diff(np.sort([*numbers, min(numbers) + 1000])).max() < 200


def test_the_head_keeps_shares_and_its_examples() -> None:
    mixed = mix(60, 40, weights=(0.75, 0.25)).head(8)
    assert (len(mixed), mixed.counts) == (8, (6, 2))
    assert sorted(ids(mixed)) == sorted(ids(mixed, 1)) == [*range(6), 100, 101], "the same in each epoch"
    assert ids(mix(6, 4, weights=(3, 1)).head(None)) == ids(mix(6, 4, weights=(3, 1)))
    assert mix(6, 4, weights=(3, 1)).head(99).counts == (6, 2)
    only = mix(60, 40, weights=(0.99, 0.01)).head(4)
    assert only.counts == (4, 0)
    assert [*only.notes("training")] == ["an epoch of 4 examples is too short for a share of b"]


def test_long_examples_come_first_and_from_every_source() -> None:
    lines = cut(Stream(np.arange(15, dtype=np.int32), np.array([0, 1, 3, 6, 10])), Blocks(size=8, line_by_line=True))
    mixed = Mixed({"lines": lines, "blocks": source(100, 9)}, {"lines": 3, "blocks": 1}, "first_exhausted", 3)
    found = [mixed.place(index) for index in mixed.longest_first()]
    assert [number for place, number in found if place == 0] == [4, 3, 2, 1, 0][-mixed.counts[0] :]
    assert len(set(found)) == len(found) == len(mixed)


def test_what_is_told_of_it() -> None:
    mixed = mix(6, 4, weights=(3, 1))
    sizes = mixed.sizes()
    assert (sizes["rows"], sizes["tokens"], sizes["blocks"], sizes["examples_per_epoch"]) == (10, 10, 10, 8)
    assert (mixed.unit, mixed.total, mixed.per_example) == ("tokens", 10, 1)
    others = [mix(6, 4, weights=(3, 1), seed=1), mix(6, 4, weights=(2, 1)), mix(6, 5, weights=(3, 1)), mixed.head(3)]
    others += [mix(6, 4, weights=(3, 1), strategy="all_exhausted")]
    assert len({mixed.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert mixed.fingerprint == mix(6, 4, weights=(3, 1)).fingerprint
    with pytest.raises(IndexError):
        mixed.example(8)


def test_an_epoch_that_takes_too_much_memory_is_refused() -> None:
    endless = mix(5, 5, weights=(1e-12, 1), strategy="all_exhausted")
    with pytest.raises(InputError, match="would have 5,000,000,000,005 examples"):
        len(endless)


def _plain(batch: list[dict[str, Any]]) -> list[tuple[int, tuple[int, ...]]]:
    return [(int(one["input_ids"][0]), one["seed"]) for one in batch]


def test_workers_see_the_same_in_every_epoch() -> None:
    def seen(workers: int) -> list[Any]:
        dataset = ExampleDataset(mix(20, 7, weights=(0.6, 0.4)), seed=5)
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_size=4, collate_fn=_plain, num_workers=workers, persistent_workers=workers > 0
        )
        epochs = []
        for epoch in range(2):
            dataset.start_epoch(epoch)
            epochs.append([*loader])
        return epochs

    alone = seen(0)
    assert alone == seen(2)
    assert [one[0] for batch in alone[0] for one in batch] != [one[0] for batch in alone[1] for one in batch]
