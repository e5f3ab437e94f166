"""A finished run, as Python gets it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas
from transformers import PreTrainedModel

from lmtasks.api import Recipe, resolve
from lmtasks.artifacts.publish import push
from lmtasks.artifacts.report.folder import log_of, told_by
from lmtasks.artifacts.report.page import write_page
from lmtasks.artifacts.run_folder import CURVE, REPORT
from lmtasks.artifacts.verdict import Verdict, recorded_verdict
from lmtasks.inference.predictor import Predictor
from lmtasks.models.checkpoint import from_pretrained
from lmtasks.progress import quietly
from lmtasks.runs.plan import Plan
from lmtasks.runs.standalone_evaluation import evaluate

FIGURES = ("eval_loss", "perplexity", "bits_per_byte", "accuracy")
"""Those that are told first, where a run has them."""


@dataclass(frozen=True, repr=False)
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

    @quietly()
    def predict(self, texts: str | list[str], **arguments: Any) -> Any:
        """The pipeline's answers to a text, or to several; see :func:`lmtasks.predict`."""
        return self._predictor.predict(texts, **arguments)

    def evaluate(self, **values: Any) -> dict[str, float]:
        """The figures on other data, or on the run's own; see :func:`lmtasks.evaluate`."""
        return evaluate(self.output_dir, **values)

    def push(self, repo_id: str, **values: Any) -> str:
        """The address where it is published from now on; see :func:`lmtasks.push`."""
        return push(self.output_dir, repo_id, **values)

    def report(self, path: str | Path | None = None) -> Path:
        """The page about the run, in its folder; or written to a path."""
        if path is None and (self.output_dir / REPORT).is_file():
            return self.output_dir / REPORT
        return write_page(Path(path or self.output_dir / REPORT), [told_by(self.output_dir)])

    @cached_property
    @quietly()
    def model(self) -> PreTrainedModel:
        """The trained model, in evaluation mode, read when first asked for; an adapter within its base."""
        return from_pretrained(self.recipe.model_class, str(self.output_dir))

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, or whatever else makes the model's inputs, as the run has saved it."""
        processor = resolve(self.recipe.processor)
        return processor.from_pretrained(str(self.output_dir), trust_remote_code=False)

    @property
    def history(self) -> pandas.DataFrame:
        """What was logged during training: a row for each step, a column for each figure."""
        return pandas.DataFrame(log_of(self.output_dir)).groupby("step").first()

    def __repr__(self) -> str:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in self._figures().items())
        return f"Run({self.recipe.name} in {self.output_dir}: {figures})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures and the learning curve."""
        cells = "".join(
            f"<tr><th>{name.replace('_', ' ')}</th><td>{value:.4g}</td></tr>" for name, value in self._figures().items()
        )
        curve = self.output_dir / CURVE
        picture = curve.read_text(encoding="utf-8") if curve.is_file() else ""
        title = html.escape(f"{self.recipe.name} in {self.output_dir}")
        return f"<table><caption>{title}</caption>{cells}</table>{picture}"

    def _figures(self) -> dict[str, float]:
        return {name: self.metrics[name] for name in FIGURES if name in self.metrics}

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
