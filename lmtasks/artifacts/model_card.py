"""The model card of a run, made of nothing but the record that it leaves in ``run.json``.

Nothing that a card says is asked from the model or the network, so it can be written again at any time.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, not in __all__

from lmtasks.artifacts.durable import write_text
from lmtasks.artifacts.redact import REDACTED, redacted
from lmtasks.artifacts.shell import shell_quoted
from lmtasks.config.evaluation_sets import set_names, set_of

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")

PLACEHOLDER = "REPO_OR_FOLDER"
"""Stands for the model's address until it has one: pushing puts the repository's id there."""

_BOOKKEEPING = re.compile(
    r"^(?:train_.*|eval_targets|unigram_loss|epoch|total_flos|.*_(?:runtime|per_second|samples))$"
)
_NOT_SIZES = ("bytes", "unknown", "special", "tail", "duplicates", "fingerprint")
_NOT_HYPERPARAMETERS = (
    "output_dir", "overwrite_output_dir", "logging_dir", "dry_run", "report_to", "run_name", "push_to_hub",
    "hub_model_id", "hub_private_repo", "data",
)  # fmt: skip


def write_card(run_dir: Path, record: Mapping[str, Any]) -> Path:
    """Write the model card of a run as the ``README.md`` of its folder, and return its path.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(run_dir) / "README.md"
    write_text(path, str(model_card(record)))
    return path


def model_card(record: Mapping[str, Any]) -> ModelCard:
    """The model card of a run, from its record; keys that the record lacks are left out.

    Commands in the card name the model ``REPO_OR_FOLDER``; see :data:`PLACEHOLDER`.
    """
    public = redacted(record)
    public |= {part: public.get(part) or {} for part in ("data", "settings", "metrics")}
    data, metrics = public["data"], public["metrics"].items()
    # Not a number is no measurement, and no valid metadata.
    sets = set_names(public["metrics"])
    scores: dict[str, float] = {}
    for name, value in metrics:
        of_set, figure = set_of(name, sets)
        # The figures without a set are those of the first once more.
        if _is_number(value) and not _BOOKKEEPING.match(figure) and bool(of_set) == bool(sets):
            scores[name] = value
    splits = {"train": data.get("train"), "evaluation": data.get("evaluation")}
    if isinstance(named := data.get("evaluations"), Mapping):
        splits = {"train": data.get("train"), **{f"evaluation: {name}": sizes for name, sizes in named.items()}}
    splits = {name: sizes for name, sizes in splits.items() if isinstance(sizes, Mapping)}
    # What a record says is never read as a template or as HTML: only the card's own text is.
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"cell": _cell, "verbatim": _verbatim, "shell_quoted": shell_quoted}
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        record=public,
        metadata=_metadata(public, scores).to_yaml(),
        name=_model_name(public),
        package=_package(public),
        example=_example(public),
        pipeline=_pipeline_tag(public),
        data=data,
        dataset=hub_id(data.get("dataset_name")),
        splits=splits,
        sources=(sources := list(_sources(public))),
        source_columns=list(dict.fromkeys(column for source in sources for column in source)),
        counted=list(dict.fromkeys(name for sizes in splits.values() for name in sizes if name not in _NOT_SIZES)),
        hyperparameters=list(_hyperparameters(public)),
        scores=scores,
        label=lambda name: _metric_label(name, public),
        remarks=" ".join(_remarks(public)) if scores else "",
        hub_id=hub_id,
        placeholder=PLACEHOLDER,
    )
    return ModelCard(text.rstrip("\n") + "\n")


def _metadata(record: Mapping[str, Any], scores: Mapping[str, float]) -> ModelCardData:
    data, pipeline = record["data"], _pipeline_tag(record)
    dataset = hub_id(data.get("dataset_name"))
    settings, sets = record["settings"] if dataset else {}, set_names(record["metrics"])
    results = [
        EvalResult(
            task_type=pipeline or record["recipe"],
            dataset_type=dataset or data.get("medium") or "text",
            dataset_name=", ".join(filter(None, (dataset or data.get("source") or "text", set_of(name, sets)[0]))),
            dataset_config=settings.get("dataset_config_name"),
            dataset_split=settings.get("validation_split"),
            dataset_revision=settings.get("dataset_revision"),
            metric_type=_metric_type(set_of(name, sets)[1]),
            metric_name=_metric_label(name, record),
            metric_value=value,
        )
        for name, value in scores.items()
    ]
    return ModelCardData(
        language=record.get("language"),
        license=record.get("license"),
        library_name="peft" if record.get("adapter") else "transformers",
        pipeline_tag=pipeline,
        base_model=hub_id(record.get("base_model")),
        datasets=list(_datasets(record)) or None,
        tags=["lmtasks", f"recipe:{record['recipe']}"],
        model_name=_model_name(record) if results else None,
        eval_results=results or None,
    )


def _mix(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sources of a mix, as they were set; none where there is no mix."""
    mix = record["settings"].get("data")
    return [one for one in mix.get("sources") or () if isinstance(one, Mapping)] if isinstance(mix, Mapping) else []


def _datasets(record: Mapping[str, Any]) -> Iterator[str]:
    """The datasets of the Hub that were trained on, each once."""
    names = (record["data"].get("dataset_name"), *(source.get("dataset_name") for source in _mix(record)))
    yield from dict.fromkeys(found for name in names if (found := hub_id(name)))


def _sources(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each source of a mix its name, where it comes from, and what it made."""
    sizes = record["data"].get("sources") or {}
    for source in _mix(record):
        files = source.get("train_file") or ()
        origin = source.get("dataset_name") or ", ".join([files] if isinstance(files, str) else map(str, files))
        name = str(source.get("name"))
        made = {key: value for key, value in (sizes.get(name) or {}).items() if key not in (*_NOT_SIZES, "blocks")}
        yield {"source": name, "from": origin, "weight": source.get("weight"), **made}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metric_type(name: str) -> str:
    return "loss" if name == "eval_loss" else name


def _metric_label(name: str, record: Mapping[str, Any]) -> str:
    of_set, name = set_of(name, set_names(record["metrics"]))
    label = str(record.get("perplexity_label") or "") if name == "perplexity" else ""
    label = label[:1].upper() + label[1:] if label else _metric_type(name).replace("_", " ").capitalize()
    return f"{of_set}: {label}" if of_set else label


def hub_id(name: Any) -> str | None:
    """The name, if it can be a repository's. What exists here as a folder was loaded from there."""
    if isinstance(name, str) and not os.path.exists(name):
        with suppress(HFValidationError):
            validate_repo_id(name)
            return name
    return None


def _pipeline_tag(record: Mapping[str, Any]) -> str | None:
    # A recipe may name a class of its own as "package.module:Class", which no Hub knows.
    pipeline = record.get("pipeline")
    return pipeline if isinstance(pipeline, str) and re.fullmatch(r"[a-z0-9-]+", pipeline) else None


def _model_name(record: Mapping[str, Any]) -> str:
    if published_as := hub_id(record["settings"].get("hub_model_id")):
        return published_as.rpartition("/")[2]
    return "-".join(part for part in (record.get("model_type"), record["recipe"]) if part)


def _package(record: Mapping[str, Any]) -> str:
    """The package that brings the recipe; empty for lmtasks' own, for a file, and for one made in memory."""
    distribution = str(record.get("owner") or "lmtasks").partition(":")[0]
    installed = "package" in (record.get("origin", {"package": distribution}) or ())
    return distribution if installed and distribution != "lmtasks" else ""


def _example(record: Mapping[str, Any]) -> str:
    example = " ".join(str(record.get("example") or "").split())
    return example if example and "```" not in example else "..."


def _hyperparameters(record: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Group, name and value of all that was set."""
    groups = {
        "Recipe": "options",
        "Training": "training",
        "Engine": "engine_options",
        "Data and model": "settings",
        "Seeds": "seeds",
    }
    for group, key in groups.items():
        for name, value in (record.get(key) or {}).items():
            if name not in _NOT_HYPERPARAMETERS and (_is_number(value) or value) and value != REDACTED:
                yield group, name, value


def _remarks(record: Mapping[str, Any]) -> Iterator[str]:
    """The numbers that the results are read against."""
    predicted = "predicted tokens" if "tokens" in (record["data"].get("evaluation") or {"tokens"}) else "targets"
    remarks: dict[str, str] = {}
    for name in set_names(record["metrics"]):
        remarks[f"eval_{name}_targets"] = f"{name}: measured on {{}} {predicted}."
        remarks[f"eval_{name}_unigram_loss"] = f"{name}: guessing by word frequency alone has a loss of {{}}."
    remarks = remarks or {
        "eval_targets": f"Measured on {{}} {predicted} of the evaluation data.",
        "unigram_loss": "Guessing by word frequency alone has a loss of {}.",
    }
    remarks |= {
        "train_runtime": "Training took {} seconds.",
        "train_tokens_per_second": "Training speed: {} tokens per second.",
    }
    for name, remark in remarks.items():
        if _is_number(value := record["metrics"].get(name)):
            yield remark.format(_cell(value))


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
