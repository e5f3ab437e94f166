"""A finished run, as Python gets it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lmtasks.api import Recipe
from lmtasks.artifacts.run_folder import read_record
from lmtasks.artifacts.verdict import Verdict, recorded_verdict
from lmtasks.inference.predictor import Predictor
from lmtasks.runs.plan import Plan


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        plan: None where the run was finished before, and there was nothing to do.
        metrics: ``eval_loss``, ``perplexity``, ``bits_per_byte``, ``accuracy``, ``train_runtime``, ...; where
            evaluation sets have names those of the first, and each one's as ``eval_NAME_loss``.
        perplexity_name: what the perplexity is, in the recipe's words.
        started_small: the recipe's own small model was trained, because nobody named one.
        url: where it was published, if it was.
        example: a prompt to try it with, from the text that it has not seen.
    """

    recipe: Recipe
    output_dir: Path
    metrics: dict[str, float]
    plan: Plan | None
    perplexity_name: str
    started_small: bool
    url: str | None = None
    example: str | None = None

    def predict(self, texts: str | list[str], **arguments: Any) -> Any:
        """The pipeline's answers to a text, or to several; see :func:`lmtasks.predict`."""
        return self._predictor.predict(texts, **arguments)

    @property
    def verdict(self) -> Verdict | None:
        """What it is worth, in sentences; None where an earlier version of lmtasks made it."""
        return recorded_verdict(read_record(self.output_dir) or {})

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(str(self.output_dir), self.recipe)
