"""The time of an optimiser step: Keras on JAX, lmtasks' Trainer, and the Trainer as the guide uses it.

    python benchmarks/step.py [--backends jax] [--layers 6] [--hidden 768] [--steps 6]

One run of each, masked-lm, a roberta from scratch, batches of 4 blocks of 128 tokens, in float32. The figure is the
median of the steps after the first two, in which things are compiled and memory is taken.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

BATCH, LENGTH, VOCABULARY = 4, 128, 8_000
SKIPPED = 2


class Clock(TrainerCallback):
    """The seconds between the ends of steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is done."""
        self.ends.append(time.perf_counter())

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(two - one for one, two in zip(self.ends[SKIPPED:], self.ends[SKIPPED + 1 :]))  # noqa: B905


def by_lmtasks(folder: Path, name: str, shape: str, steps: int, **engine: Any) -> tuple[float, Path]:
    import lmtasks

    clock = Clock()
    place = folder / name
    lmtasks.run(
        "masked-lm", model_type="roberta", config_overrides=shape, train_tokenizer=VOCABULARY,
        block_size=LENGTH, per_device_train_batch_size=BATCH, max_steps=steps, max_eval_samples=4, logging_steps=1,
        output_dir=str(place), callbacks=[clock], **engine,
    )  # fmt: skip
    return clock.median, place


def as_in_the_guide(folder: Path, trained: Path, steps: int) -> float:
    """The Trainer with the model's own loss and the collator of transformers."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForMaskedLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(trained))
    blocks = torch.randint(10, len(tokenizer), (BATCH * steps, LENGTH)).tolist()
    arguments = TrainingArguments(
        str(folder / "guide"), max_steps=steps, per_device_train_batch_size=BATCH, report_to=[], use_cpu=True,
        save_strategy="no",
    )  # fmt: skip
    rows = [{"input_ids": block} for block in blocks]
    Trainer(model, arguments, DataCollatorForLanguageModeling(tokenizer), rows, callbacks=[clock]).train()
    return clock.median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["jax"])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--steps", type=int, default=6)
    chosen = parser.parse_args()
    shape = f"num_hidden_layers={chosen.layers},hidden_size={chosen.hidden},num_attention_heads={chosen.hidden // 64}"
    shape += f",intermediate_size={4 * chosen.hidden}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ours, trained = by_lmtasks(folder, "trainer", shape, chosen.steps)
        figures = {"guide": as_in_the_guide(folder, trained, chosen.steps), "lmtasks, trainer": ours}
        for backend in chosen.backends:
            keras = {"engine": "keras", "keras.backend": backend}
            figures[f"lmtasks, keras on {backend}"], _ = by_lmtasks(folder, backend, shape, chosen.steps, **keras)
    for name, seconds in figures.items():
        print(f"{name:<26} {seconds:7.3f} s per step, {figures['guide'] / seconds:5.2f} times as fast as the guide")


if __name__ == "__main__":
    main()
