"""The time of an evaluation: the guide's, lmtasks', and what the matrix products alone would take.

    python benchmarks/evaluation.py [--device auto] [--rounds 3] [--blocks 64] [--only "masked-lm, 4"] [--quick]

All contestants evaluate the same model on the same blocks of 128 tokens in float32, eight at a time, which is what a
run publishes: the guide by ``Trainer.evaluate``, lmtasks with its head on targets only, and a bare loop of lmtasks'
loss on batches that are at hand, whose sums nobody adds up exactly. They alternate, and the figures are medians of the
rounds.

The limit counts the products that lmtasks makes, as in ``training_step.py``, at the rate of a large ``torch.mm``,
measured between the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import torch
from measuring import alternated, chosen_device, described, medians, peak_rate, print_table, quiet_place, synchronize
from training_step import CASES, Case, Effort, Text, model_of, our_collator, quickened, text_of, tiny
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lmtasks.api import EVALUATION_SEED, weighted_sum
from lmtasks.data.dataset import ExampleDataset
from lmtasks.training.cpu_memory import kept_memory
from lmtasks.training.evaluation import evaluate_model

OF_LIMIT = 0.9
"""Share of the limit that is wanted."""


@dataclass(frozen=True)
class Measured:
    """Seconds of an evaluation by contestant, and what the limit is made of."""

    case: Case
    seconds: dict[str, float]
    tokens: int
    products: float
    rate: float

    def of_limit(self, name: str) -> float:
        """Share of the limit that a contestant comes to."""
        return self.products / self.rate / self.seconds[name]


def measured(case: Case, text: Text, blocks: int, effort: Effort, place: Path) -> Measured:
    """What a case takes."""
    text = replace(text, evaluation=text.evaluation.head(blocks))
    examples = ExampleDataset(text.evaluation, EVALUATION_SEED)
    collate = our_collator(case, text, effort, training=False)
    model = quickened(case, text, effort).to(effort.device).eval()
    batches = [
        {
            name: value.to(effort.device)
            for name, value in collate([examples[number] for number in range(first, end)]).items()
        }
        for first in range(0, len(examples), effort.batch)
        for end in [min(len(examples), first + effort.batch)]
    ]
    targets = sum(case.recipe.targets(batch).numel() for batch in batches)
    trainer = guides_trainer(case, text, effort, place)

    def ours() -> None:
        evaluate_model(model, case.recipe, examples, collate, effort.batch)

    def bare() -> None:
        with torch.no_grad():
            for batch in batches:
                float(weighted_sum(case.recipe.loss(model, batch)))

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def seconds() -> float:
            synchronize(effort.device)
            began = time.perf_counter()
            work()
            synchronize(effort.device)
            return time.perf_counter() - began

        return seconds

    works: dict[str, Callable[[], object]] = {"guide": trainer.evaluate, "lmtasks": ours, "bare loop": bare}
    contestants = {name: timed(work) for name, work in works.items()}
    contestants["rate"] = lambda: peak_rate(effort.device, torch.float32, effort.sizes)
    with kept_memory(effort.device):  # as a run does, for all alike
        alternated({name: one for name, one in contestants.items() if name != "rate"}, 1)  # once for the caches
        figures = alternated(contestants, effort.rounds)
    rate = statistics.median(figures.pop("rate"))
    products = case.shape.products(len(examples), effort.length, targets, training=False)
    return Measured(case, medians(figures), len(examples) * effort.length, products, rate)


def guides_trainer(case: Case, text: Text, effort: Effort, place: Path) -> Trainer:
    """The guide's Trainer with the held-out blocks."""
    text.tokenizer.save_pretrained(place / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(place / "tokenizer")
    tokenizer.pad_token = tokenizer.eos_token
    ids = [text.evaluation.example(number)["input_ids"].tolist() for number in range(len(text.evaluation))]
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    trainer = Trainer(
        model=model_of(case, tokenizer),
        args=TrainingArguments(
            output_dir=str(place / "guide"),
            per_device_eval_batch_size=effort.batch,
            use_cpu=effort.device.type == "cpu",
            disable_tqdm=True,
            report_to="none",
        ),
        eval_dataset=datasets.Dataset.from_dict({**columns, "labels": ids} if case.shape.causal else columns),
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=not case.shape.causal),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def parsed(words: Sequence[str] | None) -> tuple[list[Case], int, Effort]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=64, help="blocks that are evaluated, 64 at most")
    parser.add_argument("--only", default="", help='models whose name begins so: "masked-lm, 4"')
    parser.add_argument("--quick", action="store_true", help="tiny models, few blocks: to see that it works")
    given = parser.parse_args(words)
    device = chosen_device(given.device)
    cases = [case for case in CASES if case.name.startswith(given.only)]
    if not cases:
        parser.error(f"--only: the models are {'; '.join(case.name for case in CASES)}")
    effort = Effort(device, given.rounds, steps=2, warmup=1, batch=8, length=128, loss_steps=0)
    if given.quick:
        effort = replace(effort, rounds=1, batch=2, length=32, documents=30, sizes=(64,))
        cases = [replace(case, shape=tiny(case.shape)) for case in cases]
    return cases, given.blocks, effort


def main(words: Sequence[str] | None = None) -> None:
    cases, blocks, effort = parsed(words)
    with quiet_place() as place:
        every = [measured(case, text_of(case, effort), blocks, effort, place) for case in cases]
    rows = []
    for one in every:
        for name, seconds in one.seconds.items():
            share = one.of_limit(name)
            missed = f", {OF_LIMIT:g} wanted: missed" if name == "lmtasks" and share < OF_LIMIT else ""
            faster = one.seconds["guide"] / seconds
            rows.append([one.case.name, name, f"{one.tokens / seconds:,.0f}", f"{faster:.2f}", f"{share:.2f}{missed}"])
    header = ("model", "what", "tokens/s", "× guide", "of the limit")
    print_table(f"An evaluation in float32 ({described(effort.device)})", header, rows)


if __name__ == "__main__":
    main()
