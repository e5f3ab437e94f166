"""Checks of a model on the very examples that it is to be trained or evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedModel

from lmtasks.api import EVALUATION_SEED, Batch, Example, Examples, Recipe, target_counts
from lmtasks.config.evaluation_sets import check_names
from lmtasks.config.request import Request
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import one_example
from lmtasks.data.text.packing import Packed
from lmtasks.models.document_mask import isolate, probe_isolation
from lmtasks.models.lm_head import EVERYWHERE, separate_head
from lmtasks.models.numbers import require_can_learn
from lmtasks.models.probes import probe, probe_first_loss, probe_padding, probe_short
from lmtasks.runs.own_figures import require_labels
from lmtasks.training.evaluation import require_sums

PARTED = ("fp16", "fsdp", "deepspeed")
"""Training arguments with which the head stays where it is: float16, since gradients would be made before the
Trainer's scaling could keep them from vanishing; the others take the model apart themselves."""


def first_example(request: Request, processor: Any, evaluations: Mapping[str, Examples], kind: str) -> Batch:
    """A batch of one example of the first evaluation set, where all of them have one, and names of their own.

    Args:
        kind: what they are, for people.

    Raises:
        InputError: a set has nothing to predict, or the name of a term of the loss.
    """
    first, *_ = [
        one_example(request, processor, examples, f"{kind} {name}".strip()) for name, examples in evaluations.items()
    ]
    check_names(filter(None, evaluations), filter(None, target_counts(request.recipe.targets(first))))
    return first


def check_model(
    request: Request,
    processor: Any,
    model: PreTrainedModel,
    examples: Examples,
    example: Batch,
    *,
    training: bool = True,
) -> None:
    """Measure what the model can take and what it sees, and teach it to isolate documents if asked.

    Args:
        training: whether it is to be trained, see :func:`lmtasks.models.probes.probe`.

    Raises:
        InputError: the model cannot do what the recipe needs.
    """
    recipe = request.bound
    require_labels(request, example)
    if training:
        require_can_learn(model, request.model)
    probe(model, recipe, example, training=training)
    require_sums(model, recipe, example)
    if not isinstance(examples, Packed) or examples.blocks.line_by_line:
        chosen = _of_different_lengths(ExampleDataset(examples, EVALUATION_SEED))
        collate = recipe.collator(processor, request.options, False)
        probe_padding(model, recipe, [collate([one]) for one in chosen], collate(chosen))
    elif examples.blocks.isolate:
        isolate(model, recipe)
        probe_isolation(model, recipe, example)
    views = (
        map(examples.recut, recipe.views(processor, request.options).values()) if isinstance(examples, Packed) else ()
    )
    for view in views:
        if 0 < view.whole < len(view):
            last = ExampleDataset(view, EVALUATION_SEED)[len(view) - 1]
            batch = recipe.collator(processor, request.options, False)([last])
            probe_short(model, recipe, batch, len(examples))


def check_first_loss(model: PreTrainedModel, recipe: Recipe, example: Batch) -> str:
    """The loss of a fresh model before its first step, in words.

    Raises:
        InputError: far from what a uniform guess costs.
    """
    first, uniform = probe_first_loss(model, recipe, example)
    return f"first loss {first:.2f} nats" + ("" if uniform is None else f", a uniform guess costs {uniform:.2f}")


def run_head_alone(request: Request, model: PreTrainedModel, examples: Examples, example: Batch) -> Iterator[str]:
    """Let the model run its head on targets only where that is possible; a note where it is not."""
    if not isinstance(examples, Packed):
        return  # what is no text is projected to no vocabulary
    parted = next((name for name in PARTED if request.training.get(name)), None)
    if parted:
        yield f"{EVERYWHERE}: --{parted} " + (
            "scales gradients" if parted == "fp16" else "takes the model apart itself"
        )
        return
    if reason := separate_head(model, {name: value for name, value in example.items() if name != "labels"}):
        yield f"{EVERYWHERE}: {reason}"


def _of_different_lengths(dataset: ExampleDataset) -> list[Example]:
    """The longest and the shortest of the first examples; where lengths are known, of all."""
    if not isinstance(dataset.examples, Packed):
        order = list(dataset.examples.longest_first())
        return [dataset[order[0]], dataset[order[-1]]]
    some = sorted((dataset[number] for number in range(min(len(dataset), 64))), key=lambda one: len(one["input_ids"]))
    return [some[-1], some[0]]
