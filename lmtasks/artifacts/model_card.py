"""What a run tells the world: its model card, and its record without anything private.

Both are made from the record that a run leaves in ``run.json``. Nothing that a card says is
asked from the model or the network, so a card can be written again at any time.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, not in __all__

from lmtasks.artifacts.redact import REDACTED, redacted

PLACEHOLDER = "REPO_OR_FOLDER"
"""Stands for the model's address until it has one: pushing puts the repository's id there."""


_METRIC_NAMES = {
    "eval_loss": ("loss", "Loss"),
    "perplexity": ("perplexity", "Perplexity"),
    "bits_per_byte": ("bits_per_byte", "Bits per byte"),
    "accuracy": ("accuracy", "Accuracy"),
}
_BOOKKEEPING = re.compile(
    r"^(?:train_.*|eval_targets|unigram_loss|epoch|total_flos|.*_(?:runtime|per_second|samples))$"
)
_NOT_SIZES = ("bytes", "unknown", "tail", "duplicates", "fingerprint")
_NOT_HYPERPARAMETERS = {
    "output_dir",
    "overwrite_output_dir",
    "logging_dir",
    "dry_run",
    "report_to",
    "run_name",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
}


def write_card(run_dir: Path, record: Mapping[str, Any]) -> Path:
    """Write the model card of a run as the ``README.md`` of its folder, and return its path.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(run_dir) / "README.md"
    path.write_text(str(model_card(record)), encoding="utf-8", newline="\n")
    return path


def model_card(record: Mapping[str, Any]) -> ModelCard:
    """The model card of a run, from its record; keys that the record lacks are left out.

    Commands in the card name the model ``REPO_OR_FOLDER``; see :data:`PLACEHOLDER`.
    """
    public = redacted(record)
    parts = (_introduction, _usage, _training_data, _procedure, _results, _versions)
    body = "\n\n".join(text for text in (part(public) for part in parts) if text)
    return ModelCard(f"---\n{_metadata(public).to_yaml()}\n---\n\n{body}\n")


def _metadata(record: Mapping[str, Any]) -> ModelCardData:
    results = _eval_results(record)
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=_pipeline_tag(record),
        base_model=_hub_id(record.get("base_model")),
        datasets=[dataset] if (dataset := _dataset_id(record)) else None,
        tags=["lmtasks", f"recipe:{record['recipe']}"],
        model_name=_model_name(record) if results else None,
        eval_results=results or None,
    )


def _eval_results(record: Mapping[str, Any]) -> list[EvalResult]:
    dataset = _dataset_id(record)
    settings = record.get("settings") or {}
    return [
        EvalResult(
            task_type=_pipeline_tag(record) or record["recipe"],
            dataset_type=dataset or _data(record).get("medium") or "text",
            dataset_name=dataset or _data(record).get("source") or "text",
            dataset_config=settings.get("dataset_config_name") if dataset else None,
            dataset_split=settings.get("validation_split") if dataset else None,
            dataset_revision=settings.get("dataset_revision") if dataset else None,
            metric_type=_METRIC_NAMES.get(name, (name, name))[0],
            metric_name=_metric_label(name, record),
            metric_value=value,
        )
        for name, value in _scores(record).items()
    ]


def _scores(record: Mapping[str, Any]) -> dict[str, float]:
    """What was measured on the evaluation data. Not a number is no measurement, and no valid metadata."""
    metrics = record.get("metrics") or {}
    return {name: value for name, value in metrics.items() if _is_number(value) and not _BOOKKEEPING.match(name)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metric_label(name: str, record: Mapping[str, Any]) -> str:
    label = record.get("perplexity_label")
    if name == "perplexity" and label:
        return str(label)[:1].upper() + str(label)[1:]
    return _METRIC_NAMES.get(name, (name, name.replace("_", " ").capitalize()))[1]


def _hub_id(name: Any) -> str | None:
    """The name, if it can be a repository's. What exists here as a folder was loaded from there."""
    if not isinstance(name, str) or os.path.exists(name):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def _dataset_id(record: Mapping[str, Any]) -> str | None:
    return _hub_id(_data(record).get("dataset_name"))


def _data(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record.get("data") or {}


def _pipeline_tag(record: Mapping[str, Any]) -> str | None:
    # A recipe may name a class of its own as "package.module:Class", which no Hub knows.
    pipeline = record.get("pipeline")
    return pipeline if isinstance(pipeline, str) and re.fullmatch(r"[a-z0-9-]+", pipeline) else None


def _model_name(record: Mapping[str, Any]) -> str:
    published_as = (record.get("settings") or {}).get("hub_model_id")
    if _hub_id(published_as):
        return str(published_as).rpartition("/")[2]
    return "-".join(part for part in (record.get("model_type"), record["recipe"]) if part)


def _introduction(record: Mapping[str, Any]) -> str:
    lines = [f"# {_model_name(record)}"]
    if record.get("summary"):
        lines.append(str(record["summary"]))
    lines.append(f"{_what_it_is(record)} by the `{record['recipe']}` recipe of lmtasks, {_origin(record)}.")
    return "\n\n".join(lines)


def _what_it_is(record: Mapping[str, Any]) -> str:
    architecture = f"A `{record['model_type']}` model" if record.get("model_type") else "A model"
    parameters = record.get("parameters")
    size = f" of {parameters:,} parameters" if isinstance(parameters, int) else ""
    return f"{architecture}{size}, trained"


def _origin(record: Mapping[str, Any]) -> str:
    base = record.get("base_model")
    if not base:
        return "from scratch"
    hub_id = _hub_id(base)
    return (
        f"starting from [{hub_id}](https://huggingface.co/{hub_id})" if hub_id else "starting from a local checkpoint"
    )


def _usage(record: Mapping[str, Any]) -> str:
    example = _example(record)
    blocks = ["## How to use it", f"```bash\nlmtasks predict {PLACEHOLDER} {_shell_quoted(example)}\n```"]
    distribution = str(record.get("owner") or "lmtasks").partition(":")[0]
    # A recipe that was named as a file or a module, or made in memory, comes with no package.
    if distribution != "lmtasks" and "package" in (record.get("origin", {"package": distribution}) or ()):
        blocks.insert(1, f"The recipe comes with `{distribution}`: `pip install lmtasks {distribution}`.")
    if _pipeline_tag(record):
        blocks.append(_pipeline_snippet(str(record["pipeline"]), example))
    return "\n\n".join(blocks)


def _example(record: Mapping[str, Any]) -> str:
    example = " ".join(str(record.get("example") or "").split())
    return example if example and "```" not in example else "..."


def _shell_quoted(text: str) -> str:
    # Double quotes work in every shell, as long as nothing in between means something to one.
    return shlex.quote(text) if re.search(r'["$`\\!%]', text) else f'"{text}"'


def _pipeline_snippet(pipeline: str, example: str) -> str:
    return (
        "```python\n"
        "from transformers import pipeline\n\n"
        f'model = pipeline("{pipeline}", model="{PLACEHOLDER}")\n'
        f"print(model({example!r}))\n"
        "```"
    )


def _training_data(record: Mapping[str, Any]) -> str:
    data = _data(record)
    if not data:
        return ""
    source = _link(_dataset_id(record)) or _verbatim(data.get("source") or "not recorded")
    rows = [(split, data[split]) for split in ("train", "evaluation") if isinstance(data.get(split), Mapping)]
    counted = list(dict.fromkeys(name for _, sizes in rows for name in sizes if name not in _NOT_SIZES))
    table = _table(
        ["split", *counted], ([split, *(_cell(sizes.get(column)) for column in counted)] for split, sizes in rows)
    )
    return "\n\n".join(text for text in ("## Training data", f"Source: {source}", table if counted else "") if text)


def _link(dataset: str | None) -> str | None:
    return f"[{dataset}](https://huggingface.co/datasets/{dataset})" if dataset else None


def _procedure(record: Mapping[str, Any]) -> str:
    groups: dict[str, Mapping[str, Any]] = {
        "Recipe": record.get("options") or {},
        "Training": record.get("training") or {},
        "Data and model": record.get("settings") or {},
        "Seeds": record.get("seeds") or {},
    }
    rows = [
        [group, f"`{name}`", _verbatim(value)]
        for group, values in groups.items()
        for name, value in values.items()
        if name not in _NOT_HYPERPARAMETERS and (_is_number(value) or value) and value != REDACTED
    ]
    return "## Hyperparameters\n\n" + _table(["of", "name", "value"], rows) if rows else ""


def _results(record: Mapping[str, Any]) -> str:
    scores = _scores(record)
    if not scores:
        return ""
    table = _table(
        ["metric", "value"], ([_verbatim(_metric_label(name, record)), _cell(value)] for name, value in scores.items())
    )
    return "\n\n".join(text for text in ("## Results", table, _remarks(record)) if text)


def _remarks(record: Mapping[str, Any]) -> str:
    """The numbers that the results are read against."""
    metrics = record["metrics"]
    predicted = "predicted tokens" if "tokens" in (_data(record).get("evaluation") or {"tokens"}) else "targets"
    remarks: list[tuple[str, Callable[[Any], str]]] = [
        ("eval_targets", lambda count: f"Measured on {_cell(count)} {predicted} of the evaluation data."),
        ("unigram_loss", lambda loss: f"Guessing by word frequency alone has a loss of {_cell(loss)}."),
        ("train_runtime", lambda seconds: f"Training took {_cell(seconds)} seconds."),
        ("train_tokens_per_second", lambda speed: f"Training speed: {_cell(speed)} tokens per second."),
    ]
    return " ".join(say(metrics[name]) for name, say in remarks if _is_number(metrics.get(name)))


def _versions(record: Mapping[str, Any]) -> str:
    versions = record.get("versions") or {}
    return (
        "## Versions\n\n" + "\n".join(f"- {name} {version}" for name, version in versions.items()) if versions else ""
    )


def _table(header: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    """A value as one table cell: numbers readable, nothing that ends the cell or the line."""
    if value is None:
        return ""
    if not _is_number(value):
        return _verbatim(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if 0.001 <= abs(value) < 1e6 else f"{value:g}"


def _verbatim(value: Any) -> str:
    """A value as it was set, so that it can be set again."""
    return " ".join(str(value).split()).replace("|", "\\|")
