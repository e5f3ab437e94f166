"""Sets of rows against Python's own sets, and the memory that they take."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtasks.data.corpus.row_set import RowSet
from lmtasks.data.corpus.split_slices import held_out

FLAGS = st.lists(st.booleans(), min_size=1, max_size=70)


def rows_of(one: RowSet) -> list[int]:
    return np.flatnonzero(one.flags()).tolist()


@given(FLAGS, st.randoms(use_true_random=False))
def test_they_are_sets(flags: list[bool], random: object) -> None:
    other = [random.random() < 0.5 for _ in flags]  # type: ignore[attr-defined]
    one, two = RowSet.of(np.array(flags)), RowSet.of(np.array(other))
    first, second = ({row for row, flag in enumerate(these) if flag} for these in (flags, other))
    assert rows_of(one) == sorted(first) and len(one) == len(first)
    assert rows_of(one & two) == sorted(first & second)
    assert rows_of(one - two) == sorted(first - second) and len(one - two) == len(first - second)
    every = RowSet.all(len(flags))
    assert len(every) == len(flags) and len(every - one) == len(flags) - len(first)


@given(FLAGS, st.data())
def test_a_stretch_of_flags(flags: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(flags)))
    count = data.draw(st.integers(0, len(flags) - start))
    one = RowSet.of(np.array(flags))
    assert one.flags(start, count).tolist() == flags[start : start + count]
    assert one.flags(start).tolist() == flags[start:]


@given(FLAGS)
def test_how_many_come_before(flags: list[bool]) -> None:
    rows = np.arange(len(flags) + 1)
    assert RowSet.of(np.array(flags)).before(rows).tolist() == [sum(flags[:row]) for row in rows]


@given(FLAGS, st.data())
def test_those_of_a_set_that_are_flagged(flags: list[bool], data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.booleans(), min_size=sum(flags), max_size=sum(flags)))
    answers = iter(asked)
    wanted = [row for row, flag in enumerate(flags) if flag and next(answers)]
    assert rows_of(RowSet.of(np.array(flags)).where(np.array(asked, np.bool_))) == wanted


@pytest.mark.parametrize("documents", [True, False])
def test_what_is_held_out_is_drawn_without_an_index_of_all_rows(documents: bool) -> None:
    filled = RowSet.all(4_000_000)
    tracemalloc.start()
    held = held_out(filled, documents=documents, share=0.05, seed=0)
    train = filled - held
    assert train.before(np.array([0, 4_000_000])).tolist() == [0, len(train)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(held) == 200_000
    # Lines: flags for a moment. Documents: numpy draws a twentieth of them as 8 bytes each, from as many again.
    assert peak < (60 if documents else 10) * 1_000_000
