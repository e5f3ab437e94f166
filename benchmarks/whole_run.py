"""A whole run on the wall clock, from the first import to the saved model: the guide's script and lmtasks' command.

    python benchmarks/whole_run.py [--data FILE.txt] [--tokenizer FOLDER] [--rounds 3] [--epochs 2] [--quick]

The guide's script is the steps of the task guide on masked language modelling, in its order and with its
``num_proc=4``: load, hold out a fifth, tokenise, group into blocks, build, train with an evaluation after each
epoch, evaluate, save. Only what needs a network is done otherwise: the text comes from a file, the model is a fresh
RoBERTa, and nothing is published. lmtasks does the same with ``lmtasks run masked-lm``. Both are processes of their
own with empty caches, alternate, and the figures are medians of the rounds. Without ``--data`` the text is
lmtasks' embedded one, and without ``--tokenizer`` one is trained on it beforehand.

lmtasks' stages are seen from outside: its plan is printed when everything is ready for training, and its log
gets a line at the first step. Losses are what either reports: the held-out lines and the masks differ. The limit
is the matrix products of training and evaluation, as in ``training_step.py``, at the rate measured between the runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from measuring import SCRIPT, SIZES, Shape, alternated, chosen_device, described, peak_rate, print_table

SEED = 42
PROCESSES = 4
"""The guide's num_proc."""

WANTED = 5
"""How many times as fast as the guide's script lmtasks should be."""


@dataclass(frozen=True)
class Setting:
    """What both are told.

    Args:
        data: a text file.
        tokenizer: a folder.
        on_cpu: stay on the CPU even if there is a GPU.
    """

    data: str
    tokenizer: str
    layers: int
    hidden: int
    epochs: int
    block: int
    batch: int
    learning_rate: float
    on_cpu: bool

    @property
    def config(self) -> dict[str, int]:
        """What differs from the default RoBERTa."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": max(1, self.hidden // 64),
            "intermediate_size": 4 * self.hidden,
            "max_position_embeddings": 514,
        }


@dataclass(frozen=True)
class Whole:
    """A run from the outside.

    Args:
        seconds: since the process was started, at which each stage had ended.
        figures: what it reports: steps, blocks, loss.
    """

    seconds: Mapping[str, float]
    figures: Mapping[str, float]

    def stages(self) -> dict[str, float]:
        """The seconds of each stage on its own."""
        ends = [0.0, *self.seconds.values()]
        return {name: after - before for name, (before, after) in zip(self.seconds, pairwise(ends), strict=True)}


# --- the guide's script ---


def guide(setting: Setting, place: Path, began: float) -> Whole:
    """The guide's steps, in the process that is measured."""
    ends: dict[str, float] = {}

    def ended(stage: str) -> None:
        ends[stage] = time.time() - began

    from datasets import load_dataset
    from transformers import (
        AutoConfig,
        AutoModelForMaskedLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    class FirstStep(TrainerCallback):
        """Says when it was."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Only the first counts."""
            if state.global_step == 1:
                ended("first step")

    ended("start and imports")
    set_seed(SEED)
    lines = load_dataset("text", data_files=setting.data, split="train")
    lines = lines.train_test_split(test_size=0.2, seed=SEED).flatten()
    ended("load")
    tokenizer = AutoTokenizer.from_pretrained(setting.tokenizer)
    columns = lines["train"].column_names
    tokenised = lines.map(
        lambda rows: tokenizer(rows["text"]), batched=True, num_proc=PROCESSES, remove_columns=columns
    )
    ended("tokenise")
    grouped = tokenised.map(partial(in_blocks, setting.block), batched=True, num_proc=PROCESSES)
    ended("group into blocks")
    tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(
        model=AutoModelForMaskedLM.from_config(
            AutoConfig.for_model("roberta", vocab_size=len(tokenizer), **setting.config)
        ),
        args=TrainingArguments(
            output_dir=str(place),
            eval_strategy="epoch",
            learning_rate=setting.learning_rate,
            num_train_epochs=setting.epochs,
            weight_decay=0.01,
            per_device_train_batch_size=setting.batch,
            seed=SEED,
            use_cpu=setting.on_cpu,
        ),
        train_dataset=grouped["train"],
        eval_dataset=grouped["test"],
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15),
        processing_class=tokenizer,
        callbacks=[FirstStep()],
    )
    ended("build")
    steps = trainer.train().global_step
    ended("train")
    loss = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(place))
    ended("evaluate and save")
    figures = {"blocks": len(grouped["train"]), "held out": len(grouped["test"]), "steps": steps, "loss": loss}
    return Whole(ends, {**figures, "bf16": 0})


def in_blocks(size: int, rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """The guide's ``group_texts``: the rows of a batch joined by adding lists, and cut; the rest is dropped."""
    joined: dict[str, list[int]] = {name: sum(column, []) for name, column in rows.items()}  # noqa: RUF017
    length = len(joined["input_ids"])
    if length >= size:
        length -= length % size
    return {name: [ids[at : at + size] for at in range(0, length, size)] for name, ids in joined.items()}


def as_guide(words: Sequence[str]) -> None:
    """What the child process of the guide does."""
    setting, place, began, report = words
    whole = guide(Setting(**json.loads(setting)), Path(place), float(began))
    Path(report).write_text(json.dumps(asdict(whole)))


# --- from outside ---


def run_guide(setting: Setting) -> Whole:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        began = time.time()
        words = ["guide", json.dumps(asdict(setting)), f"{folder}/model", str(began), str(report)]
        process = started([sys.executable, __file__, *words], Path(folder))
        require_success(process, Path(folder))
        whole = time.time() - began
        told = json.loads(report.read_text())
    return Whole({**told["seconds"], "end of the process": whole}, told["figures"])


def run_lmtasks(setting: Setting) -> Whole:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = folder / "run"
        watched = {
            "start, imports, text, build": (folder / "stderr", "recipe  "),
            "first step": (run / "log.jsonl", ""),
        }
        ends: dict[str, float] = {}
        began = time.time()
        process = started(command(setting, run), folder)
        running = True
        while running:
            running = process.poll() is None  # asked first: what was written last is seen, too
            for stage, (file, text) in watched.items():
                if stage not in ends and contains(file, text):
                    ends[stage] = time.time() - began
            time.sleep(0.01)
        whole = time.time() - began
        require_success(process, folder)
        metrics = json.loads((folder / "stdout").read_text())["metrics"]
        record = json.loads((run / "run.json").read_text())
    # The Trainer counts from the first batch on, and the plan was printed right before.
    trained = ends["start, imports, text, build"] + metrics["train_runtime"]
    ends["train"] = max(ends["first step"], trained)
    ends["evaluate and save"] = whole
    data = record["data"]
    blocks = {"blocks": data["train"]["blocks"], "held out": data["evaluation"]["blocks"]}
    steps = math.ceil(blocks["blocks"] / setting.batch) * setting.epochs
    return Whole(ends, {**blocks, "steps": steps, "loss": metrics["eval_loss"], "bf16": record["training"]["bf16"]})


def contains(file: Path, text: str) -> bool:
    try:
        written = file.read_text()
    except FileNotFoundError:
        return False
    return bool(written) and text in written


def command(setting: Setting, folder: Path) -> list[str]:
    overrides = ",".join(f"{name}={value}" for name, value in setting.config.items())
    values = {
        "train_file": setting.data,
        "test_size": 0.2,
        "tokenizer_name": setting.tokenizer,
        "model_type": "roberta",
        "config_overrides": overrides,
        "block_size": setting.block,
        "eval_strategy": "epoch",
        "learning_rate": setting.learning_rate,
        "num_train_epochs": setting.epochs,
        "weight_decay": 0.01,
        "per_device_train_batch_size": setting.batch,
        "seed": SEED,
        "logging_first_step": "true",
        "output_dir": folder,
        **({"use_cpu": "true"} if setting.on_cpu else {}),
    }
    return [SCRIPT, "run", "masked-lm", "--json", *(str(word) for pair in values.items() for word in flag(*pair))]


def flag(name: str, value: Any) -> tuple[str, Any]:
    return f"--{name}", value


def started(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """The process, with caches of its own in the folder, and what it says in files there."""
    environment = {
        **os.environ,
        "HF_HOME": str(folder / "cache"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        return subprocess.Popen(words, stdout=out, stderr=err, env=environment)


def require_success(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait():
        sys.exit(f"{process.args!r} failed:\n{(folder / 'stderr').read_text()[-3000:]}")


# --- figures ---


def limit(setting: Setting, vocabulary: int, figures: Mapping[str, float], rate: float) -> float:
    """Seconds of the products of training and of the evaluations: one after each epoch and one at the end."""
    shape = Shape(setting.layers, setting.hidden, vocabulary, dense=True, causal=False)

    def products(blocks: float, *, training: bool) -> float:
        hidden = 0.15 * blocks * setting.block
        return shape.products(1, setting.block, hidden / blocks, training) * blocks if blocks else 0.0

    learned = products(figures["blocks"] * setting.epochs, training=True)
    evaluated = products(figures["held out"] * (setting.epochs + 1), training=False)
    return (learned + evaluated) / rate


def middle(runs: Sequence[Whole]) -> Whole:
    """The median of every end and figure."""

    def of(dictionaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: statistics.median(one[name] for one in dictionaries) for name in dictionaries[0]}

    return Whole(of([run.seconds for run in runs]), of([run.figures for run in runs]))


# How the stages of the two go together: rows of the table, and the stage whose end is the row's.
ROWS = {
    "ready to train": ("build", "start, imports, text, build"),
    "first step done": ("first step", "first step"),
    "trained": ("train", "train"),
    "whole": ("end of the process", "evaluate and save"),
}


def rows(theirs: Whole, ours: Whole, seconds: float) -> Iterator[list[str]]:
    for name, (guides, own) in ROWS.items():
        one, other = theirs.seconds[guides], ours.seconds[own]
        last = name == "whole"
        yield [name, f"{one:.1f}", f"{other:.1f}", f"{one / other:.2f}", f"{seconds:.1f}" if last else ""]
    for name, digits in (("blocks", 0), ("held out", 0), ("steps", 0), ("loss", 4)):
        one, other = theirs.figures[name], ours.figures[name]
        yield [LABELS[name], f"{one:,.{digits}f}", f"{other:,.{digits}f}", f"{one / other:.2f}", ""]


LABELS = {
    "blocks": "blocks learned from",
    "held out": "blocks held out",
    "steps": "steps",
    "loss": "evaluation loss, nats",
}


def sample_file(folder: Path) -> str:
    from lmtasks.data.sample import sample_documents

    file = folder / "sample.txt"
    file.write_text("\n".join(sample_documents("python")), encoding="utf-8")
    return str(file)


def trained_tokenizer(data: str, size: int, folder: Path) -> str:
    """A byte-level BPE tokenizer, as ``--train_tokenizer`` makes one."""
    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.models.tokenizer import train_tokenizer

    assert MASKED_LM.tokenizer is not None
    text = Path(data).read_text(encoding="utf-8").splitlines(keepends=True)
    train_tokenizer([text], size, MASKED_LM.tokenizer).save_pretrained(folder / "tokenizer")
    return str(folder / "tokenizer")


def shortened(data: str, folder: Path) -> str:
    file = folder / "short.txt"
    file.write_text(Path(data).read_text(encoding="utf-8")[:20_000], encoding="utf-8")
    return str(file)


def measured(setting: Setting, rounds: int, sizes: Sequence[int]) -> None:
    import torch
    from transformers import AutoTokenizer

    device = chosen_device("cpu" if setting.on_cpu else "auto")
    vocabulary = len(AutoTokenizer.from_pretrained(setting.tokenizer))
    rates: dict[str, list[float]] = {"float32": [], "bfloat16": []}

    def between() -> None:
        for name, measured_here in rates.items():
            measured_here.append(peak_rate(device, getattr(torch, name), sizes))

    def guides() -> Whole:
        between()
        return run_guide(setting)

    def lmtasks() -> Whole:
        return run_lmtasks(setting)

    runs = alternated({"guide": guides, "lmtasks": lmtasks}, rounds)
    theirs, ours = middle(runs["guide"]), middle(runs["lmtasks"])
    precision = "bfloat16" if ours.figures["bf16"] else "float32"
    least = limit(setting, vocabulary, ours.figures, statistics.median(rates[precision]))
    title = (
        f"A whole run of masked-lm, {setting.layers} × {setting.hidden}, vocabulary {vocabulary:,}, "
        f"{setting.epochs} epochs ({described(device)})"
    )
    print_table(
        title,
        ("until", "guide, s", "lmtasks, s", "guide ÷ lmtasks", f"limit, s ({precision})"),
        rows(theirs, ours, least),
    )
    for name, whole in (("the guide's script", theirs), ("lmtasks", ours)):
        stages = ([stage, f"{seconds:.1f}"] for stage, seconds in whole.stages().items())
        print_table(f"Stages of {name}", ("stage", "s"), stages)
    faster = theirs.seconds["end of the process"] / ours.seconds["evaluate and save"]
    print_table("Figures", ("figure", "measured", "wanted"), [["whole run, × guide", f"{faster:.2f}", f"≥ {WANTED:g}"]])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="text file; the embedded sample when not given")
    parser.add_argument("--tokenizer", help="folder; one is trained on the text when not given")
    parser.add_argument("--vocabulary", type=int, default=50_265, help="most tokens of the one that is trained")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--block", type=int, default=128, help="tokens per block")
    parser.add_argument("--batch", type=int, default=8, help="blocks per step")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tiny model on a short text: to see that it works")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = given.data or sample_file(folder)
        if given.quick:
            data = shortened(data, folder)
            given.layers, given.hidden, given.epochs, given.rounds, given.vocabulary = 1, 32, 1, 1, 400
        setting = Setting(
            data=str(Path(data).absolute()),
            tokenizer=given.tokenizer or trained_tokenizer(data, given.vocabulary, folder),
            layers=given.layers,
            hidden=given.hidden,
            epochs=given.epochs,
            block=given.block,
            batch=given.batch,
            learning_rate=given.learning_rate,
            on_cpu=given.device == "cpu",
        )
        measured(setting, given.rounds, (64,) if given.quick else SIZES)


if __name__ == "__main__":
    if sys.argv[1:2] == ["guide"]:
        as_guide(sys.argv[2:])
    else:
        main()
