"""The record of a run, ``run.json``, as it stands before training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmtasks.api import EVALUATION_SEED, Examples
from lmtasks.artifacts.durable import write_json
from lmtasks.artifacts.run_folder import RECORD
from lmtasks.config.launched import job_mark
from lmtasks.config.request import Request, as_record
from lmtasks.data.text.packing import Packed
from lmtasks.data.text.segmenters import versions_of
from lmtasks.registry.catalog import Catalog
from lmtasks.registry.enabled_plugins import BUILTIN
from lmtasks.runs.excerpts import example_prompt
from lmtasks.runs.prepared import Prepared
from lmtasks.runs.versions import versions


def new_record(prepared: Prepared, catalog: Catalog) -> dict[str, Any]:
    """``run.json`` as it stands before training."""
    request, plan = prepared.request, prepared.plan
    return {
        **facts_of_recipe(request, catalog),
        "engine": prepared.engine.name,
        "base_model": plan.base_model,
        **({"adapter": plan.adapter} if plan.adapter else {}),
        "model_type": prepared.model.config.model_type,
        "parameters": plan.parameters,
        "trained_parameters": plan.trained_parameters,
        "data": {
            "source": plan.data,
            "column": plan.column,
            "medium": prepared.data.encoded.medium,
            "sample": request.sample,
            "dataset_name": request.data.dataset_name,
            "train": plan.train,
            "evaluation": plan.evaluation,
            **({"evaluations": plan.evaluations} if plan.evaluations else {}),
            **({"sources": plan.sources} if plan.sources else {}),
        },
        **as_record(request),
        **prepared.place.asked.as_record(),
        **({"frozen": frozen} if (frozen := prepared.frozen) else {}),
        **({"earlier": list(prepared.place.start.earlier)} if prepared.place.start.earlier else {}),
        **({"job": mark} if (mark := job_mark()) else {}),
        "seeds": {"seed": request.seed, "split": request.data.split_seed, "evaluation": EVALUATION_SEED},
        "versions": {
            **versions(),
            **_engine_version(prepared, catalog),
            **_segmenter_versions(prepared.data.encoded.evaluation),
        },
        **{name: said for name in ("language", "license") if (said := getattr(request.output, name))},
        "example": example_prompt(prepared.data) or request.recipe.example,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def facts_of_recipe(request: Request, catalog: Catalog) -> dict[str, Any]:
    """What the record of a run that has begun says of its recipe."""
    recipe = request.recipe
    owner = catalog.owner(known) if (known := catalog.name_of(recipe)) else None
    return {
        "status": "running",
        "owner": owner.name if owner else "unknown",
        "origin": owner.origin if owner else None,
        "summary": recipe.summary,
        "pipeline": recipe.pipeline,
        "model_class": recipe.model_class,
        "perplexity_label": recipe.perplexity_name(request.options),
    }


def _engine_version(prepared: Prepared, catalog: Catalog) -> dict[str, str]:
    """The version of the package that has the engine, where that is not this one."""
    owners = (plugin for plugin in catalog.plugins if prepared.engine.name in plugin.engines)
    return {one.distribution: one.version for one in owners if one.kind == "package" and one.distribution != BUILTIN}


def _segmenter_versions(examples: Examples) -> dict[str, str]:
    """The versions of what told the words of a text, where somebody asked for these."""
    if isinstance(examples, Packed) and examples.blocks.words:
        return versions_of(examples.blocks.word_segmenter)
    return {}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``, or replace it."""
    write_json(folder / RECORD, record)
