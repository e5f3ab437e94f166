"""The same training done the guide's way and lmtasks' way, in this process, and a judge of whatever comes out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from whole_run import in_blocks, trained_tokenizer

import lmtasks
from lmtasks.data.sample import sample_documents

JUDGE_SEED = 0
"""Of the masks that the judge hides, the same for everybody."""


@dataclass(frozen=True)
class Contest:
    """What both are told.

    Args:
        recipe: "masked-lm", a RoBERTa, or "causal-lm", a GPT-2, both from scratch.
        train, held_out: JSON-lines files with a column ``text``.
        tokenizer: a folder.
        shared: training arguments that both get, by name.
    """

    recipe: str
    train: str
    held_out: str
    tokenizer: str
    layers: int
    hidden: int
    block: int
    shared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def masked(self) -> bool:
        """Whether tokens are hidden, rather than continued."""
        return self.recipe == "masked-lm"

    @property
    def model_type(self) -> str:
        """The architecture of the guide's checkpoint."""
        return "roberta" if self.masked else "gpt2"

    @property
    def auto_class(self) -> Any:
        """The class that loads it."""
        return AutoModelForMaskedLM if self.masked else AutoModelForCausalLM

    @property
    def config(self) -> dict[str, int]:
        """What differs from the architecture's default."""
        sizes = {
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": max(1, self.hidden // 64),
        }
        return {**sizes, "intermediate_size": 4 * self.hidden, "max_position_embeddings": 514} if self.masked else sizes

    @cached_property
    def blocks(self) -> datasets.DatasetDict:
        """The guide's blocks, as its ``map`` calls make them: "train" and "test"."""
        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        rows = datasets.load_dataset("json", data_files={"train": self.train, "test": self.held_out})
        tokenised = rows.map(
            lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=rows["train"].column_names
        )
        return tokenised.map(partial(in_blocks, self.block), batched=True)

    @cached_property
    def collator(self) -> DataCollatorForLanguageModeling:
        """The guide's."""
        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
        if self.masked:
            return DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
        return DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)


@dataclass(frozen=True)
class Outcome:
    """What a contestant leaves behind.

    Args:
        reported: its evaluation loss in its own words, on its own blocks.
    """

    model: PreTrainedModel
    reported: float


def with_guide(contest: Contest, seed: int, callbacks: Sequence[TrainerCallback] = (), **arguments: Any) -> Outcome:
    """The guide's training; further arguments win over those that both get."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(contest.tokenizer)
    config = AutoConfig.for_model(contest.model_type, vocab_size=len(tokenizer), **contest.config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=contest.auto_class.from_config(config),
            args=TrainingArguments(
                output_dir=folder, seed=seed, save_strategy="no", disable_tqdm=True, **{**contest.shared, **arguments}
            ),
            train_dataset=contest.blocks["train"],
            eval_dataset=contest.blocks["test"],
            data_collator=contest.collator,
            callbacks=[*callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return Outcome(trainer.model, trainer.evaluate()["eval_loss"])


def with_lmtasks(contest: Contest, seed: int, callbacks: Sequence[TrainerCallback] = (), **settings: Any) -> Outcome:
    """A run of lmtasks on the same rows; further settings win over those that both get. The model is what it saved."""
    overrides = ",".join(f"{name}={value}" for name, value in contest.config.items())
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        values = {
            "train_file": contest.train,
            "validation_file": contest.held_out,
            "tokenizer_name": contest.tokenizer,
            "model_type": contest.model_type,
            "config_overrides": overrides,
            "block_size": contest.block,
            "seed": seed,
            "save_strategy": "no",
            "output_dir": f"{folder}/run",
            **contest.shared,
            **settings,
        }
        run = lmtasks.run(contest.recipe, callbacks=callbacks, **values)
        return Outcome(contest.auto_class.from_pretrained(run.output_dir), run.metrics["eval_loss"])


class Judge:
    """A plain loop in float32 over the guide's blocks of the held-out rows, with the same masks for everybody."""

    def __init__(self, contest: Contest, most: int | None = None) -> None:
        self.contest = contest
        rows = [{"input_ids": ids} for ids in contest.blocks["test"]["input_ids"][:most]]
        with torch.random.fork_rng():
            torch.manual_seed(JUDGE_SEED)
            self.batches = [contest.collator(rows[first : first + 8]) for first in range(0, len(rows), 8)]

    def __call__(self, model: torch.nn.Module) -> float:
        """Nats per target; the model's mode is restored."""
        was_training, total, count = model.training, 0.0, 0
        forward = getattr(model, "_original_forward", model)  # without the bfloat16 that accelerate puts around it
        model.eval()
        with torch.no_grad(), torch.autocast(next(model.parameters()).device.type, enabled=False):
            for batch in self.batches:
                scores, labels = forward(input_ids=batch["input_ids"]).logits, batch["labels"]
                if not self.contest.masked:
                    scores, labels = scores[:, :-1], labels[:, 1:]
                wanted = labels != -100
                losses = torch.nn.functional.cross_entropy(scores[wanted], labels[wanted], reduction="sum")
                total, count = total + losses.item(), count + int(wanted.sum())
        model.train(was_training)
        return total / count


def rows_for(data: str | None, most: int, tokenizer: str | None, vocabulary: int, folder: Path) -> tuple[str, str, str]:
    """The file to train on, the one held out, and the folder of a tokenizer.

    Args:
        data: text file, whose paragraphs are the rows; the embedded sample when not given.
        most: rows, a tenth of which are held out.
        tokenizer: folder; when not given, one of so many tokens is trained.
    """
    texts = [text for text in re.split(r"\n\s*\n", Path(data).read_text("utf-8")) if text.strip()] if data else None
    train, held_out = divided((texts or sample_documents("python"))[:most], folder)
    return train, held_out, tokenizer or trained_tokenizer(train, vocabulary, folder)


def divided(documents: Sequence[str], folder: Path, every: int = 10) -> tuple[str, str]:
    """Two files of the documents, of which each so many-th is held out."""
    files = str(folder / "train.jsonl"), str(folder / "held_out.jsonl")
    kept: tuple[list[str], list[str]] = ([], [])
    for number, text in enumerate(documents):
        kept[number % every == 0].append(json.dumps({"text": text}) + "\n")
    for file, lines in zip(files, kept, strict=True):
        Path(file).write_text("".join(lines), encoding="utf-8")
    return files
