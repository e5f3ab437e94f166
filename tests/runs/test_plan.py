"""The plan: its numbers are those that come true."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer

import lmtasks
from lmtasks import Blocks, Starter
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.config.training_arguments import training_arguments
from lmtasks.data.text.packing import cut
from lmtasks.data.text.tokenize import Stream
from lmtasks.runs.plan import Plan
from lmtasks.training.length import total_steps


@pytest.mark.parametrize("accumulation", [1, 3, 4])
@pytest.mark.parametrize(
    "how",
    [
        {"num_train_epochs": 1},
        {"num_train_epochs": 3},
        {"num_train_epochs": 0.5},
        {"num_train_epochs": 2.3},
        {"max_steps": 5},
        {"max_steps": 5, "num_train_epochs": 1},
        {"num_train_epochs": 2, "dataloader_drop_last": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("examples", [4, 8, 9, 31])
def test_steps_are_those_that_the_trainer_makes(
    examples: int, how: dict[str, Any], accumulation: int, tmp_path: Path
) -> None:
    values = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulation, **how}
    arguments = training_arguments(values, tmp_path, 0)
    trainer = Trainer(model=torch.nn.Linear(1, 1), args=arguments, train_dataset=[{"x": 0}] * examples)
    loader = trainer.get_train_dataloader()
    *_, theirs = trainer.set_initial_training_values(arguments, loader)
    assert total_steps(examples, arguments) == theirs


ENDLESS = Starter(
    sample=None,
    model={"model_type": "gpt2", "config_overrides": "n_layer=1,n_embd=16,n_head=2", "train_tokenizer": 300},
    training={"max_steps": 1000, "block_size": 16},
    epochs=2.5,
)


@pytest.mark.parametrize(
    ("asked", "limited"),
    [
        ({}, True),
        ({"train_batch_size": 4, "per_device_train_batch_size": 2}, True),
        ({"num_train_epochs": 7.0}, False),
        ({"max_steps": 1100}, False),
    ],
    ids=str,
)
def test_starter_goes_over_a_short_text_so_many_times(
    asked: dict[str, Any], limited: bool, text_file: Path, tmp_path: Path
) -> None:
    """Its steps are for its own text, and people bring shorter ones, which a causal model knows by heart by then."""
    recipe = dataclasses.replace(CAUSAL_LM, starter=ENDLESS)
    plan = lmtasks.run(recipe, train_file=text_file, output_dir=tmp_path / "out", dry_run=True, use_cpu=True, **asked)
    assert isinstance(plan, Plan)
    most = math.ceil(2.5 * plan.train["blocks"] / plan.batch)
    assert most < 1000
    wanted = most if limited else asked.get("max_steps", 7 * math.ceil(plan.train["blocks"] / plan.batch))
    assert plan.steps == wanted
    note = f"{most:,} steps, 2.5 passes over a short text: in more it is learned by heart"
    assert (note in plan.notes) == limited


def test_counts_are_those_of_the_split() -> None:
    stream = Stream(np.arange(13, dtype=np.int32), np.zeros(1, np.int64), rows=7, unit="lines", bytes=40, unknown=2)
    packed = cut(stream, Blocks(size=4))
    told = packed.sizes()
    assert told.pop("fingerprint") == packed.fingerprint
    assert told.pop("special") == {}
    assert told == {"rows": 7, "unit": "lines", "bytes": 40, "tokens": 13, "unknown": 2, "blocks": 3, "tail": 1}


PLAN = Plan(
    recipe="masked-lm: Fill in hidden words.",
    data="wiki.txt",
    train={"rows": 9000, "unit": "documents", "bytes": 9, "tokens": 1234567, "blocks": 9645, "tail": 7},
    evaluation={"rows": 10, "unit": "documents", "bytes": 9, "tokens": 1000, "blocks": 7, "tail": 104},
    block_size=128,
    model="roberta-base",
    parameters=124_000_000,
    trained_parameters=124_000_000,
    vocabulary=50265,
    epochs=3.0,
    steps=3615,
    batch=8,
    learning_rate=5e-5,
    precision="float32",
    peak_memory=3 * 2**30,
    output_dir="runs/masked-lm",
    notes=("block_size 128: the model takes no more",),
    writes=("runs/masked-lm",),
)


def test_the_plan_says_how_much_is_trained() -> None:
    adapted = dataclasses.replace(PLAN, trained_parameters=590_000, adapter="LORA")
    told = "model      roberta-base, 124,000,000 parameters, 590,000 of them trained (LORA), vocabulary 50,265"
    assert told in adapted.lines()


def test_plan_for_people() -> None:
    assert PLAN.lines() == [
        "recipe     masked-lm: Fill in hidden words.",
        "data       wiki.txt",
        "  train    9,000 documents, 1,234,567 tokens, 9,645 blocks, 7 tokens left over",
        "  held out 10 documents, 1,000 tokens, 7 blocks, 104 tokens left over",
        "model      roberta-base, 124,000,000 parameters, vocabulary 50,265",
        "training   3,615 steps of 8 blocks × 128 tokens (3 epochs), learning rate 5e-05",
        "compute    float32, about 3.0 GiB of memory",
        "writes     runs/masked-lm",
        "note       block_size 128: the model takes no more",
    ]


def test_little_memory_is_told_in_a_smaller_unit() -> None:
    little = dataclasses.replace(PLAN, peak_memory=50 * 2**20)
    assert "compute    float32, about 50 MiB of memory" in little.lines()


def test_plan_as_json_has_everything() -> None:
    content = json.loads(json.dumps(PLAN.as_dict()))
    assert content.keys() == {field.name for field in dataclasses.fields(Plan)}
    assert content["train"]["tokens"] == 1234567
    assert content["notes"] == list(PLAN.notes)
