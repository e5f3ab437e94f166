"""A training of a case, as the runner hands it to an engine."""

from __future__ import annotations

from transformers import PreTrainedModel, TrainingArguments

from lmtasks.testing.case import Case
from lmtasks.training.training import Training


def training_of(
    case: Case, arguments: TrainingArguments, texts: Case | None = None, model: PreTrainedModel | None = None
) -> Training:
    """The training of a copy of the case's model, or of another; perhaps on the texts of another case."""
    texts = texts or case
    return Training(
        model=model or case.model(),
        recipe=case.bound,
        arguments=arguments,
        train_dataset=texts.dataset(True),
        eval_dataset=texts.dataset(False),
        collates=(texts.collate(True), texts.collate(False)),
        log=case.folder / "log.jsonl",
    )
