"""The figure of a model on a benchmark, in the Hub's own format: what a file in ``.eval_results/`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from lmtasks.artifacts.model_card import hub_id

PLACE = ".eval_results/lmtasks.yaml"
"""Its name in a repository."""


def eval_results(record: Mapping[str, Any]) -> str | None:
    """The perplexity of a run on a split of a dataset on the Hub, as YAML.

    Returns:
        None where the run was measured on anything else, such as a share of the training split: there, nobody could
        measure the same on the same text.
    """
    settings = record.get("settings") or {}
    dataset, perplexity = hub_id(settings.get("dataset_name")), (record.get("metrics") or {}).get("perplexity")
    elsewhere = settings.get("validation_file") or settings.get("max_eval_samples")
    if not dataset or elsewhere or not settings.get("validation_split") or not isinstance(perplexity, float):
        return None
    entry = EvalResultEntry(
        dataset_id=dataset,
        task_id=settings.get("dataset_config_name") or "default",
        value=perplexity,
        dataset_revision=settings.get("dataset_revision"),
        date=record.get("started"),
        notes=f"{record.get('perplexity_label') or 'perplexity'}, split {settings['validation_split']}",
    )
    return str(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True))
