"""The engine that everybody has: transformers' own Trainer."""

from __future__ import annotations

from lmtasks import Engine, hookimpl

TRAINER = Engine(
    name="trainer",
    summary="The Trainer of transformers, with every argument that it has.",
    train="lmtasks.training.with_trainer:train",
    check="lmtasks.training.rehearsal:rehearse",
    arguments=None,
    resumes=True,
    restores=True,
    processes=True,
)


@hookimpl
def lmtasks_engines() -> list[Engine]:
    """The engines of this module."""
    return [TRAINER]
