"""Settings of every run, besides its recipe's own options: data, model, output, training.

Names and meaning are those of transformers' ``run_mlm.py`` and ``run_clm.py`` where these have
the flag, and of ``TrainingArguments`` for training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lmtasks.api import DEFAULT_ENGINE, option


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the text comes from and how it is split."""

    dataset_name: str | None = option(
        None, help="Hub dataset id, or a folder made by save_to_disk", aliases=["dataset"]
    )
    dataset_config_name: str | None = option(None, help="configuration of the Hub dataset")
    dataset_revision: str | None = option(None, help="branch, tag or commit of the Hub dataset")
    train_split: str = option("train", help='split to train on, slices allowed: "train[:5000]"')
    validation_split: str | None = option(None, help="split to evaluate on, instead of a share of the training split")
    train_file: list[str] | None = option(
        None, help="files, globs, folders, - for stdin: text, json, csv, tsv, parquet, arrow, fasta; .gz .xz .zst .bz2"
    )
    validation_file: list[str] | None = option(
        None, help="files to evaluate on, instead of a share of the training data; NAME=FILE for several sets"
    )
    data: str | dict[str, Any] | None = option(
        None, help="YAML file with several sources to train on, each with a weight, instead of one"
    )
    text_column: str | None = option(
        None,
        help="column that holds the text, or what else is learned from; nested ones as answers.text",
        aliases=["column"],
    )
    text_template: str | None = option(None, help='text of a row, made of columns: "{title}: {answers.text}"')
    chat: bool = option(False, help="rows are conversations, put into the tokenizer's own chat template")
    sample_by: Literal["line", "paragraph", "document"] = option("line", help="what a row of a text file is")
    format: str | None = option(None, help="format of all files, whatever their names: text, json, csv, …")
    encoding: str | None = option(None, help="encoding of the files, such as cp1252; UTF-8, or what they say")
    csv_separator: str | None = option(None, help="what separates cells, such as ; or tab")
    csv_quoting: Literal["minimal", "none"] | None = option(None, help="whether cells may be in quotation marks")
    csv_header: bool | None = option(None, help="whether the first row names the columns")
    min_chars: int | None = option(None, help="documents of fewer characters are left out", ge=1)
    max_chars: int | None = option(None, help="documents of more characters are left out", ge=1)
    drop_duplicates: bool = option(False, help="documents that were there before, letter for letter, are left out")
    filter: str | None = option(None, help="module:function that says of each document whether it is wanted")
    validation_split_percentage: float | None = option(
        None, help="share of the training data held out for evaluation, in percent", gt=0, lt=100
    )
    test_size: float | None = option(None, help="the same share as a fraction", gt=0, lt=1)
    split_seed: int = option(42, help="seed of the choice of held-out documents", ge=0)
    max_train_samples: int | None = option(
        None, help="train on at most this many packed examples", ge=1, training_only=True
    )
    max_eval_samples: int | None = option(None, help="evaluate on at most this many packed examples", ge=1)
    overwrite_cache: bool = option(False, help="tokenise again, even text whose tokens are in the cache")
    preprocessing_num_workers: int = option(
        1, help="processes that tokenise, where the tokenizer is in Python; others use all cores anyway", ge=1
    )
    split_special_tokens: bool = option(False, help="take special tokens in the text as plain text")
    prepared: str | None = option(None, help="what lmtasks prepare has written, instead of any other data")
    prepared_window: int | None = option(
        None, help="examples of them that are mixed; those of four shards when not given", ge=1, training_only=True
    )
    prepared_lanes: int = option(1, help="parts of them that are read side by side", ge=1, training_only=True)
    prepared_cache: float = option(20.0, help="GB of their shards to keep here, where they are elsewhere", gt=0)
    train_dataset: Any = option(
        None, help="Dataset, DatasetDict, IterableDataset, DataFrame or list of strings", python_only=True
    )
    eval_dataset: Any = option(
        None,
        help="Dataset, IterableDataset, DataFrame, list of strings, or a dict of these by name of the set",
        python_only=True,
    )


HOW_TO_TOKENISE = frozenset({"overwrite_cache", "preprocessing_num_workers", "prepared_cache"})
"""Data settings that change no token."""

NUMBERS = ("dtype", "load_in_8bit", "load_in_4bit")
"""Model settings without which the figures of an evaluation would not be those of the run."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model and the tokenizer."""

    model_name_or_path: str | None = option(None, help="checkpoint to start from: Hub id or folder", aliases=["model"])
    revision: str = option("main", help="branch, tag or commit of the model", aliases=["model_revision"])
    model_type: str | None = option(None, help="from scratch: architecture, such as roberta or gpt2")
    config_name: str | None = option(None, help="from scratch: Hub id or folder of the configuration")
    config_overrides: str | None = option(
        None, help="from scratch: num_hidden_layers=2,hidden_size=64 over the default configuration"
    )
    tokenizer_name: str | None = option(
        None,
        help="tokenizer or other processing class, when not the model's own: Hub id or folder",
        aliases=["processor_name"],
    )
    train_tokenizer: int | None = option(None, help="train a tokenizer of this many tokens", ge=300)
    tokenizer_model: Literal["bpe", "wordpiece", "unigram", "character"] = option(
        "bpe", help="kind of the tokenizer that is trained; bpe is that of bytes"
    )
    add_tokens: str | list[str] | None = option(
        None, help="text file with one token a line, which the vocabulary gets where it lacks them"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "float32", help="numbers that a checkpoint's weights are held in; auto: those of its files"
    )
    load_in_8bit: bool = option(
        False, help="hold its linear layers in 8 bits, under an adapter that learns; needs lmtasks[quantised]"
    )
    load_in_4bit: bool = option(False, help="the same in 4 bits (nf4)")
    # Not the kernels that GPUs alone have: the model is checked on the CPU before it is trained.
    attn_implementation: Literal["eager", "sdpa"] | None = option(
        None, help="how attention is computed; what transformers takes for the model when not given"
    )
    allow_new_weights: bool = option(
        False, help="accept a checkpoint that lacks some of the model's weights, or has some that find no place in it"
    )
    unigram_bias: bool | None = option(
        None,
        help="from scratch: the output layer begins with the frequencies of its targets, as its bias; when not set,"
        " where it has one and the rate is chosen, too",
        training_only=True,
    )
    trust_remote_code: bool = option(False, help="run code from the model's repository (needs a pinned --revision)")

    @property
    def bits(self) -> int:
        """The bits of a weight in the linear layers; 0 where they are whole numbers of the machine's."""
        return 4 if self.load_in_4bit else 8 if self.load_in_8bit else 0


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """An adapter on a checkpoint, which stays as it is: names of TRL, defaults of its scripts."""

    use_peft: bool = option(False, help="train an adapter (LoRA) instead of the whole model; needs lmtasks[peft]")
    lora_r: int = option(16, help="rank of the adapter", ge=1)
    lora_alpha: int = option(32, help="how much it counts: what it adds is scaled by lora_alpha / lora_r", ge=1)
    lora_dropout: float = option(0.05, help="dropout before it", ge=0, lt=1)
    lora_target_modules: list[str] | None = option(
        None, help="names of the layers that get one; all-linear, every linear one but the last, when not given"
    )
    lora_modules_to_save: list[str] | None = option(
        None, help="names of modules that are trained whole, and saved with the adapter"
    )
    use_rslora: bool = option(False, help="scale by lora_alpha / √lora_r")
    use_dora: bool = option(False, help="train the length of the weights' columns apart (DoRA)")
    lora_task_type: str | None = option(None, help="what peft calls the task; that of the recipe when not given")
    peft_config: str | None = option(None, help="YAML or JSON file with another adapter of peft, as its config has it")

    @property
    def asked(self) -> bool:
        """Whether there is to be an adapter."""
        return self.use_peft or self.peft_config is not None


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """The results that a run leaves behind."""

    output_dir: str | None = option(None, help="folder of the run; runs/RECIPE when not given")
    overwrite_output_dir: bool = option(False, help="replace an earlier run in that folder")
    resume_from_checkpoint: bool | str | None = option(
        None, help="true goes on from the newest good checkpoint, a path from that one, auto begins where there is none"
    )
    dry_run: bool = option(False, help="show the plan and write nothing")
    samples_every: int | None = option(
        None, help="answer a few held-out prompts every so many steps, on the screen and in the log", ge=1
    )
    push_to_hub: bool = option(False, help="publish the result on the Hub")
    hub_model_id: str | None = option(None, help="repository to publish to; the folder's name when not given")
    hub_private_repo: bool = option(False, help="publish to a private repository")
    language: list[str] | None = option(None, help="for the model card: languages of the text, as en, zh or pt-BR")
    license: str | None = option(None, help="for the model card: licence of the model, as apache-2.0 or cc-by-4.0")


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """The global batch, by which a command is the same run on one process and on many."""

    train_batch_size: int | None = option(
        None,
        help="examples per optimiser step, divided among the processes; each takes at most"
        " --per_device_train_batch_size at once, as often as needed",
        ge=1,
    )


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The loop that trains."""

    engine: str = option(DEFAULT_ENGINE, help="what makes the steps; lmtasks list --engines", training_only=True)
    preset: Literal["fast"] | None = option(
        None, help="what is not set goes by it: fast, to be as good sooner", training_only=True
    )


@dataclass(frozen=True, kw_only=True)
class StoppingSettings:
    """When training ends before all of its steps are done."""

    early_stopping_patience: int | None = option(
        None, help="evaluations without a better --metric_for_best_model, after which training ends", ge=1
    )
    early_stopping_threshold: float = option(0.0, help="how much better it must be to count as better", ge=0)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The ``TrainingArguments`` that people use most; every other one is accepted too.

    Defaults are those of transformers 5 (a test compares them), but for ``bf16``: None lets the hardware decide.
    """

    learning_rate: float = option(5e-5, help="peak learning rate", ge=0, le=100)
    num_train_epochs: float = option(3.0, help="passes over the training data", gt=0, le=1e9)
    max_steps: int = option(-1, help="optimiser steps, instead of epochs", ge=-1)
    per_device_train_batch_size: int = option(8, help="examples per step and device", ge=1)
    per_device_eval_batch_size: int = option(8, help="the same for evaluation", ge=1)
    gradient_accumulation_steps: int = option(1, help="batches per optimiser step", ge=1)
    warmup_steps: float = option(0, help="steps of rising learning rate; a fraction below 1 is a share of all", ge=0)
    lr_scheduler_type: str = option("linear", help="how the learning rate falls, such as linear, cosine, constant")
    weight_decay: float = option(0.0, help="decoupled weight decay", ge=0)
    max_grad_norm: float = option(1.0, help="gradients are clipped to this norm", ge=0)
    eval_strategy: Literal["no", "steps", "epoch"] = option("no", help="when to evaluate during training")
    save_strategy: Literal["no", "steps", "epoch", "best"] = option("steps", help="when to save checkpoints")
    save_steps: float = option(500, help="steps between checkpoints", gt=0)
    bf16: bool | None = option(None, help="compute in bfloat16 where it is safe; where it is fast, unless said")
    seed: int = option(42, help="seed of weights, order and masks", ge=0, lt=2**32)
    report_to: list[str] | str = option("none", help="trackers, such as tensorboard or wandb")
