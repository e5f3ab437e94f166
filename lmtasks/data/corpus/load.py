"""Documents from the Hub, files, folders or memory, as train and evaluation splits.

What the documents are is the :class:`~lmtasks.api.medium.Medium`'s business; text is the one that is built in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import datasets

from lmtasks.api import Medium
from lmtasks.config.evaluation_sets import UNNAMED
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.filters import filtered
from lmtasks.data.corpus.medium import TEXT
from lmtasks.data.corpus.origin import (
    EVALUATION,
    Origin,
    check,
    evaluation_origins,
    evaluation_split,
    given,
    no_data,
    training_origin,
)
from lmtasks.data.corpus.row_set import RowSet
from lmtasks.data.corpus.split import Split, without_begins
from lmtasks.data.corpus.split_slices import held_out, take
from lmtasks.errors import InputError

Render = Callable[[datasets.Dataset, str, str], datasets.Dataset]
"""(rows, column, source) to the rows with conversations as texts."""


@dataclass(frozen=True)
class Corpus:
    """The data of a run.

    Args:
        training: the splits to train on by source, whose name is empty where there is just one; none when only data
            for evaluation were named.
        evaluations: the evaluation sets by name, which is empty for one that nobody named.
        source: short words for people: "wiki.txt", "3 files", "squad, train[:5000]", "in-memory data".
    """

    training: Mapping[str, Split]
    evaluations: Mapping[str, Split]
    source: str

    @property
    def train(self) -> Split | None:
        """What is trained on, where that is of one source."""
        return self.training.get(UNNAMED)

    @property
    def evaluation(self) -> Split:
        """The first evaluation set, or the only one."""
        return next(iter(self.evaluations.values()))


def load_corpus(
    data: DataSettings,
    *,
    medium: Medium = TEXT,
    sample: str | None = None,
    evaluation_only: bool = False,
    render: Render | None = None,
) -> Corpus:
    """The data that the settings name, all of it checked.

    Evaluation is on ``validation_file``, ``validation_split`` or ``eval_dataset`` where given, and otherwise on a
    share of the training rows (``test_size``, ``validation_split_percentage``, else 5 %), chosen by ``split_seed``.
    As in ``run_mlm.py`` the share means nothing where data for evaluation are given.
    A split is never used because of its name alone: a dataset with a "validation" split is still divided, unless
    ``--validation_split validation`` asks for it.

    Args:
        sample: the embedded corpus to use when the settings name no data; a key of ``lmtasks.data.sample.SAMPLES``.
        evaluation_only: load no training data if the settings name data for evaluation. This matters for
            ``dataset_name`` with ``validation_split`` only, which for a run mean training on that dataset too.
        render: makes texts of conversations.

    Raises:
        InputError: no data, contradictory settings, or data that cannot be read or hold nothing.
    """
    check(data, medium, sample)
    training = None if evaluation_only and given(data, *EVALUATION) else training_origin(data, medium, sample)
    evaluations = evaluation_origins(data, medium, training)
    selected, words = (
        (None, "") if training is None else _select(training, medium, data.train_split, "train_split", render)
    )
    if not evaluations:
        if selected is None:
            raise no_data()
        train, measured = _divided(selected, words, medium, data)
        return Corpus({UNNAMED: train}, {UNNAMED: measured}, source=words)
    sets: dict[str, Split] = {}
    told = []
    for name, evaluation in evaluations.items():
        expression = evaluation_split(data, evaluation)
        if evaluation is training and expression == data.train_split:
            same = f"--train_split and --validation_split are both {expression}"
            raise InputError(same, "name another split for one")
        part, part_words = _select(evaluation, medium, expression, "validation_split", render)
        sets[name] = _whole(part, part_words, medium, data)
        told.append(part_words)
    training_sets = {} if selected is None else {UNNAMED: _whole(selected, words, medium, data)}
    return Corpus(training_sets, sets, source=words or "; ".join(dict.fromkeys(told)))


def _select(source: Origin, medium: Medium, expression: str, flag: str, render: Render | None) -> tuple[Split, str]:
    """The rows that a split expression selects, not yet looked at, and words for them."""
    words = source.words if expression == "train" else f"{source.words}, {expression}"
    rows, begins = without_begins(take(source.splits, expression, flag, source.words))
    rows, column = medium.select(rows, source.column, source.words)
    rows = rows if render is None else render(rows, column[0], source.words)
    return Split(rows, column, source.documents, begins=begins), words


def _whole(split: Split, words: str, medium: Medium, data: DataSettings) -> Split:
    """All rows that hold something wanted, and the line breaks between lines of text."""
    split, filled, wanted = _looked_at(split, words, medium, data)
    return _part(split, RowSet.all(filled.rows), filled, wanted)


def _divided(split: Split, words: str, medium: Medium, data: DataSettings) -> tuple[Split, Split]:
    """The training part and the part held out, both in the order of the data."""
    split, filled, wanted = _looked_at(split, words, medium, data)
    # What run_mlm.py and run_clm.py hold out when nobody says how much: 5 %.
    share = 0.05 if data.validation_split_percentage is None else data.validation_split_percentage / 100
    share = share if data.test_size is None else data.test_size
    # Blank documents are nobody's, and must not use up the share of those that are held out.
    chosen = held_out(wanted, documents=split.documents, share=share, seed=data.split_seed, medium=medium.name)
    return _part(split, RowSet.all(filled.rows) - chosen, filled, wanted), _part(
        replace(split, dropped={}), chosen, filled, wanted
    )


def _looked_at(split: Split, words: str, medium: Medium, data: DataSettings) -> tuple[Split, RowSet, RowSet]:
    """The split with what is left out of it counted, its rows that hold something, and those that are wanted."""
    filled = RowSet.of(medium.filled(split.rows, split.column, words))
    if medium is not TEXT:
        return split, filled, filled
    wanted, dropped = filtered(split, filled, data)
    if not len(wanted):
        told = ", ".join(f"{count:,} by --{name}" for name, count in dropped.items())
        raise InputError(f"nothing of {words} is left: {told}", "ask for less")
    return replace(split, dropped=dropped), filled, wanted


def _part(split: Split, part: RowSet, filled: RowSet, wanted: RowSet) -> Split:
    keep = part & wanted if split.documents else part
    chosen = None if len(keep) == keep.rows else keep
    return replace(split, blank=len(part - filled) if split.documents else 0, chosen=chosen)
