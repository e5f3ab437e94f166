"""An adapter against training the whole model: weights, checkpoint, memory, and time of a step.

    python benchmarks/adapters.py [--rounds 3] [--steps 8] [--quick]

The model is DistilRoBERTa's shape, trained on the embedded text by the recipe masked-lm; the adapter is LoRA of rank 16
on every linear layer; "adapter, bfloat16" is that on weights held in bfloat16 (``--dtype bfloat16``). "Trainer with
peft" is the way of its documentation: the model wrapped by ``get_peft_model``, the Trainer, its collator, the loss of
the model, default arguments.

Each figure comes from a process of its own, on a CPU; contestants alternate, times are medians of the rounds. Memory
is the most anonymous memory (``RssAnon``) in training, above what there was before the model was made; by then a tiny
one has been trained, so that all is imported that will be. A checkpoint is weights and optimizer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import alternated, described, print_table
from peft import LoraConfig, get_peft_model
from preprocessing import anonymous
from training_step import (
    CASES,
    Case,
    Clock,
    Effort,
    Text,
    guides_rows,
    model_of,
    our_arguments,
    our_trainer,
    quickened,
    text_of,
)
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from lmtasks.config.settings import AdapterSettings
from lmtasks.models.adapters import add_adapter
from lmtasks.training.speed import eased

RANK = 16
CONTESTANTS = ("whole model", "adapter", "adapter, bfloat16", "Trainer with peft")
WANTED = {"weights trained": 0.02, "checkpoint": 0.03, "memory": 0.5, "step": 0.6}
"""The most that an adapter may take, as a share: of the whole model's, and the step of the Trainer's with peft."""


class Memory(threading.Thread):
    """The most anonymous memory since it was started, above what there was then, in MiB; looked at every 2 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = anonymous()

    def run(self) -> None:
        """Look, for as long as the process lives."""
        while True:
            self.most = max(self.most, anonymous())
            time.sleep(0.002)

    @property
    def peak(self) -> float:
        """MiB."""
        return (self.most - self.before) / 2**10


def measured(contestant: str, case: Case, effort: Effort, place: Path) -> dict[str, float]:
    """The figures of one contestant, in this process."""
    small = tiny(case, effort)
    if small[0] != case:
        trained(contestant, *small, place, clock=Clock(effort))
    text, clock = text_of(case, effort), Clock(effort)
    memory = Memory()
    memory.start()
    trainer = trained(contestant, case, effort, place, text=text, clock=clock)
    peak = memory.peak
    learns = sum(one.numel() for one in trainer.model.parameters() if one.requires_grad)
    every = sum(one.numel() for one in trainer.model.parameters())
    trainer.model.save_pretrained(place / "saved")
    torch.save(trainer.optimizer.state_dict(), place / "saved" / "optimizer.pt")
    size = sum(path.stat().st_size for path in (place / "saved").iterdir())
    return {"weights trained": learns / every, "checkpoint": size / 2**20, "memory": peak, "step": clock.seconds}


def tiny(case: Case, effort: Effort) -> tuple[Case, Effort]:
    """Both in small, to see that everything works."""
    shape = replace(case.shape, layers=1, hidden=64, vocabulary=600)
    return replace(case, shape=shape), replace(effort, rounds=1, batch=2, length=16, documents=20)


def trained(
    contestant: str, case: Case, effort: Effort, place: Path, *, clock: Clock, text: Text | None = None
) -> Trainer:
    """The Trainer of a contestant, after its steps."""
    peft, how = contestant == CONTESTANTS[3], {"adapter": "adapter" in contestant, "half": "bfloat16" in contestant}
    make = with_peft if peft else partial(with_lmtasks, **how)
    trainer: Trainer = make(case, text or text_of(case, effort), effort, place, clock)
    with contextlib.nullcontext() if peft else eased(effort.device):
        trainer.train()
    return trainer


def with_lmtasks(
    case: Case, text: Text, effort: Effort, place: Path, clock: Clock, *, adapter: bool, half: bool
) -> Any:
    """lmtasks' Trainer, with an adapter as a run adds it, or without, on weights in bfloat16 or in float32."""
    model = model_of(case, text.tokenizer)
    if half:
        model.to(torch.bfloat16)
    if adapter:
        add_adapter(model, case.recipe, AdapterSettings(use_peft=True, lora_r=RANK), "base", "main")
    quickened(case, text, effort, model)
    return our_trainer(
        case, text, effort, place, model, our_arguments(case, model, effort, effort.steps, bf16=None), clock
    )


def with_peft(case: Case, text: Text, effort: Effort, place: Path, clock: Clock) -> Any:
    """The Trainer with a model that peft has wrapped."""
    tokenizer = text.tokenizer
    config = LoraConfig(r=RANK, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear")
    arguments = TrainingArguments(
        output_dir=str(place / "peft"),
        max_steps=effort.steps,
        per_device_train_batch_size=effort.batch,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    return Trainer(
        model=get_peft_model(model_of(case, tokenizer), config),
        args=arguments,
        train_dataset=guides_rows(case, text, effort),
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15),
        callbacks=[clock],
    )


def elsewhere(contestant: str, words: list[str]) -> dict[str, float]:
    """The figures of one contestant, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *words, "--measure", contestant], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def rows(figures: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """The table."""
    whole, *adapters, peft = (figures[name] for name in CONTESTANTS)
    units = {"weights trained": "{:.2%}", "checkpoint": "{:.1f} MiB", "memory": "{:.0f} MiB", "step": "{:.3f} s"}
    against = {"weights trained": 1.0, "step": peft["step"]}
    return [
        [
            what,
            *(units[what].format(figures[name][what]) for name in CONTESTANTS),
            *(f"{adapter[what] / against.get(what, whole[what]):.3f}" for adapter in adapters),
            f"{most:g}",
        ]
        for what, most in WANTED.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that it works")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    typed = parser.parse_args()
    device = torch.device("cpu")
    effort = Effort(device, typed.rounds, typed.steps, warmup=3, batch=8, length=128, loss_steps=0)
    case = CASES[0]
    if typed.quick:
        case, effort = tiny(case, effort)
    if typed.measure:
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(measured(typed.measure, case, effort, Path(place))))
        return
    words = ["--steps", str(effort.steps), *(["--quick"] if typed.quick else [])]
    found = alternated({name: partial(elsewhere, name, words) for name in CONTESTANTS}, effort.rounds)
    medians = {name: {what: median(one[what] for one in rounds) for what in WANTED} for name, rounds in found.items()}
    header = ("", *CONTESTANTS, "adapter's share", "in bfloat16", "wanted, at most")
    print_table(f"{case.name}, LoRA of rank {RANK}, {described(device)}", header, rows(medians))
    print("\nThe share is of the whole model's; that of the step is of the Trainer's with peft.")


if __name__ == "__main__":
    main()
