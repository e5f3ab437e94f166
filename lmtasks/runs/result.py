"""A finished run, as Python gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lmtasks.api import Recipe
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
        verdict: what it is worth, in sentences; None in other processes than the first.
    """

    recipe: Recipe
    output_dir: Path
    metrics: dict[str, float]
    plan: Plan | None
    perplexity_name: str
    started_small: bool
    url: str | None = None
    example: str | None = None
    verdict: Verdict | None = None

    def predict(self, texts: str | list[str], **arguments: Any) -> Any:
        """The pipeline's answers to a text, or to several; see :func:`lmtasks.predict`."""
        return self._predictor.predict(texts, **arguments)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        folder: Path,
        record: Mapping[str, Any],
        metrics: dict[str, float],
        *,
        plan: Plan | None = None,
        started_small: bool = False,
        url: str | None = None,
    ) -> Run:
        """The run of a record."""
        label, verdict = record["perplexity_label"], recorded_verdict(record)
        return cls(recipe, folder, metrics, plan, label, started_small, url, record["example"], verdict)

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(str(self.output_dir), self.recipe)
