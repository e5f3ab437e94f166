"""What the guides' steps report, what lmtasks reports, and what is right.

    python benchmarks/correctness.py [--only "Two processes"] [--write]

Every row of the table is measured now, with tiny models made on the spot: no network, no GPU, the same
seeds each time. The exit code is 1 if lmtasks misses what a row asks of it. ``--write`` puts the table
into ``docs/correctness.md``. The guide's stack is the Trainer of transformers with its own collator,
used as the task guides on masked and causal language modelling use them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import io
import itertools
import json
import math
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# Before torch and transformers, which read these once. One thread, because the order of a sum is part of its result.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import datasets
import numpy as np
import safetensors.torch
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

import lmtasks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.training_arguments import training_arguments
from lmtasks.data.corpus import Split
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.encode import encode
from lmtasks.models.lm_head import separate_head
from lmtasks.training.training import Training
from lmtasks.training.with_trainer import train

PAGE = Path(__file__).parents[1] / "docs" / "correctness.md"
BEGIN, END = "<!-- correctness: begin -->", "<!-- correctness: end -->"
HEADER = ("what", "measured how", "the guide's stack reports", "lmtasks reports", "what is right")

Numbers = dict[str, torch.Tensor]
Ids = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured, in words.

    Args:
        guide, ours, right: what the guide's stack reports, what lmtasks reports, and what is right.
        passed: whether lmtasks does what the row asks of it.
    """

    guide: str
    ours: str
    right: str
    passed: bool


# --- tiny models and texts ---

WORDS = 400
ENCODERS = ("bert", "roberta", "distilbert", "electra", "modernbert", "bart")
DECODERS = ("gpt2", "llama", "xlnet")
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {**SHAPE, "max_position_embeddings": 1024},
    "electra": {**SHAPE, "embedding_size": 16},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    "bart": {
        "d_model": 32,
        "max_position_embeddings": 130,
        **{f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")},
        **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
    },
}


def new_tokenizer(masked: bool, padding_side: str = "right") -> PreTrainedTokenizerBase:
    """A token for each of the words w0 to w399; padding only where models are made to fill in words."""
    roles = {"eos_token": "</s>", "unk_token": "<unk>"}
    if masked:
        roles |= {"pad_token": "<pad>", "mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>"}
    ids = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
    backend = Tokenizer(models.WordLevel(ids | {f"w{n}": len(ids) + n for n in range(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if masked:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side=padding_side, **roles)


def make_model(
    place: Path, kind: str, *, dropout: bool = False, loud: float = 1.0, masked: bool | None = None, **more: Any
) -> Path:
    """A fresh model and its tokenizer, saved in a folder.

    Args:
        loud: factor for the weights. A fresh model gives all tokens nearly the same chance, and many mistakes
            leave that as it is.
        masked: whether the tokenizer is one for filling in words; that of the kind when None.
        more: further values for the configuration.
    """
    masked = kind in ENCODERS if masked is None else masked
    folder = place / f"{kind}-{len(list(place.iterdir()))}"
    tokenizer = new_tokenizer(masked)
    roles = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos", "mask")}
    shape = {**SHAPES.get(kind, SHAPE), "vocab_size": len(tokenizer)}
    config = AutoConfig.for_model(
        kind, **shape, **{name: id_ for name, id_ in roles.items() if id_ is not None}, **more
    )
    if not dropout:
        for name, value in config.to_dict().items():
            if isinstance(value, float) and ("drop" in name or name.endswith("pdrop")):
                setattr(config, name, 0.0)
    torch.manual_seed(0)
    model = (AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(loud)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def texts_of(lengths: Sequence[int], seed: int = 0, words: int = WORDS, skew: int = 3) -> list[str]:
    """Texts of so many random words each, some far more frequent than others unless ``skew`` is 1."""
    draw = np.random.default_rng(seed)
    return [" ".join(f"w{int(words * chance**skew)}" for chance in draw.random(length)) for length in lengths]


def counting(lengths: Sequence[int], seed: int = 0) -> list[str]:
    """Texts that mostly count, "w7 w8 w9 w31 w32": their first word costs most, so long texts cost less."""
    draw = np.random.default_rng(seed)
    texts = []
    for length in lengths:
        jumps = np.where(draw.random(length) < 0.1, draw.integers(0, 50, length), 1)
        texts.append(" ".join(f"w{number}" for number in (draw.integers(0, 50) + jumps.cumsum()) % 50))
    return texts


UNEVEN = (60, 21, 37, 48, 25, 55, 30, 42)
"""Words of eight texts that have hardly a number of targets in common, so that no mean of means is right by chance."""


def load(folder: Path, kind: str) -> PreTrainedModel:
    model: PreTrainedModel = (AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM).from_pretrained(
        folder
    )
    return model


# --- lmtasks ---


class Watched:
    """A recipe that notes the batches and the model of its training.

    Args:
        stop_at: number of the training batch at which the run dies, as if the power had failed.
    """

    def __init__(self, kind: str, stop_at: int | None = None) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []
        self.model: torch.nn.Module | None = None
        self.plain = MASKED_LM if kind in ENCODERS else CAUSAL_LM
        self.stop_at = stop_at
        self.recipe = dataclasses.replace(self.plain, loss=self.loss, collator=self.collator)

    def loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        """The recipe's own."""
        if model.training and torch.is_grad_enabled():
            self.batches.append(batch)
            self.model = model
        return self.plain.loss(model, batch)

    def collator(self, tokenizer: PreTrainedTokenizerBase, options: Any, training: bool) -> Callable[..., Any]:
        """The recipe's own, as long as the power is there."""
        collate = self.plain.collator(tokenizer, options, training)
        if not training or self.stop_at is None:
            return collate
        number = itertools.count(1)

        def collate_or_die(examples: Any) -> Any:
            if next(number) == self.stop_at:
                raise PowerCutError
            return collate(examples)

        return collate_or_die


class PowerCutError(Exception):
    """The end of a run that has no time to save anything."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run of lmtasks.

    Args:
        log: entries of ``log.jsonl`` that have a loss.
        weights: as saved.
        batches: what the training saw last, as many batches as were asked for.
        model: the trained model itself.
    """

    metrics: Mapping[str, float]
    log: list[dict[str, Any]]
    weights: Numbers
    batches: list[dict[str, torch.Tensor]]
    model: torch.nn.Module
    folder: Path


def train_ours(kind: str, place: Path, *, batches: int = 0, stop_at: int | None = None, **values: Any) -> Finished:
    """``lmtasks.run`` with the recipe for this kind of model."""
    watched = Watched(kind, stop_at)
    given = {"output_dir": str(place), "logging_steps": 1, "save_strategy": "no", "use_cpu": True}
    run = lmtasks.run(watched.recipe, **{**given, **values})
    assert isinstance(run, lmtasks.Run)
    assert watched.model is not None
    return Finished(
        run.metrics,
        losses_in(place / "log.jsonl"),
        safetensors.torch.load_file(place / "model.safetensors"),
        watched.batches[-batches:],
        watched.model,
        place,
    )


def losses_in(log: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry for entry in entries if "loss" in entry]


def learned(kind: str, place: Path, length: int = 60) -> Path:
    """A model that has learned to count, more or less, so that its losses are unlike those of a guess.

    Args:
        length: words of its texts. An encoder with learned positions needs short ones to learn in so few steps.
    """
    texts = counting([length] * 128, seed=2)
    how = {"max_steps": 500, "learning_rate": 3e-3, "per_device_train_batch_size": 16, "line_by_line": True}
    data = {"model": str(make_model(place, kind, loud=2)), "train_dataset": texts, "eval_dataset": texts[:2]}
    return train_ours(kind, place / f"learned-{kind}", **data, **how).folder


def padding_left(folder: Path, kind: str) -> Path:
    """The same model with a tokenizer that pads on the left."""
    other = Path(shutil.copytree(folder, f"{folder}-left"))
    new_tokenizer(kind in ENCODERS, padding_side="left").save_pretrained(other)
    return other


# --- the guide's stack ---


def guides_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The guides' padding token is the end of text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def guides_collator(tokenizer: PreTrainedTokenizerBase, kind: str) -> DataCollatorForLanguageModeling:
    if kind in ENCODERS:
        return DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
    return DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)


def tokenised(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Ids]:
    return [{name: encoded[name] for name in ("input_ids", "attention_mask")} for encoded in map(tokenizer, texts)]


def in_blocks(size: int) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    """The guides' ``group_texts``: the rows of one ``map`` batch joined and cut; what is left over is dropped."""

    def cut(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        joined = {name: list(itertools.chain.from_iterable(column)) for name, column in rows.items()}
        length = len(joined["input_ids"])
        if length >= size:
            length -= length % size
        return {name: [all_[at : at + size] for at in range(0, length, size)] for name, all_ in joined.items()}

    return cut


def hidden_row(collate: Any, row: Ids) -> Ids:
    """The row with masks; drawn again as long as there are none, for a row without a target has no mean."""
    while True:
        hidden = {name: value[0].tolist() for name, value in collate([row]).items()}
        if set(hidden["labels"]) != {-100}:
            return hidden


def hidden_once(kind: str, tokenizer: PreTrainedTokenizerBase, rows: list[Ids]) -> tuple[list[Ids], Any]:
    """Rows and a collator for comparisons in which masks must not differ.

    The guides' collator draws new masks with every call. Here it is asked once for each row, and afterwards
    rows are only padded.
    """
    collate = guides_collator(tokenizer, kind)
    if kind in DECODERS:
        return rows, collate
    torch.manual_seed(0)
    return [hidden_row(collate, row) for row in rows], DataCollatorForTokenClassification(tokenizer)


def guides_trainer(
    model: PreTrainedModel,
    collate: Any,
    place: Path,
    rows: Sequence[Ids],
    eval_rows: Sequence[Ids] | None = None,
    *,
    processing_class: Any = None,
    **values: Any,
) -> Trainer:
    given = {"save_strategy": "no", "logging_steps": 1, "dataloader_pin_memory": False, "seed": 42}
    always = {"output_dir": str(place), "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**{**given, **always, **values}),
        data_collator=collate,
        train_dataset=datasets.Dataset.from_list(list(rows)),
        eval_dataset=datasets.Dataset.from_list(list(rows if eval_rows is None else eval_rows)),
        processing_class=processing_class,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


# --- plain torch and arithmetic ---


def plain_loss(model: torch.nn.Module, examples: Sequence[Ids], kind: str) -> torch.Tensor:
    """Mean over all targets, one example after the other and nothing padded. The definition."""
    losses = []
    for example in examples:
        ids, labels = (torch.as_tensor(example[name]).reshape(-1) for name in ("input_ids", "labels"))
        surprise = -model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        first = 0 if kind in ENCODERS else 1  # the first token has nothing before it
        losses += [surprise[place - first, labels[place]] for place in range(first, len(ids)) if labels[place] != -100]
    return torch.stack(losses).mean()


def evaluated_plainly(model: torch.nn.Module, examples: Sequence[Ids], kind: str) -> float:
    with torch.no_grad():
        return plain_loss(model.eval(), examples, kind).item()


def first_step(model: torch.nn.Module, examples: Sequence[Ids], kind: str) -> tuple[float, float]:
    """Loss and norm of its gradient."""
    loss = plain_loss(model.train(), examples, kind)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return loss.item(), math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def with_end(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Ids]:
    """Texts as causal-lm learns them, each with the end of text after it."""
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    return [{"input_ids": row, "labels": row} for row in ids]


def deviation(values: Sequence[float], expected: Sequence[float]) -> float:
    """The largest of the relative deviations."""
    return max(abs(one - other) / abs(other) for one, other in zip(values, expected, strict=True))


def spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / abs(min(values))


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Euclidean, over all weights."""
    return math.sqrt(sum(float((one[name].double() - other[name].double()).square().sum()) for name in one))


def largest_difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def weights_of(model: torch.nn.Module) -> Numbers:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def off(value: float) -> str:
    """A relative deviation: in percent, or its magnitude where percents have too many zeros."""
    return "0" if value == 0 else f"{value:.0e}" if value < 1e-3 else f"{100 * value:.3g} %"


def times(value: float) -> str:
    """The same, as a factor where it is one."""
    return f"×{1 + value:.3g}" if value > 1 else off(value)


def apart(value: float) -> str:
    return f"differ by up to {value:.2g}" if value else "equal to the last bit"


def share(value: float) -> str:
    return f"{100 * value:.3g} %"


def listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


# --- the rows ---

PARTS = (1, 2, 4, 8)


def gradient_accumulation(place: Path) -> Row:
    """One global batch of 8 texts in 1, 2, 4 and 8 parts: 5 steps of plain SGD, no dropout."""
    told, worst, first = [], np.zeros(3), 0.0
    for kind in (*ENCODERS, *DECODERS):
        folder = make_model(place, kind)
        loss, norm, moved = accumulated(*guide_in_parts(kind, folder, place))
        told.append(f"{kind} {times(loss)} / {times(norm)} / {off(moved)}")
        runs, start = ours_in_parts(kind, folder, place)
        worst = np.maximum(worst, accumulated([(run.log, run.weights) for run in runs], start))
        # In eight parts, each batch is one example and nothing is padded.
        expected = first_step(load(folder, kind), runs[-1].batches[:8], kind)
        logs = [(run.log[0]["loss"], run.log[0]["grad_norm"]) for run in runs]
        first = max(first, *(deviation(log, expected) for log in logs))
    ours = "{} / {} / {}".format(*map(off, worst))
    return Row(
        "largest deviation of loss / gradient norm / weights in parts:<br>" + "<br>".join(told),
        f"at most {ours}, for all nine; the first step is {off(first)} off that of plain torch",
        "the same in any number of parts",
        bool(worst.max() <= 1e-4) and first <= 1e-4,
    )


def accumulated(runs: list[tuple[list[dict[str, Any]], Numbers]], start: Numbers) -> tuple[float, float, float]:
    """How far loss, gradient norm and weights of the runs in parts are from those of the first one."""
    (whole, reached), *others = runs
    figures = [
        max(deviation([entry[name] for entry in log], [entry[name] for entry in whole]) for log, _ in others)
        for name in ("loss", "grad_norm")
    ]
    moved = distance(reached, {name: start[name] for name in reached})
    return figures[0], figures[1], max(distance(weights, reached) for _, weights in others) / moved


SGD = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 1e9, "max_steps": 5}


def ours_in_parts(kind: str, folder: Path, place: Path) -> tuple[list[Finished], Numbers]:
    """Without the checks before a run, which refuse XLNet: what trains is measured, for all alike."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    watched = Watched(kind)
    options = watched.recipe.options(line_by_line=True)
    rows = datasets.Dataset.from_dict({"text": texts_of(UNEVEN)})
    blocks = watched.recipe.preprocess(tokenizer, options)
    packed = encode("training", Split(rows, ("text",), documents=True), tokenizer, blocks)
    collates = [watched.recipe.collator(tokenizer, options, training) for training in (True, False)]
    runs = []
    for parts in PARTS:
        where = place / f"{kind}-in-{parts}"
        where.mkdir()
        size = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts}
        how = {"logging_steps": 1, "save_strategy": "no", "use_cpu": True, "report_to": "none", "seed": 42}
        arguments = training_arguments({**how, **size, **SGD}, where, SGD["max_steps"])
        model = load(folder, kind)
        examples = ExampleDataset(packed, 42), ExampleDataset(packed, lmtasks.EVALUATION_SEED)
        separate_head(model, {"input_ids": collates[1]([examples[1][0]])["input_ids"]})
        log = where / "log.jsonl"
        train(Training(model, watched.recipe, arguments, *examples, (collates[0], collates[1]), log))
        runs.append(Finished({}, losses_in(log), weights_of(model), watched.batches[-5 * parts :], model, where))
    return runs, weights_of(load(folder, kind))


def guide_in_parts(kind: str, folder: Path, place: Path) -> tuple[list[tuple[list[dict[str, Any]], Numbers]], Numbers]:
    tokenizer = guides_tokenizer(folder)
    rows, collate = hidden_once(kind, tokenizer, tokenised(tokenizer, texts_of(UNEVEN)))
    runs = []
    for parts in PARTS:
        size = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts}
        trainer = guides_trainer(load(folder, kind), collate, place / "guide", rows, **size, **SGD)
        trainer.train()
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        runs.append((log, weights_of(trainer.model)))
    return runs, weights_of(load(folder, kind))


def two_processes(place: Path) -> Row:
    """A global batch of 8 in one process and in two (gloo): 5 steps of SGD, then 13 texts evaluated."""
    folders = {kind: make_model(place, kind, loud=2) for kind in ("bert", "gpt2")}
    (place / "folders.json").write_text(json.dumps({kind: str(folder) for kind, folder in folders.items()}))
    alone = in_one_process(place, "one", batch=8)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    done = subprocess.run([*command, __file__, "--process", str(place)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    together = json.loads((place / "two.json").read_text())
    told = {name: deviation([together[name]], [value]) for name, value in alone.items()}
    words = {
        who: "training loss; evaluation loss off by:<br>"
        + "<br>".join(
            f"{kind} {off(told[f'{who} {kind} train_loss'])}; {off(told[f'{who} {kind} eval_loss'])}"
            for kind in folders
        )
        for who in ("guide", "ours")
    }
    passed = all(value <= 1e-4 for name, value in told.items() if name.startswith("ours"))
    return Row(words["guide"], words["ours"], "0", passed)


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def in_one_process(place: Path, mark: str, batch: int) -> dict[str, float]:
    """Losses of lmtasks and of the guide's stack, from as many processes as there are."""
    found: dict[str, float] = {}
    texts, held_out = texts_of([*UNEVEN, *UNEVEN]), texts_of([*UNEVEN, *UNEVEN[:5]], seed=1)
    for kind, folder in json.loads((place / "folders.json").read_text()).items():
        sizes = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": batch}
        data = {"train_dataset": texts, "eval_dataset": held_out, "line_by_line": True}
        recipe = "masked-lm" if kind in ENCODERS else "causal-lm"
        how = {**SGD, **sizes, "logging_steps": 1}
        run = lmtasks.run(recipe, model=folder, output_dir=str(place / f"{mark}-{kind}"), use_cpu=True, **data, **how)
        assert isinstance(run, lmtasks.Run)
        tokenizer = guides_tokenizer(folder)
        rows, collate = hidden_once(kind, tokenizer, tokenised(tokenizer, [*texts, *held_out]))
        # Two Trainers, because an evaluation moves the random state that orders the training examples.
        trainer, evaluator = (
            guides_trainer(load(folder, kind), collate, place / "guide", rows[: len(texts)], rows[len(texts) :], **how)
            for _ in range(2)
        )
        theirs = {"train_loss": trainer.train().training_loss, "eval_loss": evaluator.evaluate()["eval_loss"]}
        for name in ("train_loss", "eval_loss"):
            found |= {f"ours {kind} {name}": run.metrics[name], f"guide {kind} {name}": theirs[name]}
    return found


BATCH_SIZES = (1, 3, 8, 64)


def evaluation_batch_size(place: Path) -> Row:
    """20 texts of 2 to 60 tokens, evaluated in batches of 1, 3, 8 and 64, padded right and left."""
    texts = counting([2, 60, *UNEVEN, 3, 5, 9, 14, 2, 33, 51, 7, 4, 28])
    told, spreads, errors = [], [], []
    for kind in ("gpt2", "modernbert"):
        folder = learned(kind, place)
        sides = {"right": folder, "left": padding_left(folder, kind)}
        losses = [ours_evaluated(kind, folder, texts, size) for folder in sides.values() for size in BATCH_SIZES]
        right = ours_plainly(kind, sides["right"], texts)
        spreads.append(spread(losses))
        errors.append(deviation(losses, [right] * len(losses)))
        for side, folder in sides.items():
            values = [math.exp(guide_evaluated(kind, folder, texts, size)) for size in BATCH_SIZES]
            told.append(f"{kind}, padded {side}: perplexity {listed(values)}")
        if kind == "gpt2":
            rows = tokenised(guides_tokenizer(folder), texts)
            rows = [{**row, "labels": row["input_ids"]} for row in rows]
            right_told = f"one figure; for gpt2 {math.exp(evaluated_plainly(load(folder, kind), rows, kind)):.2f}"
    ours = f"all 16 losses within {off(max(spreads))} of each other and {off(max(errors))} of plain torch"
    return Row("<br>".join(told), ours, right_told, max(*spreads, *errors) <= 1e-6)


def ours_evaluated(kind: str, folder: Path, texts: list[str], batch_size: int = 8) -> float:
    recipe = "masked-lm" if kind in ENCODERS else "causal-lm"
    how = {"line_by_line": True, "per_device_eval_batch_size": batch_size}
    return lmtasks.evaluate(folder, recipe=recipe, eval_dataset=texts, **how)["eval_loss"]


def ours_plainly(kind: str, folder: Path, texts: list[str]) -> float:
    """The same by the definition, with lmtasks' masks where there are masks."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if kind in DECODERS:
        return evaluated_plainly(load(folder, kind), with_end(texts, tokenizer), kind)
    collate = MASKED_LM.collator(tokenizer, MASKED_LM.options(), False)
    rows = enumerate(tokenised(tokenizer, texts))
    examples = [collate([{**row, "seed": (lmtasks.EVALUATION_SEED, 0, number)}]) for number, row in rows]
    return evaluated_plainly(load(folder, kind), examples, kind)


def guide_evaluated(kind: str, folder: Path, texts: list[str], batch_size: int) -> float:
    tokenizer = guides_tokenizer(folder)
    how = {"per_device_eval_batch_size": batch_size}
    rows = tokenised(tokenizer, texts)
    trainer = guides_trainer(load(folder, kind), guides_collator(tokenizer, kind), folder / "guide", rows, **how)
    return float(trainer.evaluate()["eval_loss"])


def blocks_of_one_length(place: Path) -> Row:
    """20 blocks of 128 tokens, evaluated in batches of 8: nothing is padded, all have 127 targets."""
    text = counting([20 * 128])
    theirs, ours, right = [], [], []
    for kind in ("gpt2", "llama"):
        folder = learned(kind, place)
        tokenizer = guides_tokenizer(folder)
        blocks = list(datasets.Dataset.from_list(tokenised(tokenizer, text)).map(in_blocks(128), batched=True))
        trainer = guides_trainer(load(folder, kind), guides_collator(tokenizer, kind), place / "guide", blocks)
        theirs.append(trainer.evaluate()["eval_loss"])
        ours.append(lmtasks.evaluate(folder, recipe="causal-lm", eval_dataset=text, block_size=128)["eval_loss"])
        targets = [{**block, "labels": block["input_ids"]} for block in blocks]
        right.append(evaluated_plainly(load(folder, kind), targets, kind))
    told = ["gpt2 {:.4f}, llama {:.4f}".format(*losses) for losses in (theirs, ours, right)]
    return Row(f"loss {told[0]}", f"loss {told[1]}", f"plain torch: {told[2]}", deviation(ours, right) <= 1e-6)


def two_evaluations(place: Path) -> Row:
    """One masked model on one text, evaluated twice in a row."""
    kind = "modernbert"
    folder = learned(kind, place)
    texts = counting([*UNEVEN] * 8)
    tokenizer = guides_tokenizer(folder)
    rows = tokenised(tokenizer, texts)
    trainer = guides_trainer(load(folder, kind), guides_collator(tokenizer, kind), place / "guide", rows)
    theirs = [math.exp(trainer.evaluate()["eval_loss"]) for _ in range(2)]
    ours = [math.exp(ours_evaluated(kind, folder, texts)) for _ in range(2)]
    same = ours[0] == ours[1]
    told = f"perplexity {listed(ours)}; {'equal to the last bit' if same else 'not equal to the last bit'}"
    return Row(f"perplexity {listed(theirs)}", told, "the same twice", same)


EPOCHS = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3}


def loader_workers(place: Path) -> Row:
    """RoBERTa with dropout, 3 epochs of 12 texts in batches of 4, with 0 and with 2 data loader workers."""
    folder = make_model(place, "roberta", dropout=True)
    texts = texts_of([*UNEVEN, *UNEVEN[:4]])
    runs = [
        train_ours(
            "roberta",
            place / f"workers-{workers}",
            batches=9,
            model=str(folder),
            train_dataset=texts,
            eval_dataset=texts[:2],
            line_by_line=True,
            dataloader_num_workers=workers,
            **EPOCHS,
        )
        for workers in (0, 2)
    ]
    ours = same_batches(*(run.batches for run in runs)), largest_difference(*(run.weights for run in runs))
    seen = [guide_with_workers(folder, place, texts, workers) for workers in (0, 2)]
    theirs = same_batches(*(batches for batches, _ in seen)), largest_difference(*(weights for _, weights in seen))
    told = [f"{batches} of 9 batches with the same masks; weights {apart(gap)}" for batches, gap in (theirs, ours)]
    return Row(told[0], told[1], "the same masks, so the same weights", ours == (9, 0.0))


def same_batches(one: list[Any], other: list[Any]) -> int:
    assert len(one) == len(other) == 9
    return sum(torch.equal(first["input_ids"], second["input_ids"]) for first, second in zip(one, other, strict=True))


def guide_with_workers(folder: Path, place: Path, texts: list[str], workers: int) -> tuple[list[Any], Numbers]:
    tokenizer = guides_tokenizer(folder)
    model = load(folder, "roberta")
    seen: list[Any] = []
    model.register_forward_pre_hook(lambda module, args, inputs: seen.append(inputs), with_kwargs=True)
    collate = guides_collator(tokenizer, "roberta")
    rows = tokenised(tokenizer, texts)
    guides_trainer(model, collate, place / "guide", rows, dataloader_num_workers=workers, **EPOCHS).train()
    return seen, weights_of(model)


def resumption(place: Path) -> Row:
    """RoBERTa with dropout, 9 steps in 3 epochs; cut off, and resumed from the checkpoint of step 4."""
    folder = make_model(place, "roberta", dropout=True)
    texts = texts_of([*UNEVEN, *UNEVEN[:4]])
    how = {
        "model": str(folder),
        "train_dataset": texts,
        "eval_dataset": texts[:2],
        "line_by_line": True,
        "save_strategy": "steps",
        "save_steps": 4,
        **EPOCHS,
    }
    whole = train_ours("roberta", place / "whole", **how)
    with contextlib.suppress(PowerCutError):
        train_ours("roberta", place / "cut", stop_at=7, **how)
    resumed = train_ours("roberta", place / "cut", resume_from_checkpoint=True, **how)
    assert [entry["step"] for entry in resumed.log][-5:] == [5, 6, 7, 8, 9], "it goes on after step 4"
    ours = largest_difference(whole.weights, resumed.weights)
    theirs = largest_difference(*(guide_resumed(folder, place, texts, step) for step in (None, 4)))
    return Row(f"weights {apart(theirs)}", f"weights {apart(ours)}", "those of the uninterrupted run", ours == 0)


def guide_resumed(folder: Path, place: Path, texts: list[str], step: int | None) -> Numbers:
    tokenizer = guides_tokenizer(folder)
    saving = {"save_strategy": "steps", "save_steps": 4}
    rows, collate = tokenised(tokenizer, texts), guides_collator(tokenizer, "roberta")
    trainer = guides_trainer(load(folder, "roberta"), collate, place / "guide", rows, **saving, **EPOCHS)
    trainer.train(resume_from_checkpoint=str(place / "guide" / f"checkpoint-{step}") if step else None)
    return weights_of(trainer.model)


COLLECTIONS = {"4,000 texts of about 150 tokens": (4000, 150), "1,000 texts of about 15 tokens": (1000, 15)}


def tokens_kept(place: Path) -> Row:
    """Share of the tokens lost in cutting blocks of 128 and of 1024 tokens; `map` with `num_proc=4` for the guide."""
    folder = make_model(place, "gpt2")
    tokenizer = guides_tokenizer(folder)
    guide, ours, passed = [], [], True
    for name, (count, mean) in COLLECTIONS.items():
        draw = np.random.default_rng(0)
        texts = texts_of(1 + draw.geometric(1 / mean, count))
        rows = datasets.Dataset.from_list(tokenised(tokenizer, texts))
        lengths = sum(map(len, rows["input_ids"]))
        lost, left = [], []
        for size in (128, 1024):
            blocks = rows.map(in_blocks(size), batched=True, num_proc=4)
            lost.append(share(1 - sum(map(len, blocks["input_ids"])) / lengths))
            plan = lmtasks.run(
                "causal-lm",
                model=str(folder),
                train_dataset=texts,
                eval_dataset=texts[:20],
                block_size=size,
                dry_run=True,
                output_dir=str(place / "plan"),
            )
            assert isinstance(plan, lmtasks.runs.plan.Plan)
            kept = plan.train["blocks"] * size + plan.train["tail"] == plan.train["tokens"] == lengths + count
            passed &= kept and plan.train["tail"] < size
            left.append(f"{share(plan.train['tail'] / plan.train['tokens'])} ({plan.train['tail']} tokens)")
        guide.append(f"{name}: {lost[0]}; {lost[1]}")
        ours.append(f"{name}: {left[0]}; {left[1]}")
    right = "less than one block; each text has one end-of-text token more in lmtasks"
    return Row("<br>".join(guide), "<br>".join(ours), right, passed)


def save_and_reload(place: Path) -> Row:
    """RoBERTa trained for 5 steps and saved: the logits of the trained model and of the saved one, 8 texts."""
    folder = learned("roberta", place, length=16)
    texts = counting([16] * 8)
    tokenizer = guides_tokenizer(folder)
    rows = tokenised(tokenizer, texts)
    trainer = guides_trainer(
        load(folder, "roberta"),
        guides_collator(tokenizer, "roberta"),
        place / "guide",
        rows,
        processing_class=tokenizer,
        max_steps=5,
    )
    trainer.train()
    trainer.save_model()
    data = {"train_dataset": texts, "eval_dataset": texts[:2], "line_by_line": True}
    run = train_ours("roberta", place / "ours", model=str(folder), max_steps=5, **data)
    inputs = torch.tensor([row["input_ids"] for row in rows])
    theirs = reloaded(trainer.model, load(place / "guide", "roberta"), inputs)
    ours = reloaded(run.model, load(run.folder, "roberta"), inputs)
    told = [f"logits {apart(gap)}; another first guess at {share(changed)}" for gap, changed in (theirs, ours)]
    return Row(told[0], told[1], "what was trained is what was saved", ours == (0.0, 0.0))


def reloaded(trained: torch.nn.Module, saved: torch.nn.Module, inputs: torch.Tensor) -> tuple[float, float]:
    """Largest difference of the logits, and the share of positions with another token on top."""
    with torch.no_grad():
        one, other = (model.eval()(input_ids=inputs).logits for model in (trained, saved))
    return float((one - other).abs().max()), float((one.argmax(-1) != other.argmax(-1)).double().mean())


GUESSES = 96


def encoder_as_decoder(place: Path) -> Row:
    """BERT loaded with AutoModelForCausalLM, 600 steps on words drawn evenly from 96, then other such words."""
    folder = make_model(place, "bert", masked=False, loud=2)
    tokenizer = guides_tokenizer(folder)
    texts = [texts_of([4000], seed, GUESSES, skew=1) for seed in (0, 1)]
    blocks = [datasets.Dataset.from_list(tokenised(tokenizer, part)).map(in_blocks(16), batched=True) for part in texts]
    how = {"max_steps": 600, "learning_rate": 3e-3, "per_device_train_batch_size": 16}
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = guides_trainer(model, guides_collator(tokenizer, "gpt2"), place / "guide", *blocks, **how)
    trainer.train()
    theirs = trainer.evaluate()["eval_loss"]
    data = {"train_dataset": texts[0], "eval_dataset": texts[1], "block_size": 16}
    refusal = refused(lmtasks.run, "causal-lm", model=str(folder), output_dir=str(place / "ours"), **data)
    floor = math.log(GUESSES)
    right = f"{floor:.2f} nats (ln {GUESSES}): nothing can do better"
    passed = isinstance(refusal, lmtasks.InputError)
    return Row(f"evaluation loss {theirs:.2f} nats", error_line(refusal), right, passed)


def refused(call: Callable[..., Any], *words: Any, **values: Any) -> lmtasks.LmtasksError | None:
    """The error that lmtasks answers with, if it does."""
    try:
        call(*words, **values)
    except lmtasks.LmtasksError as error:
        return error
    return None


def error_line(error: lmtasks.LmtasksError | None) -> str:
    return "no error" if error is None else f"refused, exit code {error.exit_code}: “{error.message}”"


def end_of_text(place: Path) -> Row:
    """GPT-2 on 40 texts, each with an end-of-text token: share of those tokens that carry a label."""
    folder = make_model(place, "gpt2")
    tokenizer = guides_tokenizer(folder)
    texts = texts_of([*UNEVEN] * 5)
    ended = [{"input_ids": row["input_ids"], "attention_mask": [1] * len(row["input_ids"])} for row in
             with_end(texts, tokenizer)]  # fmt: skip
    blocks = datasets.Dataset.from_list(ended).map(in_blocks(32), batched=True)
    theirs = labelled_ends([guides_collator(tokenizer, "gpt2")(list(blocks))], tokenizer.eos_token_id)
    data = {"train_dataset": texts, "eval_dataset": texts[:2], "block_size": 32}
    many = {"num_train_epochs": 1, "per_device_train_batch_size": 64, "batches": 1}
    run = train_ours("gpt2", place / "ours", model=str(folder), **data, **many)
    ours = labelled_ends(run.batches, tokenizer.eos_token_id)
    passed = ours[0] == ours[1] > 0
    told = [f"{share(count / total)} ({count} of {total})" for count, total in (theirs, ours)]
    return Row(told[0], told[1], "100 %: what has no label is never learned", passed)


def labelled_ends(batches: Sequence[Mapping[str, torch.Tensor]], end: int) -> tuple[int, int]:
    """How many end-of-text tokens have a label, and how many there are where a label could be."""
    labels = torch.cat([batch["labels"][:, 1:][batch["input_ids"][:, 1:] == end] for batch in batches])
    return int((labels == end).sum()), len(labels)


def label_smoothing(place: Path) -> Row:
    """GPT-2 trained for 60 steps with `label_smoothing_factor=0.1` on a text that repeats: the evaluation loss."""
    folder = make_model(place, "gpt2")
    tokenizer = guides_tokenizer(folder)
    texts = [" ".join(f"w{number}" for number in range(15))] * 8
    how = {"max_steps": 60, "learning_rate": 1e-2, "label_smoothing_factor": 0.1}
    rows = tokenised(tokenizer, texts)
    trainer = guides_trainer(load(folder, "gpt2"), guides_collator(tokenizer, "gpt2"), place / "guide", rows, **how)
    trainer.train()
    theirs = trainer.evaluate()["eval_loss"]
    targets = [{**row, "labels": row["input_ids"]} for row in rows]
    theirs_plain = evaluated_plainly(trainer.model, targets, "gpt2")
    data = {"train_dataset": texts, "eval_dataset": texts, "line_by_line": True}
    run = train_ours("gpt2", place / "ours", model=str(folder), **data, **how)
    ours, ours_plain = run.metrics["eval_loss"], evaluated_plainly(run.model, with_end(texts, tokenizer), "gpt2")
    right = f"plain cross-entropy: {theirs_plain:.3f} for the guide's model, {ours_plain:.3f} for lmtasks'"
    return Row(f"{theirs:.3f}", f"{ours:.3f}", right, deviation([ours], [ours_plain]) <= 1e-6)


ISOLATED = ("bert", "roberta", "modernbert", "gpt2", "llama")


def isolated_documents(place: Path) -> Row:
    """Three texts in one block; one is exchanged: how far the logits of the others move at most."""
    lengths = (7, 19, 12)
    numbers = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    guide, apart, together = [], [], []
    for kind in ISOLATED:
        folder = make_model(place, kind, loud=4)
        data = {"train_dataset": texts_of([40] * 4), "eval_dataset": texts_of([40] * 2), "block_size": 38}
        how = {"max_steps": 1, "learning_rate": 0.0, "isolate_documents": True}
        model = train_ours(kind, place / f"ours-{kind}", model=str(folder), **data, **how).model
        guide.append(largest_move(load(folder, kind), numbers))
        together.append(largest_move(model, numbers))
        apart.append(largest_move(model, numbers, document_ids=numbers))
    assert together == guide, "the same model, as long as nothing is isolated"
    told = ", ".join(f"{kind} {moved:.2g}" for kind, moved in zip(ISOLATED, guide, strict=True))
    ours = ", ".join(f"{kind} {moved:.2g}" for kind, moved in zip(ISOLATED, apart, strict=True))
    right = "0 where texts are to be apart; that they see each other is a choice, and the default of both"
    return Row(told, f"with `isolate_documents`: {ours}; without: as the guide's", right, max(apart) == 0)


def largest_move(model: torch.nn.Module, numbers: torch.Tensor, **more: torch.Tensor) -> float:
    """Largest change of a logit of one document when another one changes."""
    draw = torch.Generator().manual_seed(0)
    ids, others = torch.randint(5, WORDS, (2, *numbers.shape), generator=draw)
    moved = 0.0
    with torch.no_grad():
        before = model.eval()(input_ids=ids, **more).logits
        for changed in numbers.unique():
            after = model(input_ids=torch.where(numbers == changed, others, ids), **more).logits
            moved = max(moved, float((after - before)[numbers != changed].abs().max()))
    return moved


def broken_batch(place: Path) -> Row:
    """GPT-2 whose embedding of one word is too large for norms, evaluated on 12 texts, one of which has the word."""
    folder = make_model(place, "gpt2", tie_word_embeddings=False)
    model = load(folder, "gpt2")
    tokenizer = guides_tokenizer(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("w399")] = 3e38
    model.save_pretrained(folder)
    texts = [*texts_of([20] * 11, words=WORDS - 1), "w1 w399 w2 w3"]
    theirs = guide_evaluated("gpt2", folder, texts, 4)
    how = {"eval_dataset": texts, "line_by_line": True, "per_device_eval_batch_size": 4}
    refusal = refused(lmtasks.evaluate, folder, recipe="causal-lm", **how)
    guide = f"{theirs:.3f}, without a word on the batch that is left out"
    return Row(guide, error_line(refusal), "no figure: the loss is not a number", isinstance(refusal, lmtasks.RunError))


ROWS: dict[str, Callable[[Path], Row]] = {
    "Gradient accumulation": gradient_accumulation,
    "Two processes": two_processes,
    "Evaluation batch size": evaluation_batch_size,
    "Blocks of one length": blocks_of_one_length,
    "Two evaluations in a row": two_evaluations,
    "Data loader workers": loader_workers,
    "Resumption": resumption,
    "Tokens kept": tokens_kept,
    "Save and reload": save_and_reload,
    "Encoder as decoder": encoder_as_decoder,
    "End of text": end_of_text,
    "Label smoothing": label_smoothing,
    "Isolated documents": isolated_documents,
    "Broken batch": broken_batch,
}
"""What is measured, by the first cell of its row; the second is the function's docstring."""


# --- the table ---


@contextlib.contextmanager
def quiet_place() -> Iterator[Path]:
    """An empty folder, in which caches go as well, and silence: what libraries say is no part of the table."""
    before, level = dict(os.environ), transformers.logging.get_verbosity()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        os.environ |= {"XDG_CACHE_HOME": folder, "CUDA_VISIBLE_DEVICES": ""}
        try:
            yield Path(folder)
        finally:
            transformers.logging.set_verbosity(level)
            os.environ.clear()
            os.environ.update(before)


def measured(rows: Mapping[str, Callable[[Path], Row]]) -> Iterator[tuple[str, str, Row]]:
    for name, measure in rows.items():
        with quiet_place() as place:
            row = measure(place)
        yield name, str(measure.__doc__).strip(), row


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def versions() -> str:
    names = ("lmtasks", "transformers", "accelerate", "datasets", "torch")
    return ", ".join([*(f"{name} {metadata.version(name)}" for name in names), f"Python {platform.python_version()}"])


def write(page: Path, table: Sequence[str]) -> None:
    """Put the table between the page's markers."""
    text = page.read_text(encoding="utf-8")
    said = f"Measured on {datetime.date.today()} with {versions()}."
    part = "\n".join([BEGIN, "", said, "", *table, "", END])
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: part, text, flags=re.DOTALL), encoding="utf-8")


def main(
    words: Sequence[str] | None = None, rows: Mapping[str, Callable[[Path], Row]] = ROWS, page: Path = PAGE
) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(rows), help="measure this row; may be repeated")
    parser.add_argument("--write", action="store_true", help="put the table into docs/correctness.md")
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)  # one of two processes, see two_processes
    chosen = parser.parse_args(words)
    if chosen.write and chosen.only:
        parser.error("--write takes the whole table")
    torch.set_num_threads(1)
    if chosen.process:
        return one_of_two(chosen.process)
    table = [line(*HEADER), line(*["---"] * len(HEADER)).replace(" ", "")]
    print("\n".join(table), flush=True)
    failed = []
    for name, how, row in measured({name: rows[name] for name in chosen.only or rows}):
        failed += [] if row.passed else [name]
        table.append(line(name, how, row.guide, row.ours if row.passed else f"**fails:** {row.ours}", row.right))
        print(table[-1], flush=True)
    if failed:
        print(f"lmtasks fails: {', '.join(failed)}", file=sys.stderr)
    elif chosen.write:
        write(page, table)
    return 1 if failed else 0


def one_of_two(place: Path) -> int:
    """What each of the two processes does; the first tells."""
    found = in_one_process(place, "two", batch=4)
    if torch.distributed.get_rank() == 0:
        (place / "two.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
