"""An engine that is examined, beside the Trainer on the same runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PretrainedConfig

from lmtasks.api import Engine, Recipe
from lmtasks.config.engines import IDLE, honours
from lmtasks.registry.catalog import load_catalog
from lmtasks.testing.case import Case
from lmtasks.testing.plugins import installed
from lmtasks.testing.specimens import tiny_config

LOSS, EVALUATION, MOVED = 1e-4, 1e-5, 1e-2
"""How far losses of steps, losses of evaluations, and what weights have moved may be from the Trainer's."""

STEPS = 6
"""Optimiser steps of most of the runs."""


@dataclass(frozen=True)
class Tried:
    """What a run has left."""

    folder: Path

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]

    def series(self, name: str) -> list[float]:
        """A figure of the log, of all steps that have it."""
        return [line[name] for line in self.log if name in line]

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """Those that it has saved."""
        return load_file(self.folder / "model.safetensors")

    @property
    def evaluation(self) -> float:
        """The loss of the evaluation of its model."""
        return float(json.loads((self.folder / "eval_results.json").read_text(encoding="utf-8"))["eval_loss"])


FIRST: dict[str, Any] = {"max_steps": 2, "learning_rate": 1e-2}
"""Values of the first run with an engine."""


@dataclass(frozen=True)
class First:
    """The first run with an engine in this process.

    Args:
        before: the Trainer's before it, with the same values.
        defaults: whether torch has other ones since.
    """

    before: Tried
    run: Tried
    defaults: bool


@dataclass(frozen=True)
class Engaged:
    """The subject of checks: an engine, and a tiny run for it to carry out.

    Args:
        case: of a model without dropout.
        options: values of the engine's options, as its dataclass has them.
        trainer: training arguments with which the Trainer does what the engine does.
    """

    engine: Engine
    case: Case
    options: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""

    @property
    def title(self) -> str:
        """What is examined, for people."""
        return f"engine {self.engine.name}"

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.case.recipe

    def honoured(self, **values: Any) -> dict[str, Any]:
        """Those of the training arguments that the engine carries out."""
        return {name: value for name, value in values.items() if honours(self.engine, name)}

    def run(self, name: str, case: Case | None = None, **values: Any) -> Tried:
        """A run with the engine, in a folder of that name."""
        own = {f"{self.engine.prefix}.{option}": value for option, value in self.options.items()}
        with contextlib.nullcontext() if self.is_built_in else installed(engines=[self.engine]):
            return self._run(case, name, engine=self.engine.name, **own, **values)

    def model(self, name: str, case: Case | None = None, **values: Any) -> Tried:
        """The same with the Trainer."""
        idle = {argument: value for argument, value in IDLE.items() if not honours(self.engine, argument)}
        plain = {"adam_beta2": 0.999, **idle, **values, **self.trainer}
        return self._run(case, f"{name}-trainer", **plain)

    def both(self, name: str, **values: Any) -> tuple[Tried, Tried]:
        """What the engine and the Trainer make of a run."""
        return self.run(name, **values), self.model(name, **values)

    def _run(self, case: Case | None, name: str, **values: Any) -> Tried:
        usual = {"max_steps": STEPS, "logging_steps": 1, "warmup_steps": 0, "lr_scheduler_type": "constant"}
        usual |= self.honoured(adam_beta2=0.999)
        folder = (case or self.case).folder / name
        (case or self.case).trained(folder, **{**usual, **values})
        return Tried(folder)

    @property
    def is_built_in(self) -> bool:
        """Whether everybody has it."""
        return self.engine in load_catalog().engines.values()

    @cached_property
    def first(self) -> First:
        """What several checks look at, to begin with."""
        before, kept = self.model("before", **FIRST), _defaults()
        run = self.run("first", **FIRST)
        return First(before, run, _defaults() != kept)

    @cached_property
    def start(self) -> dict[str, torch.Tensor]:
        """The weights that every run begins with."""
        return self.model("start", learning_rate=0.0, max_steps=1).weights


def _defaults() -> tuple[object, ...]:
    return torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()


def still(model: PretrainedConfig | str, recipe: Recipe) -> PretrainedConfig:
    """The configuration of a tiny model without dropout."""
    config = tiny_config(model, recipe) if isinstance(model, str) else model
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("drop" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)
    return config
