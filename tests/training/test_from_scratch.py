"""New models get a learning rate that they learn with, unless somebody says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    Trainer,
    TrainingArguments,
    set_seed,
)

import lmtasks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.data.corpus import Split
from lmtasks.data.text.encode import encode
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
        ({"learning_rate": 1e-3}, set()),
        ({"warmup_steps": 5}, {"learning_rate", "adam_beta2"}),
        ({"warmup_ratio": 0.2}, {"learning_rate", "adam_beta2"}),
        ({"warmup_steps": 0, "adam_beta2": 0.999}, {"learning_rate"}),
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
    assert len(told) == (3 if "model_type" in asked and "learning_rate" not in asked else 0)
    assert ("from scratch: learning rate 0.01: 0.45 / width 32, at most 0.01" in told) is (rate == 1e-2)


def test_at_a_guides_rate_a_new_model_learns_what_the_guide_teaches(documents: list[str], tmp_path: Path) -> None:
    """The plain Trainer on the same weights and blocks is the oracle: a warm-up, say, would move every weight."""
    how = {"learning_rate": 1e-3, "weight_decay": 0.01, "max_steps": 8, "save_strategy": "no", "seed": 3}
    still = {"n_layer": 1, "n_embd": 32, "n_head": 2, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    run = lmtasks.run(
        "causal-lm",
        train_dataset=documents,
        eval_dataset=documents[:20],
        model_type="gpt2",
        config_overrides=",".join(f"{name}={value}" for name, value in still.items()),
        train_tokenizer=400,
        block_size=16,
        output_dir=str(tmp_path / "run"),
        **how,
    )
    assert isinstance(run, lmtasks.Run)
    tokenizer = AutoTokenizer.from_pretrained(run.output_dir)
    blocks = CAUSAL_LM.preprocess(tokenizer, CAUSAL_LM.options(block_size=16))
    rows = Dataset.from_dict({"text": documents})
    packed = encode("training", Split(rows, ("text",), documents=True), tokenizer, blocks)
    ids = [packed.example(number)["input_ids"].tolist() for number in range(len(packed))]
    set_seed(3)
    guide = Trainer(
        model=AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(run.output_dir)),
        args=TrainingArguments(
            output_dir=str(tmp_path / "guide"),
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.accelerator.is_available(),
            **how,
        ),
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
    )
    before = {name: weight.clone() for name, weight in guide.model.state_dict().items()}
    guide.train()
    theirs = guide.model.state_dict()
    ours = AutoModelForCausalLM.from_pretrained(run.output_dir).state_dict()
    moved = max(float((theirs[name] - before[name]).abs().max()) for name in theirs)
    apart = max(float((theirs[name] - ours[name]).abs().max()) for name in theirs)
    assert apart < 0.02 * moved
