"""The plan of a run: what is about to happen, in numbers, before anything is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.api import DEFAULT_ENGINE, Batch, Recipe, loss_terms, require_counted, target_counts
from lmtasks.config.request import Request
from lmtasks.data.mixed import Mixed, one_source
from lmtasks.data.text.packing import Packed
from lmtasks.errors import InputError
from lmtasks.models.adapters import adapter_kind, base_model, has_adapter
from lmtasks.models.forward import in_mode
from lmtasks.models.processor import vocabulary
from lmtasks.runs.excerpts import column_name, first_text
from lmtasks.runs.load import Loaded
from lmtasks.training.extensions import arguments_for
from lmtasks.training.length import examples_per_step, total_steps

HELD = 4
"""Numbers for each weight that is trained: itself, its gradient, and the two moments of Adam."""

UNTOLD = ("rows", "unit", "bytes", "unknown", "special", "duplicates", "fingerprint")
"""Sizes of a split that are told otherwise, or only in notes."""

CUT = ("blocks", "tail")
"""Sizes that are told of all sources of a mix together."""

WORDS = {"tail": "tokens left over"}
"""Names of sizes that do not speak for themselves."""


@dataclass(frozen=True, repr=False)
class Plan:
    """A run in numbers, before it begins.

    Args:
        evaluation: sizes of the evaluation set; of the first one, where there are several.
        trained_parameters: those that are not frozen.
        adapter: what peft calls the kind of adapter that is trained; None where the model itself is.
        base_model: the checkpoint that training begins with; of an adapter, the one that it is for.
        block_size: tokens of an example; None where examples are no blocks of text.
        vocabulary: tokens of the tokenizer; None where there is none.
        peak_memory: estimate in bytes: weights, gradients, optimiser and what the backward pass keeps.
        notes: decisions that were taken for the user.
        writes: the run folder, and the repository if it is to be published.
        column: of the data, that the text came from, where they have columns.
        first_text: the beginning of the first document as it is trained, in one line; None where it is no text.
        evaluations: sizes of each evaluation set that has a name.
        sources: of a mix, sizes, weight and share of an epoch of each source, and how often its examples are seen.
        engine: what makes the steps.
    """

    recipe: str
    data: str
    train: dict[str, Any]
    evaluation: dict[str, Any]
    block_size: int | None
    model: str
    parameters: int
    trained_parameters: int
    vocabulary: int | None
    epochs: float
    steps: int
    batch: int
    learning_rate: float
    precision: str
    peak_memory: int
    output_dir: str
    notes: tuple[str, ...]
    writes: tuple[str, ...]
    adapter: str | None = None
    base_model: str | None = None
    column: str | None = None
    first_text: str | None = None
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    engine: str = DEFAULT_ENGINE

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def __repr__(self) -> str:
        return "\n".join(["Plan", *(f"  {line}" for line in self.lines())])

    def lines(self) -> list[str]:
        """For people, at most 80 columns wide where names allow."""
        vocabulary = "" if self.vocabulary is None else f", vocabulary {self.vocabulary:,}"
        kind = f" ({self.adapter})" if self.adapter else ""
        partly = self.trained_parameters < self.parameters
        trained = f", {self.trained_parameters:,} of them trained{kind}" if partly else ""
        each = "examples" if self.block_size is None else f"blocks × {self.block_size} tokens"
        return [
            f"recipe     {self.recipe}",
            f"data       {self.data}" + (f", column {self.column}" if self.column else ""),
            f"  train    {_counts(self.train)}",
            *(f"  source   {name}: {_counts(sizes, CUT)}" for name, sizes in self.sources.items()),
            *(f"  held out {name}: {_counts(sizes)}" for name, sizes in self.evaluations.items()),
            *([] if self.evaluations else [f"  held out {_counts(self.evaluation)}"]),
            *([f"first text {self.first_text}"] if self.first_text else []),
            f"model      {self.model}, {self.parameters:,} parameters{trained}{vocabulary}",
            f"training   {self.steps:,} steps of {self.batch} {each}"
            f" ({self.epochs:g} epochs), learning rate {self.learning_rate:g}",
            *([] if self.engine == DEFAULT_ENGINE else [f"engine     {self.engine}"]),
            f"compute    {self.precision}, about {_memory(self.peak_memory)} of memory",
            *(f"writes     {target}" for target in self.writes),
            *(f"note       {note}" for note in self.notes),
        ]


def _memory(size: int) -> str:
    """Bytes in the unit that people think in."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _counts(split: dict[str, Any], untold: tuple[str, ...] = ()) -> str:
    """The sizes of a split (:meth:`lmtasks.api.medium.Examples.sizes`) in words."""
    counted = {name: count for name, count in split.items() if name not in (*UNTOLD, *untold)}
    words = (
        f"weight {count:g}" if name == "weight" else f"{count:,} {WORDS.get(name, name.replace('_', ' '))}"
        for name, count in counted.items()
    )
    return ", ".join([f"{split['rows']:,} {split['unit']}", *words])


def plan_of(request: Request, folder: Path, loaded: Loaded) -> Plan:
    """The plan of a request whose data and model are loaded.

    Raises:
        InputError: there is less than one batch to train on.
    """
    arguments = arguments_for(request, folder, 0)
    encoded, model = loaded.data.encoded, loaded.model
    evaluations = encoded.sizes()
    train = encoded.train
    assert train is not None  # a run has training data
    steps = total_steps(len(train), arguments)
    if not steps:
        raise InputError(
            f"there are {len(train)} examples, less than one batch, and --dataloader_drop_last drops it",
            "lower --per_device_train_batch_size",
        )
    small = ["no --model given: a small one from scratch, to look around with"] if request.starts_small else []
    batch = examples_per_step(arguments)
    epochs = steps * batch / len(train)
    one = one_source(train)
    return Plan(
        recipe=f"{request.recipe.name}: {request.recipe.summary}",
        data=encoded.source,
        train=train.sizes(),
        evaluation=next(iter(evaluations.values())),
        evaluations={name: sizes for name, sizes in evaluations.items() if name},
        sources=train.parts(epochs) if isinstance(train, Mixed) else {},
        block_size=one.blocks.size if isinstance(one, Packed) else None,
        model=request.model.model_name_or_path or f"new {model.config.model_type}",
        parameters=model.num_parameters(),
        trained_parameters=model.num_parameters(only_trainable=True),
        adapter=adapter_kind(model) if has_adapter(model) else None,
        base_model=base_model(request.model.model_name_or_path, model),
        vocabulary=vocabulary(loaded.data.processor),
        epochs=round(epochs, 2),
        steps=steps,
        batch=batch,
        learning_rate=arguments.learning_rate,
        precision="bfloat16 where safe" if arguments.bf16 else "float16 where safe" if arguments.fp16 else "float32",
        peak_memory=peak_memory(model, request.bound, loaded.example, arguments.train_batch_size),
        output_dir=str(folder),
        notes=(*loaded.notes, *small),
        writes=(str(folder), *([request.output.hub_model_id or folder.name] if request.output.push_to_hub else ())),
        column=column_name(request, loaded.data.corpus),
        engine=request.loop.engine,
        first_text=first_text(train, loaded.data.processor),
    )


def peak_memory(model: PreTrainedModel, recipe: Recipe, example: Batch, batch_size: int) -> int:
    """Estimated bytes at the height of a training step.

    What the backward pass keeps is measured on one example, and grows with the batch.
    """
    parameters = list(model.parameters())
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # Some models remember what they have seen in training, such as the ranges of their activations.
    memory = [(buffer, buffer.clone()) for buffer in model.buffers()]
    watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with in_mode(model, training=True), torch.random.fork_rng(), watched:
        terms, _ = loss_terms(recipe.loss(model, example))
    for buffer, before in memory:
        buffer.copy_(before)
    require_counted(recipe.name, terms, target_counts(recipe.targets(example)))
    weights = sum(HELD * one.nbytes if one.requires_grad else one.nbytes for one in parameters)
    return int(weights + sum(kept.values()) * batch_size)
