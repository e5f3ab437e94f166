"""The rows of one part of ``gpu.py``, each printed when it is measured: ``["name", [figures]]`` or a reason."""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import training_step
from measuring import Shape, peak_rate, quiet_place, synchronize
from training_step import (
    EVALUATION_SEED,
    Case,
    Clock,
    Effort,
    ExampleDataset,
    Text,
    evaluate_model,
    guides_rows,
    mean_targets,
    model_of,
    our_arguments,
    our_collator,
    our_trainer,
    quickened,
    text_of,
)
from transformers import DataCollatorForLanguageModeling, PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.training.speed import eased

Row = Callable[[], Sequence[str]]


class NotHereError(Exception):
    """A row cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Size:
    """A model, and the batch that fills a large GPU with it."""

    layers: int
    hidden: int
    batch: int
    length: int


SIZES = {"82 M": Size(6, 768, 32, 512), "350 M": Size(24, 1024, 16, 512), "1 B": Size(16, 2048, 16, 512)}
TINY = Size(1, 32, 2, 32)
WARMUP, STEPS = 3, 10


@dataclass(frozen=True)
class Place:
    """Where and how much is measured."""

    device: torch.device
    folder: Path
    quick: bool

    def case(self, words: str) -> tuple[Case, Effort]:
        """The model of a part's name, "causal-lm 1 B", and what is done with it."""
        recipe, _, name = words.partition(" ")
        causal, size = recipe == CAUSAL_LM.name, TINY if self.quick else SIZES[name]
        vocabulary = 500 if self.quick else 50_257 if causal else 50_265
        shape = Shape(size.layers, size.hidden, vocabulary, dense=not causal, causal=causal)
        warmup, steps = (1, 3) if self.quick else (WARMUP, STEPS)
        effort = Effort(self.device, 1, steps, warmup, size.batch, size.length, 0, documents=30 if self.quick else None)
        return Case(CAUSAL_LM if causal else MASKED_LM, shape, faster=2), effort


# --- steps ---


def step_rows(place: Place, words: str) -> dict[str, Row]:
    case, effort = place.case(words)
    text = text_of(case, effort)
    text.tokenizer.save_pretrained(place.folder / "tokenizer")
    sizes = (64,) if place.quick else training_step.SIZES
    peak = peak_rate(place.device, torch.bfloat16, sizes)
    products = case.shape.products(effort.batch, effort.length, mean_targets(case, text, effort))

    def row(train: Callable[..., tuple[float, PreTrainedModel]], **how: Any) -> Sequence[str]:
        if place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds, model = train(case, text, effort, place.folder, **how)
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if place.device.type == "cuda" else "–"
        rate = f"{effort.batch * effort.length / seconds:,.0f}"
        loss = evaluated(case, text, effort, model)["loss"]
        return rate, f"{1000 * seconds:.1f}", memory, f"{products / seconds / peak:.2f}", f"{loss:.4f}"

    return {
        "guide": partial(row, guides_steps, bf16=False),
        "guide, bf16": partial(row, guides_steps, bf16=True),
        "lmtasks, float32": partial(row, our_steps, bf16=False),
        "lmtasks, bf16": partial(row, our_steps, bf16=True),
        "lmtasks, compiled": partial(row, compiled_steps),
        "lmtasks, Liger": partial(row, liger_steps),
    }


def guides_trainer(
    case: Case, text: Text, effort: Effort, folder: Path, *, bf16: bool, clock: Clock | None = None
) -> Trainer:
    tokenizer = type(text.tokenizer).from_pretrained(folder / "tokenizer")
    tokenizer.pad_token = tokenizer.eos_token
    hidden = {"mlm": False} if case.shape.causal else {"mlm_probability": 0.15}
    trainer = Trainer(
        model=model_of(case, tokenizer),
        args=TrainingArguments(
            output_dir=str(folder / "guide"),
            max_steps=effort.steps,
            per_device_train_batch_size=effort.batch,
            bf16=bf16,
            use_cpu=effort.device.type == "cpu",
            dataloader_pin_memory=effort.device.type == "cuda",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=guides_rows(case, text, effort),
        eval_dataset=guides_rows(case, replace(text, train=text.evaluation), effort),
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, **hidden),
        callbacks=[clock] if clock else [],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def guides_steps(case: Case, text: Text, effort: Effort, folder: Path, *, bf16: bool) -> tuple[float, PreTrainedModel]:
    clock = Clock(effort)
    trainer = guides_trainer(case, text, effort, folder, bf16=bf16, clock=clock)
    trainer.train()
    return clock.seconds, trainer.model


def our_steps(
    case: Case, text: Text, effort: Effort, folder: Path, *, bf16: bool, **more: Any
) -> tuple[float, PreTrainedModel]:
    """Seconds of lmtasks' step, and the model."""
    model, clock = quickened(case, text, effort), Clock(effort)
    values = our_arguments(case, model, effort, effort.steps, bf16=bf16, **more)
    with eased(effort.device, compiled=more.get("torch_compile", False)):
        trainer = our_trainer(case, text, effort, folder, model, values, clock)
        trainer.train()
    return clock.seconds, trainer.accelerator.unwrap_model(
        trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False
    )


def compiled_steps(*where: Any) -> tuple[float, PreTrainedModel]:
    if where[2].device.type == "cpu":
        raise NotHereError("compiled for GPUs only")
    return our_steps(*where, bf16=True, torch_compile=True)


def liger_steps(case: Case, *where: Any) -> tuple[float, PreTrainedModel]:
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN
    except ImportError as error:
        raise NotHereError("liger-kernel is not installed") from error
    kind = "gpt2" if case.shape.causal else "roberta"
    if kind not in KNOWN:
        raise NotHereError(f"Liger has no kernels for {kind}")
    return our_steps(case, *where, bf16=True, use_liger_kernel=True)


# --- evaluation ---


def evaluated(case: Case, text: Text, effort: Effort, model: PreTrainedModel) -> dict[str, float]:
    collate = our_collator(case, text, effort, training=False)
    return evaluate_model(model, case.recipe, ExampleDataset(text.evaluation, EVALUATION_SEED), collate, effort.batch)


def evaluation_rows(place: Place, words: str) -> dict[str, Row]:
    case, effort = place.case(words)
    text = text_of(case, effort)
    text.tokenizer.save_pretrained(place.folder / "tokenizer")

    def rate(evaluate: Callable[[], Any]) -> Sequence[str]:
        evaluate()  # once for the caches
        synchronize(place.device)
        began = time.perf_counter()
        evaluate()
        synchronize(place.device)
        return (f"{len(text.evaluation) * effort.length / (time.perf_counter() - began):,.0f}",)

    def guide() -> Sequence[str]:
        everything = replace(effort, steps=-(-len(text.evaluation) // effort.batch))
        return rate(guides_trainer(case, text, everything, place.folder, bf16=False).evaluate)

    def ours() -> Sequence[str]:
        model = quickened(case, text, effort).to(place.device)
        return rate(partial(evaluated, case, text, effort, model))

    return {"guide": guide, "lmtasks": ours}


# --- attention ---


def attention_rows(place: Place, words: str) -> dict[str, Row]:
    """Causal attention over rows of documents of different lengths, and how far each is from that with the mask."""
    rows, heads, length, size = (1, 2, 64, 16) if place.quick else (8, 16, 4096, 64)
    dtype = torch.float32 if place.quick else torch.bfloat16
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(rows, heads, length, size, device=place.device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    # Nine documents a row or so, of different lengths.
    documents = (torch.rand(rows, length, device=place.device) < 8 / length).cumsum(1)
    seen = (documents[:, None, :, None] == documents[:, None, None, :]).tril()
    attend = torch.nn.functional.scaled_dot_product_attention

    def masked() -> torch.Tensor:
        return attend(query, key, value, attn_mask=seen)

    def plain() -> torch.Tensor:
        return attend(query, key, value, is_causal=True)

    def flex() -> Callable[[], torch.Tensor]:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        def same(row: Any, head: Any, at: Any, other: Any) -> Any:
            return (documents[row, at] == documents[row, other]) & (at >= other)

        mask = create_block_mask(same, rows, None, length, length, device=place.device.type)
        compiled = torch.compile(flex_attention)
        return lambda: compiled(query, key, value, block_mask=mask)

    def varlen() -> Callable[[], torch.Tensor]:
        from torch.nn.attention.varlen import varlen_attn

        numbers = documents + length * torch.arange(rows, device=place.device)[:, None]
        counts = torch.unique_consecutive(numbers, return_counts=True)[1]
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
        longest = int(counts.max())

        def run() -> torch.Tensor:
            flat = [one.transpose(1, 2).flatten(0, 1) for one in (query, key, value)]
            out = varlen_attn(*flat, starts, starts, longest, longest, window_size=(-1, 0))
            return out.view(rows, length, heads, size).transpose(1, 2)

        return run

    expected = masked().detach()

    def row(kernel: Callable[[], torch.Tensor]) -> Sequence[str]:
        off = float((kernel().detach() - expected).abs().max())
        seconds = []
        for _ in range(2 if place.quick else 10):
            synchronize(place.device)
            began = time.perf_counter()
            kernel().sum().backward()
            synchronize(place.device)
            seconds.append(time.perf_counter() - began)
        return f"{1000 * min(seconds):.2f}", f"{off:.4f}"

    def on_gpu(make: Callable[[], Callable[[], torch.Tensor]]) -> Sequence[str]:
        if place.device.type == "cpu":
            raise NotHereError("a kernel of GPUs")
        return row(make())

    return {
        "the mask of a run": partial(row, masked),
        "no mask, all see all": partial(row, plain),
        "flex_attention": partial(on_gpu, flex),
        "varlen_attn": partial(on_gpu, varlen),
    }


# --- one part ---

KINDS: Mapping[str, Callable[[Place, str], dict[str, Row]]] = {
    "steps": step_rows,
    "evaluation": evaluation_rows,
    "attention": attention_rows,
}


def told(row: Row) -> Sequence[str] | str:
    """The figures of a row, or why it has none: whatever goes wrong in one, the others are still wanted."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        return list(row())
    except Exception as error:
        return f"not measured: {' '.join(str(error).split())[:200] or type(error).__name__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("seconds", type=float, help="after which no row is begun")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    device = torch.device("cpu" if given.quick or not torch.cuda.is_available() else "cuda")
    kind, _, words = given.part.partition(", ")
    with quiet_place() as folder:
        for name, row in KINDS[kind](Place(device, folder, given.quick), words).items():
            cells = told(row) if time.monotonic() < end else "not measured: no time left"
            print(json.dumps([name, cells]), flush=True)


if __name__ == "__main__":
    main()
