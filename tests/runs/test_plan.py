"""The plan: its numbers are those that come true."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, PreTrainedModel, Trainer

from lmtasks import Blocks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.training_arguments import training_arguments
from lmtasks.data.text.packing import cut
from lmtasks.data.text.tokenize import Stream
from lmtasks.runs.plan import Plan, peak_memory
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


def a_batch(length: int = 16) -> dict[str, torch.Tensor]:
    ids = torch.arange(10, 10 + length)[None]
    return {"input_ids": ids, "labels": ids.clone()}


@pytest.fixture
def model(model_folders: dict[str, Path]) -> PreTrainedModel:
    return AutoModelForMaskedLM.from_pretrained(model_folders["bert"])


def test_memory_without_a_batch_is_sixteen_bytes_a_parameter(model: PreTrainedModel) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert peak_memory(model, MASKED_LM, a_batch(), 0) == 16 * parameters


def test_memory_grows_with_batch_and_length(model: PreTrainedModel) -> None:
    one, two, three = (peak_memory(model, MASKED_LM, a_batch(), size) for size in (1, 2, 3))
    assert three - two == two - one > 0
    assert peak_memory(model, MASKED_LM, a_batch(32), 1) > one


def test_kept_activations_are_at_least_the_logits_and_not_the_weights() -> None:
    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(1000, 2))

        def forward(self, input_ids: torch.Tensor) -> Any:
            features = self.weight[input_ids]
            return type("Output", (), {"logits": features @ self.weight.T})

    head = Head()
    kept = peak_memory(head, CAUSAL_LM, a_batch(10), 1) - 16 * 2000
    logits = 9 * 1000 * 4  # of every token but the first
    assert logits <= kept < 3 * logits


def test_measuring_memory_leaves_no_trace(model: PreTrainedModel) -> None:
    model.eval()
    state = torch.get_rng_state()
    peak_memory(model, MASKED_LM, a_batch(), 8)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_measuring_memory_is_no_training_batch() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(8)
            self.head = torch.nn.Linear(8, 1000)

        def forward(self, input_ids: torch.Tensor) -> Any:
            features = self.norm(torch.nn.functional.one_hot(input_ids % 8, 8).float().transpose(1, 2))
            return type("Output", (), {"logits": self.head(features.transpose(1, 2))})

    model = Counting()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    peak_memory(model, CAUSAL_LM, a_batch(10), 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


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
