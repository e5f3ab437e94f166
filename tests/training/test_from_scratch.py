"""New models get a learning rate that they learn with, unless somebody says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

import lmtasks
from lmtasks.runs.plan import Plan
from lmtasks.training.from_scratch import learning_from_scratch, rate_of_width

DEFAULTS: dict[str, Any] = {"learning_rate": 5e-5, "warmup_steps": 0, "lr_scheduler_type": "linear"}
CHOSEN = {"learning_rate": 0.007, "warmup_steps": 0.1, "adam_beta2": 0.95}


def model_of(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("width", "rate"), [(32, 1e-2), (64, 7e-3), (128, 3.5e-3), (768, 5.9e-4), (2048, 2.2e-4), (12288, 3.7e-5)]
)
def test_the_wider_the_slower(width: int, rate: float) -> None:
    assert rate_of_width(width) == rate


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8, vocab_size=9),
        GPT2Config(n_embd=64, n_head=2, n_layer=1, vocab_size=9),
    ],
)
def test_the_width_is_found_whatever_it_is_called(config: Any) -> None:
    training, notes = learning_from_scratch(DEFAULTS, (), model_of(config))
    assert training == DEFAULTS | CHOSEN
    assert notes == [
        "from scratch: learning rate 0.007: 0.45 / width 64, at most 0.01",
        "from scratch: warm-up over 10% of the steps, then linear",
        "from scratch: adam_beta2 0.95",
    ]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"learning_rate": 1e-3}, {"warmup_steps", "adam_beta2"}),
        ({"warmup_steps": 5}, {"learning_rate", "adam_beta2"}),
        ({"warmup_ratio": 0.2}, {"learning_rate", "adam_beta2"}),
        ({"learning_rate": 5e-5, "warmup_steps": 0, "adam_beta2": 0.999}, set()),
        ({"optim": "sgd"}, set()),
    ],
)
def test_what_was_given_wins(given: dict[str, Any], left: set[str]) -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8, vocab_size=9)
    training, notes = learning_from_scratch(DEFAULTS | given, given, model_of(config))
    assert training == DEFAULTS | given | {name: CHOSEN[name] for name in left}
    assert len(notes) == len(left)


def test_a_width_that_nobody_knows_chooses_nothing() -> None:
    model = model_of(LlamaConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=1, vocab_size=9))
    model.config = PretrainedConfig()
    assert learning_from_scratch(DEFAULTS, (), model) == (DEFAULTS, [])


SHAPE = "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=64"


@pytest.mark.parametrize(
    ("asked", "rate"),
    [
        ({"model_type": "llama", "config_overrides": SHAPE}, 1e-2),
        ({"model_type": "llama", "config_overrides": SHAPE, "learning_rate": 2e-4}, 2e-4),
        ({"config_overrides": SHAPE}, 4e-3),  # the recipe's own small model
        ({"model": "llama"}, 5e-5),
    ],
)
def test_the_plan_of_a_run(
    asked: dict[str, Any], rate: float, text_file: Path, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    own = {"model": str(model_folders["llama"])} if "model" in asked else {"train_tokenizer": 400}
    how = {**asked, **own, "block_size": 16, "train_file": str(text_file), "output_dir": str(tmp_path / "out")}
    plan = lmtasks.run("causal-lm", **how, dry_run=True)
    assert isinstance(plan, Plan)
    assert plan.learning_rate == rate
    told = [note for note in plan.notes if note.startswith("from scratch: ")]
    assert len(told) == (3 - ("learning_rate" in asked) if "model_type" in asked else 0)
    assert ("from scratch: learning rate 0.01: 0.45 / width 32, at most 0.01" in told) is (rate == 1e-2)
