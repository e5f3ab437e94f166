"""What is wrong with a request, told together: settings that contradict each other, or that mean nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmtasks.api import TOKENIZER, Recipe, options_of
from lmtasks.config.card import faults_of_card
from lmtasks.config.settings import NUMBERS, AdapterSettings, ModelSettings, OutputSettings
from lmtasks.errors import InputError

CONTRADICTIONS = (
    ("model_name_or_path", "model_type"),
    ("model_name_or_path", "config_name"),
    ("model_name_or_path", "config_overrides"),
    ("model_name_or_path", "train_tokenizer"),
    ("model_type", "config_name"),
    ("tokenizer_name", "train_tokenizer"),
    ("model_name_or_path", "tokenizer_model"),
    ("tokenizer_name", "tokenizer_model"),
    ("load_in_8bit", "load_in_4bit"),
    ("train_batch_size", "gradient_accumulation_steps"),
)
"""Options that say two things about one model, or one batch."""

PATHS = {
    *("dataset_name", "train_file", "validation_file", "data", "add_tokens", "model_name_or_path", "config_name"),
    *("tokenizer_name", "peft_config", "output_dir"),
}
"""Settings that may name a file or a folder."""

_LONGEST_NAME = 255
"""Bytes of the name of a file or folder."""


class Problems(list[InputError]):
    """The faults of a request, which are told together."""

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Go on after an error, to find the others."""
        try:
            yield
        except InputError as error:
            self.append(error)

    def refuse(self, fault: object, message: str, hint: str) -> None:
        """One more problem, where there is a fault."""
        if fault:
            self.append(InputError(message, hint))

    def tell(self) -> None:
        """Raise all of them as one.

        Raises:
            InputError: there are any.
        """
        if self:
            messages, hints = ([getattr(one, part) for one in self] for part in ("message", "hint"))
            raise InputError("; ".join(messages), "; ".join(dict.fromkeys(filter(None, hints)))) from self[0].__cause__


def refuse_contradictions(recipe: Recipe, given: Mapping[str, Any], problems: Problems) -> None:
    """Refuse two ways to name one model, and what the recipe has not; the corpus looks after the data itself."""
    both = [(one, other) for one, other in CONTRADICTIONS if one in given and other in given]
    for one, other in both:
        problems.refuse(True, f"--{one} and --{other} exclude each other", "give one of the two")
    for name, use in (("train_tokenizer", "train"), ("tokenizer_model", "train"), ("add_tokens", "add to")):
        needless = recipe.processor != TOKENIZER and name in given
        problems.refuse(needless, f"{recipe.name} has no tokenizer to {use}", f"leave --{name} out")
    fresh = {"model_type", "config_name"} & given.keys() if recipe.new_processor is None else set()
    if fresh and not both and not {"tokenizer_name", "train_tokenizer"} & given.keys():
        message = f"--{fresh.pop()} makes a new model, which needs a tokenizer"
        problems.refuse(True, message, "add --train_tokenizer 8000, or --tokenizer_name with a folder or id")


def refuse_unfit(
    settings: Mapping[str, Any], training: Mapping[str, Any], given: frozenset[str], problems: Problems
) -> None:
    """Refuse settings that are empty, that mean nothing beside the others, or that are for another kind of model.

    Args:
        settings: those of a request by the names of its fields, and its ``training``.
        given: names that somebody set.
    """
    hint = "give a number of steps, or leave it out for --num_train_epochs"
    problems.refuse(training["max_steps"] == 0, "--max_steps cannot be 0", hint)
    idle = "early_stopping_threshold" in given and "early_stopping_patience" not in given
    problems.refuse(idle, "--early_stopping_threshold means nothing alone", "add --early_stopping_patience 3")
    needless = sorted(name for name in given if name.startswith("prepared_") and settings["data"].prepared is None)
    problems.refuse(needless, f"--{', --'.join(needless)} means nothing without --prepared", "add --prepared URL")
    refuse_no_names([vars(part) for part in settings.values()], problems)
    refuse_idle_adapter(given, settings["adapter"], problems)
    refuse_unfit_model(settings["model"], given, problems)
    refuse_unfit_output(settings["output"], problems)


def refuse_unfit_model(model: ModelSettings, given: frozenset[str], problems: Problems) -> None:
    """Refuse what is for checkpoints alone, or for new models alone, and code or a revision that there cannot be."""
    new = "model_name_or_path" not in given
    for name in NUMBERS:
        rounded = getattr(model, name) not in ("float32", False)
        message = f"--{name} is for checkpoints: a new model learns in float32"
        problems.refuse(new and rounded, message, f"leave --{name} out")
    learned = model.unigram_bias and not new
    problems.refuse(learned, "--unigram_bias is for new models: a checkpoint knows it", "leave --unigram_bias out")
    require_pinned_code(model, problems)
    if "revision" in given:
        refuse_idle_revision(model, problems)


def refuse_unfit_output(output: OutputSettings, problems: Problems) -> None:
    """Refuse a folder without a name, and what the Hub could make nothing of."""
    nameless = output.output_dir is not None and not output.output_dir.strip()
    problems.refuse(nameless, "--output_dir is empty", "name a folder, or leave it out")
    problems += faults_of_card(output)


def refuse_idle_adapter(given: frozenset[str], adapter: AdapterSettings, problems: Problems) -> None:
    """Refuse settings of an adapter that nobody asked for, and an adapter on a model that has learned nothing."""
    own = sorted(given & options_of(AdapterSettings).keys() - {"use_peft", "peft_config"})
    problems.refuse(
        own and not adapter.asked, f"--{own[0] if own else ''} means nothing without an adapter", "add --use_peft"
    )
    lora = next((name for name in own if name != "lora_task_type"), "")
    both = lora and adapter.peft_config is not None
    problems.refuse(both, f"--peft_config and --{lora} exclude each other", "give one of the two")
    fresh = adapter.asked and "model_name_or_path" not in given
    problems.refuse(fresh, "an adapter needs a checkpoint: all of a new model has to learn", "add --model")


def refuse_no_names(settings: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    """Refuse what neither a file nor a folder can be called, such as the text itself in place of its file."""
    for name, value in ((name, part[name]) for part in settings for name in PATHS & part.keys()):
        for one in value if isinstance(value, list) else [value]:
            parts = Path(one).parts if isinstance(one, str) else ()
            wrong = any(len(os.fsencode(part)) > _LONGEST_NAME or "\0" in part for part in parts)
            hint = f"choose another: at most {_LONGEST_NAME} bytes between slashes, and no NUL"
            problems.refuse(wrong, f"--{name} {str(one)[:40]!r}… is no name of a file or folder", hint)


def require_pinned_code(model: ModelSettings, problems: Problems) -> None:
    """Refuse code that the user cannot have looked at: of no certain commit, and in no folder."""
    name = model.model_name_or_path or model.config_name
    pinned = re.fullmatch(r"[0-9a-f]{40}", model.revision) or (name is not None and os.path.isdir(name))
    problems.refuse(
        model.trust_remote_code and not pinned,
        "--trust_remote_code needs --revision with a full commit id",
        "read the code at that commit first; it will run with your rights",
    )


def refuse_idle_revision(model: ModelSettings, problems: Problems) -> None:
    """Refuse the revision of a folder: it has none, and would be taken as it lies there."""
    name = model.model_name_or_path or model.config_name
    idle = name is not None and os.path.isdir(name)
    problems.refuse(idle, f"--revision {model.revision}: the folder '{name}' has no revisions", "leave --revision out")
