"""The time of an optimiser step: the guide's, lmtasks', a bare loop's, and what the matrix products alone would take.

    python benchmarks/training_step.py [--device auto] [--rounds 3] [--steps 8] [--only "masked-lm, 4"] [--quick]

A step is forward, loss, backward, clipping and AdamW, with the batch that it takes. Contestants, all with
the same model, the same blocks of real text and as many steps:

- guide: the Trainer as the task guides use it: default arguments, their collator, the model's own loss.
- guide, bf16: the same with ``bf16=True``.
- lmtasks: its Trainer with the head run apart and the precision that the hardware decides, as in a run.
- lmtasks, float32: the same in float32.
- lmtasks, compiled: with ``--torch_compile``, where ``--compiled`` asks for it; the first step takes a minute then.
- bare loop: lmtasks' loss, batches and memory in a plain loop: what is above it is the Trainer's overhead.

Time stamps are taken inside the running training, after its first steps; contestants alternate, and the
figures are medians of the rounds. The limit counts the products that lmtasks' step makes (the body everywhere,
but for the last layer, of which queries and all that follows attention are for targets alone where these are few;
the head where there is a target; attention over the pairs that see each other; backward twice forward) at the rate
of a large ``torch.mm`` in the same precision, measured between the contestants.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch
from measuring import (
    SIZES,
    Shape,
    alternated,
    chosen_device,
    described,
    medians,
    now,
    on_one_thread,
    peak_rate,
    print_table,
    quiet_place,
    synchronize,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from lmtasks.api import EVALUATION_SEED, Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.training_arguments import training_arguments
from lmtasks.data.corpus import Split
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.sample import sample_documents
from lmtasks.data.text.encode import encode
from lmtasks.data.text.packing import Packed
from lmtasks.models.lm_head import separate_head
from lmtasks.training.callbacks import EpochCallback, LogCallback
from lmtasks.training.evaluation import evaluate_model
from lmtasks.training.precision import with_precision
from lmtasks.training.speed import eased
from lmtasks.training.trainer import RecipeTrainer

WORD = re.compile(r"\w+|[^\w\s]+")
SEED = 42
LEARNING_RATE = 5e-4
"""Of the comparison of losses, so that something is learned in few steps."""


@dataclass(frozen=True)
class Case:
    """A model and what is wanted of its step.

    Args:
        faster: how many times the guide's tokens per second.
        of_limit: share of the limit.
        overhead: most that the Trainer may add, as a share of the bare loop.
    """

    recipe: Recipe
    shape: Shape
    faster: float
    of_limit: float | None = None
    overhead: float | None = None

    @property
    def name(self) -> str:
        """For tables: recipe, layers × hidden size."""
        return f"{self.recipe.name}, {self.shape.layers} × {self.shape.hidden}"


@dataclass(frozen=True)
class Effort:
    """How large and how often.

    Args:
        warmup: steps of a training that are not counted.
        loss_steps: steps after which losses are compared.
        documents: most documents of the sample that are used.
        sizes: see :func:`measuring.peak_rate`.
        compiled: whether the step is measured compiled, too.
    """

    device: torch.device
    rounds: int
    steps: int
    warmup: int
    batch: int
    length: int
    loss_steps: int
    documents: int | None = None
    sizes: Sequence[int] = SIZES
    compiled: bool = False


CASES = (
    Case(MASKED_LM, Shape(6, 768, 50_265, dense=True, causal=False), faster=4.5, of_limit=0.7, overhead=0.03),
    Case(MASKED_LM, Shape(4, 256, 50_265, dense=True, causal=False), faster=7, of_limit=0.5),
    Case(CAUSAL_LM, Shape(6, 768, 50_257, dense=False, causal=True), faster=2.6, of_limit=0.65, overhead=0.03),
)
CONTESTANTS = ("guide", "guide, bf16", "lmtasks", "bare loop", "lmtasks, float32")
COMPILED = "lmtasks, compiled"
WITHIN = 0.005
"""Most that the evaluation loss may differ from that of the plain path."""


# --- text and models ---


@dataclass(frozen=True)
class Text:
    """Blocks of the embedded sample text, and the tokenizer that they were made with."""

    tokenizer: PreTrainedTokenizerBase
    train: Packed
    evaluation: Packed


def text_of(case: Case, effort: Effort) -> Text:
    documents = sample_documents("python")[: effort.documents]
    tokenizer = tokenizer_of(case.recipe, documents, case.shape.vocabulary)
    blocks = case.recipe.preprocess(tokenizer, case.recipe.options(block_size=effort.length))

    def packed(name: str, texts: list[str]) -> Packed:
        rows = datasets.Dataset.from_dict({"text": texts})
        return encode(name, Split(rows, ("text",), documents=True), tokenizer, blocks)

    held_out = documents[::10]
    learned = [text for number, text in enumerate(documents) if number % 10]
    train = packed("training", learned)
    if len(train) < max(effort.steps, effort.loss_steps) * effort.batch:
        raise SystemExit(f"the sample has {len(train)} blocks only: ask for fewer steps")
    return Text(tokenizer, train, packed("held-out", held_out).head(64))


def tokenizer_of(recipe: Recipe, texts: Sequence[str], size: int) -> PreTrainedTokenizerBase:
    """A token for each frequent word, and unused ones up to the very size that is asked for."""
    spec = recipe.tokenizer
    assert spec is not None
    roles = spec.special_tokens
    words = Counter(itertools.chain.from_iterable(map(WORD.findall, texts)))
    unused = (f"unused {number}" for number in itertools.count())
    tokens = itertools.chain(dict.fromkeys(roles.values()), (word for word, _ in words.most_common()), unused)
    ids = {token: number for number, token in enumerate(itertools.islice(tokens, size))}
    backend = Tokenizer(models.WordLevel(ids, unk_token=roles["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=spec.template, special_tokens=[(token, ids[token]) for token in set(roles.values())]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def model_of(case: Case, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """DistilRoBERTa or DistilGPT2 in this shape, with the same weights every time."""
    shape = case.shape
    sizes = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
    }
    roles = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    torch.manual_seed(SEED)
    if shape.causal:
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes, **roles))
    more = {"intermediate_size": 4 * shape.hidden, "max_position_embeddings": 514}
    return AutoModelForMaskedLM.from_config(AutoConfig.for_model("roberta", **sizes, **more, **roles))


# --- one training ---


class Clock(TrainerCallback):
    """Seconds per step from the end of the warm-up to the end of the last step."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.began = self.ended = 0.0

    def stamp(self, step: int) -> None:
        """A step has ended."""
        # Only at both ends: waiting for a GPU after each step would take from it what it could do ahead.
        if step == self.effort.warmup:
            synchronize(self.effort.device)
            self.began = now()
        if step == self.effort.steps:
            synchronize(self.effort.device)
            self.ended = now()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the gradients were cleared."""
        self.stamp(state.global_step)

    @property
    def seconds(self) -> float:
        """Of a step."""
        return (self.ended - self.began) / (self.effort.steps - self.effort.warmup)


def with_guide(case: Case, text: Text, effort: Effort, place: Path, *, bf16: bool) -> float:
    """Seconds per step of the guide's Trainer, on the same blocks."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(place / "tokenizer")
    tokenizer.pad_token = tokenizer.eos_token
    if case.shape.causal:
        collate = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)
    else:
        collate = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)
    clock = Clock(effort)
    trainer = Trainer(
        model=model_of(case, tokenizer),
        args=TrainingArguments(
            output_dir=str(place / "guide"),
            learning_rate=2e-5,
            weight_decay=0.01,
            max_steps=effort.steps,
            per_device_train_batch_size=effort.batch,
            bf16=bf16,
            use_cpu=effort.device.type == "cpu",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=guides_rows(case, text, effort),
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.seconds


def guides_rows(case: Case, text: Text, effort: Effort) -> datasets.Dataset:
    """The blocks with the columns that the guide's ``group_texts`` gives them."""
    train = text.train.head(effort.steps * effort.batch)
    ids = [train.example(number)["input_ids"].tolist() for number in range(len(train))]
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    return datasets.Dataset.from_dict({**columns, "labels": ids} if case.shape.causal else columns)


def our_arguments(
    case: Case, model: PreTrainedModel, effort: Effort, steps: int, *, bf16: bool | None, **more: Any
) -> dict[str, Any]:
    """The arguments of a run of lmtasks; ``bf16`` None lets the hardware decide."""
    values = {
        "max_steps": steps,
        "per_device_train_batch_size": effort.batch,
        "save_strategy": "no",
        # A run logs twenty times: of so few steps that would be each.
        "logging_steps": 500,
        "report_to": "none",
        "seed": SEED,
        "bf16": bf16,
        **({"use_cpu": True} if effort.device.type == "cpu" else {}),
        **more,
    }
    return with_precision(values, model)


def our_collator(case: Case, text: Text, effort: Effort, *, training: bool = True) -> Callable[[list[Any]], Any]:
    return case.recipe.collator(text.tokenizer, case.recipe.options(block_size=effort.length), training)


def quickened(case: Case, text: Text, effort: Effort, model: PreTrainedModel | None = None) -> PreTrainedModel:
    """The model, or this one, with its head apart, as a run prepares it."""
    model = model or model_of(case, text.tokenizer)
    example = our_collator(case, text, effort, training=False)([ExampleDataset(text.evaluation, EVALUATION_SEED)[0]])
    reason = separate_head(model, {name: value for name, value in example.items() if name != "labels"})
    assert reason is None, reason
    return model


def our_trainer(
    case: Case,
    text: Text,
    effort: Effort,
    place: Path,
    model: PreTrainedModel,
    values: Mapping[str, Any],
    *callbacks: TrainerCallback,
) -> RecipeTrainer:
    steps = values["max_steps"]
    examples = ExampleDataset(text.train.head(steps * effort.batch), SEED)
    return RecipeTrainer(
        recipe=case.recipe,
        eval_collate=our_collator(case, text, effort, training=False),
        model=model,
        args=training_arguments(values, place, steps),
        data_collator=our_collator(case, text, effort),
        train_dataset=examples,
        callbacks=[EpochCallback(examples), LogCallback(place / "log.jsonl", effort.batch * effort.length), *callbacks],
    )


def with_lmtasks(
    case: Case, text: Text, effort: Effort, place: Path, *, bf16: bool | None, compiled: bool = False
) -> float:
    """Seconds per step of lmtasks' Trainer."""
    model, clock = quickened(case, text, effort), Clock(effort)
    values = our_arguments(case, model, effort, effort.steps, bf16=bf16, torch_compile=compiled)
    with eased(effort.device, compiled=compiled):
        our_trainer(case, text, effort, place, model, values, clock).train()
    return clock.seconds


def in_bare_loop(case: Case, text: Text, effort: Effort, place: Path) -> float:
    """Seconds per step of a loop that does nothing but train, with lmtasks' loss and precision."""
    model, clock, recipe = quickened(case, text, effort), Clock(effort), case.recipe
    values = our_arguments(case, model, effort, effort.steps, bf16=None)
    model = model.to(effort.device).train()
    kind, how = Trainer.get_optimizer_cls_and_kwargs(training_arguments(values, place, effort.steps), model)
    optimizer = kind(model.parameters(), **how)
    loader: DataLoader[Any] = DataLoader(
        ExampleDataset(text.train.head(effort.steps * effort.batch), SEED),
        batch_size=effort.batch,
        shuffle=True,
        collate_fn=our_collator(case, text, effort),
        pin_memory=effort.device.type == "cuda",
    )
    for step, host in enumerate(loader, 1):
        targets = recipe.targets(host).numel()
        batch = {name: value.to(effort.device, non_blocking=True) for name, value in host.items()}
        with torch.autocast(effort.device.type, torch.bfloat16, enabled=values["bf16"]):
            total = recipe.loss(model, batch)[0]
        (total / targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.stamp(step)
    return clock.seconds


# --- the limit ---


def mean_targets(case: Case, text: Text, effort: Effort) -> float:
    """Targets of a batch, in the mean over the blocks of the measured steps."""
    examples = ExampleDataset(text.train.head(effort.steps * effort.batch), SEED)
    collate = our_collator(case, text, effort)
    targets = sum(case.recipe.targets(collate([examples[number]])).numel() for number in range(len(examples)))
    return targets / len(examples) * effort.batch


# --- measuring a case ---


@dataclass(frozen=True)
class Steps:
    """What was measured of a case.

    Args:
        seconds: per step, by contestant.
        precision: of the products, by contestant.
        rates: floating-point operations per second at the peak, by precision.
        products: floating-point operations of a step.
    """

    case: Case
    seconds: Mapping[str, float]
    precision: Mapping[str, str]
    rates: Mapping[str, float]
    products: float

    def limit(self, precision: str) -> float:
        """Seconds of the products alone."""
        return self.products / self.rates[precision]

    def of_limit(self, name: str) -> float:
        """The share of the contestant's time that the products alone would take."""
        return self.limit(self.precision[name]) / self.seconds[name]

    def faster(self, name: str, than: str = "guide") -> float:
        """How many times as many tokens per second."""
        return self.seconds[than] / self.seconds[name]

    @property
    def overhead(self) -> float:
        """What the Trainer adds, as a share of the bare loop."""
        return self.seconds["lmtasks"] / self.seconds["bare loop"] - 1


def measured(case: Case, text: Text, effort: Effort, place: Path) -> Steps:
    text.tokenizer.save_pretrained(place / "tokenizer")
    contestants: dict[str, Callable[[], float]] = {
        "guide": partial(with_guide, case, text, effort, place, bf16=False),
        "guide, bf16": partial(with_guide, case, text, effort, place, bf16=True),
        "lmtasks": partial(with_lmtasks, case, text, effort, place, bf16=None),
        "bare loop": eased(effort.device)(partial(in_bare_loop, case, text, effort, place)),
        "lmtasks, float32": partial(with_lmtasks, case, text, effort, place, bf16=False),
    }
    if effort.compiled:
        contestants[COMPILED] = partial(with_lmtasks, case, text, effort, place, bf16=None, compiled=True)
    rates = {f"rate, {name}": partial(peak_rate, effort.device, dtype, effort.sizes) for name, dtype in DTYPES.items()}
    everyone: dict[str, Callable[[], float]] = {**contestants, **rates}
    turns = {name: partial(announced, case, name, contestant) for name, contestant in everyone.items()}
    figures = medians(alternated(turns, effort.rounds))
    model = model_of(case, text.tokenizer)
    chosen = "bfloat16" if our_arguments(case, model, effort, 1, bf16=None)["bf16"] else "float32"
    return Steps(
        case=case,
        seconds={name: figures[name] for name in (*CONTESTANTS, COMPILED) if name in contestants},
        precision={
            "guide": "float32",
            "guide, bf16": "bfloat16",
            "lmtasks": chosen,
            "bare loop": chosen,
            COMPILED: chosen,
            "lmtasks, float32": "float32",
        },
        rates={name: figures[f"rate, {name}"] for name in DTYPES},
        products=case.shape.products(effort.batch, effort.length, mean_targets(case, text, effort)),
    )


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def announced(case: Case, name: str, contestant: Callable[[], float]) -> float:
    """The contestant's figure, after what others left behind is gone."""
    gc.collect()  # a Trainer is full of circles, and holds on to its model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(f"{case.name}: {name}", file=sys.stderr, flush=True)
    return contestant()


# --- what is learned ---


@dataclass(frozen=True)
class Losses:
    """Evaluation losses after the same steps: without training, of lmtasks as it is, and of the plain float32 path."""

    case: Case
    untrained: float
    ours: float
    plain: float

    @property
    def difference(self) -> float:
        """Relative."""
        return abs(self.ours - self.plain) / self.plain


def losses(case: Case, text: Text, effort: Effort, place: Path) -> Losses:
    def evaluated(model: PreTrainedModel) -> float:
        collate = our_collator(case, text, effort, training=False)
        examples = ExampleDataset(text.evaluation, EVALUATION_SEED)
        return evaluate_model(model, case.recipe, examples, collate, effort.batch)["loss"]

    def after(model: PreTrainedModel, bf16: bool | None) -> float:
        values = our_arguments(case, model, effort, effort.loss_steps, bf16=bf16, learning_rate=LEARNING_RATE)
        trainer = our_trainer(case, text, effort, place, model, values)
        with eased(effort.device) if bf16 is None else contextlib.nullcontext():
            trainer.train()
        # Evaluation is float32 whatever training was.
        return evaluated(trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False))

    ours = partial(after, quickened(case, text, effort), None)
    plain = partial(after, model_of(case, text.tokenizer), False)
    return Losses(
        case,
        untrained=evaluated(model_of(case, text.tokenizer)),
        ours=announced(case, f"{effort.loss_steps} steps as lmtasks does them", ours),
        plain=announced(case, f"{effort.loss_steps} steps on the plain path", plain),
    )


# --- tables ---


def print_steps(every: Sequence[Steps], effort: Effort) -> None:
    tokens = effort.batch * effort.length
    header = ("model", "what", "precision", "ms per step", "tokens/s", "× guide", "× guide, same precision")

    def rows() -> Iterator[list[str]]:
        for steps in every:
            for name, seconds in steps.seconds.items():
                precision = steps.precision[name]
                alike = "guide" if precision == "float32" else "guide, bf16"
                faster = (f"{steps.faster(name):.2f}", f"{steps.faster(name, alike):.2f}")
                cells = (f"{1000 * seconds:.2f}", f"{tokens / seconds:,.0f}", *faster, f"{steps.of_limit(name):.2f}")
                yield [steps.case.name, name, precision, *cells]
            for precision in steps.rates:
                limit = steps.limit(precision)
                ratio = f"{steps.seconds['guide'] / limit:.2f}"
                cells = (f"{1000 * limit:.2f}", f"{tokens / limit:,.0f}", ratio, "", "1.00")
                yield [steps.case.name, f"limit, at {steps.rates[precision] / 1e9:,.0f} GFLOP/s", precision, *cells]

    title = f"An optimiser step of {effort.batch} × {effort.length} tokens ({described(effort.device)})"
    print_table(title, (*header, "of the limit"), rows())


def print_losses(every: Sequence[Losses], effort: Effort) -> None:
    print_table(
        f"Evaluation loss after {effort.loss_steps} steps (same data, same seed), nats",
        ("model", "untrained", "lmtasks as it is", "plain float32 path", "difference"),
        (
            [one.case.name, *(f"{loss:.4f}" for loss in (one.untrained, one.ours, one.plain)), f"{one.difference:.2%}"]
            for one in every
        ),
    )


def print_figures(steps: Sequence[Steps], compared: Sequence[Losses]) -> None:
    """What is wanted beside what was measured."""

    def rows() -> Iterator[list[str]]:
        for one in steps:
            case = one.case
            yield [f"{case.name}: × the guide's tokens/s", f"{one.faster('lmtasks'):.2f}", f"≥ {case.faster:g}"]
            if case.of_limit is not None:
                share = f"{one.of_limit('lmtasks'):.2f}"
                yield [f"{case.name}: of the limit, {one.precision['lmtasks']}", share, f"≥ {case.of_limit:g}"]
            if case.overhead is not None:
                yield [f"{case.name}: the Trainer's overhead", f"{one.overhead:.1%}", f"< {case.overhead:.0%}"]
        for pair in compared:
            yield [f"{pair.case.name}: evaluation loss, difference", f"{pair.difference:.2%}", f"≤ {WITHIN:.1%}"]

    print_table("Figures", ("figure", "measured", "wanted"), rows())


def print_gpu(every: Sequence[Steps], effort: Effort) -> None:
    """The figures that only a GPU can give."""
    measured_here = effort.device.type == "cuda"

    def rows() -> Iterator[list[str]]:
        for one in every:
            for precision, ours, guide in PAIRS:
                name = ours if one.precision[ours] == precision else None
                cells = ["not measured"] * 2
                if measured_here and name:
                    cells = [f"{one.faster(name, guide):.2f}", f"{one.of_limit(name):.2f}"]
                yield [one.case.name, precision, *cells]

    print_table("GPU", ("model", "precision", "× guide, same precision", "of the limit"), rows())


PAIRS = (("float32", "lmtasks, float32", "guide"), ("bfloat16", "lmtasks", "guide, bf16"))


# --- the command ---


def parsed(words: Sequence[str] | None) -> tuple[list[Case], Effort]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of one training")
    parser.add_argument("--warmup", type=int, default=2, help="steps of it that are not counted")
    parser.add_argument("--batch", type=int, default=8, help="blocks per step")
    parser.add_argument("--length", type=int, default=128, help="tokens per block")
    parser.add_argument("--loss-steps", type=int, default=100, help="steps before losses are compared; 0 for none")
    parser.add_argument("--only", default="", help='models whose name begins so: "masked-lm, 4"')
    parser.add_argument("--compiled", action="store_true", help="measure lmtasks' step compiled, too")
    parser.add_argument("--one-thread", action="store_true", help="processor time of one thread, on a busy machine")
    parser.add_argument("--quick", action="store_true", help="tiny models, a few steps: to see that it works")
    given = parser.parse_args(words)
    if not 0 < given.warmup < given.steps:
        parser.error("--warmup must be at least 1 and less than --steps")
    device = chosen_device(given.device)
    if given.one_thread:
        on_one_thread()
    cases = [case for case in CASES if case.name.startswith(given.only)]
    if not cases:
        parser.error(f"--only: the models are {'; '.join(case.name for case in CASES)}")
    effort = Effort(device, given.rounds, given.steps, given.warmup, given.batch, given.length, given.loss_steps)
    if given.quick:
        effort = Effort(device, 1, 3, 1, 2, 32, 2, documents=30, sizes=(64,))
        cases = [replace(case, shape=tiny(case.shape)) for case in cases]
    return cases, replace(effort, compiled=given.compiled)


def tiny(shape: Shape) -> Shape:
    return replace(shape, layers=shape.layers // 3, hidden=32, vocabulary=500)


def main(words: Sequence[str] | None = None) -> None:
    cases, effort = parsed(words)
    steps: list[Steps] = []
    compared: list[Losses] = []
    with quiet_place() as place:
        for case in cases:
            text = text_of(case, effort)
            steps.append(measured(case, text, effort, place))
            if effort.loss_steps:
                compared.append(losses(case, text, effort, place))
    print_steps(steps, effort)
    if compared:
        print_losses(compared, effort)
    print_figures(steps, compared)
    print_gpu(steps, effort)


if __name__ == "__main__":
    main()
