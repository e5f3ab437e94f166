"""Checks of training: what the model may see, and that all of it learns, in whatever portions."""

from __future__ import annotations

import contextlib
from fnmatch import fnmatch
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.api import has_targets, of_term, weigh
from lmtasks.config.training_arguments import training_arguments
from lmtasks.errors import InputError
from lmtasks.models.document_mask import isolate, probe_isolation
from lmtasks.models.probes import probe, reaches
from lmtasks.testing.case import SEED, Case
from lmtasks.testing.proof import Fault, Inapplicable, blamed, check
from lmtasks.testing.sums import apart, padding_does_not_matter, still, vector
from lmtasks.testing.terms import same, sums, terms
from lmtasks.testing.training import training_of
from lmtasks.training.with_trainer import train

STEPS = 150
"""Steps in which a small batch must be learned."""


def trained(case: Case, texts: Case, model: PreTrainedModel, size: int, **arguments: Any) -> list[dict[str, Any]]:
    """Train the model in place, with the runner's own Trainer and batches of a size; the log line of each step."""
    arguments |= {"per_device_train_batch_size": size, "lr_scheduler_type": "constant", "seed": SEED}
    arguments |= {"use_cpu": True, "logging_steps": 1, "save_strategy": "no", "report_to": "none"}
    settings = training_arguments(arguments, case.folder / "training", 1)
    done = train(training_of(case, settings, texts, model))
    return [line for line in done.state.log_history if "loss" in line]


@check("recipe", "architecture")
def attention_is_as_declared(case: Case) -> None:
    """A causal model sees nothing of what comes after a position, a bidirectional one sees some of it; measured."""
    if case.recipe.attention is None:
        raise Inapplicable("the recipe does not declare what a position may see")
    advice = "change that, model_class, or the mask that model or collator make"
    example = case.example()
    with blamed("", f"the recipe declares attention='{case.recipe.attention}': {advice}", InputError):
        probe(case.model(), case.recipe, example)


@check(
    "recipe",
    advice="keep the document_ids that lmtasks.stack puts into the batch, and make no target of the first token"
    " of a document where the token before it is asked for it",
    of="loss",
)
def documents_stay_isolated(case: Case) -> None:
    """With ``isolate_documents``, the loss of one document does not feel the tokens of another in its block."""
    isolated = case.having(isolate_documents=True)
    model = case.model()
    try:
        isolate(model, case.recipe)
        probe_isolation(model, case.recipe, isolated.example())
    except InputError as refusal:
        if case.usual is None:
            raise Inapplicable(refusal.message) from refusal
        with case.usual() as other:  # what a starter's model cannot do says nothing of the recipe
            documents_stay_isolated(other)
        return
    for example in isolated.examples(8):
        first = int((example["document_ids"] == 0).sum())
        batch = isolated.collate()([example])
        if first == len(example["document_ids"]) or batch["labels"].shape != batch["input_ids"].shape:
            continue
        batch["labels"][:, :first] = -100
        if has_targets(case.recipe.targets(batch)) and _feels(case, model, batch, first):
            raise Fault(
                "the loss of the second document in a block depends on the first, in spite of --isolate_documents"
            )


def _feels(case: Case, model: PreTrainedModel, batch: dict[str, Any], first: int) -> bool:
    """Whether the loss has a gradient at the first so many tokens."""
    seen: list[torch.Tensor] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        total, _, _ = sums(case, model, batch)
    finally:
        hook.remove()
    return reaches(total, seen, slice(first))


@check("recipe", "architecture", of="loss")
def accumulation_does_not_matter(case: Case) -> None:
    """Two steps on four examples give the same loss, gradient norm and weights as 1×4, 4×1 and 2×2 batches."""
    texts = case
    with contextlib.suppress(Exception):  # what padding does has a check of its own
        padding_does_not_matter(case)
        texts = case.ragged()
    start, ways = vector(case.make().parameters()), {}
    plain_steps = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 1e9}
    for size, batches in ((1, 4), (4, 1), (2, 2)):
        model = still(case.model())
        lines = trained(case, texts, model, size, gradient_accumulation_steps=batches, **plain_steps)
        figures = {f"{name} of step {line['step']}": line[name] for line in lines for name in ("loss", "grad_norm")}
        ways[f"{size}×{batches}"] = figures, vector(model.parameters()) - start
    (first, (figures, moved)), *others = ways.items()
    advice = "return sums, count with `targets` what the loss counts, and keep no state between batches"
    for way, (other, other_moved) in others:
        for name, value in figures.items():
            if not same(value, other[name], 1e-3):
                raise Fault(f"{name} is {value:.4f} with {first} batches, {other[name]:.4f} with {way}", advice)
        if apart(other_moved, moved) > 1e-3:
            raise Fault(f"after two steps the weights are not the same with {first} and {way} batches", advice)


@check(
    "recipe",
    "architecture",
    advice="let the loss depend on them, without detach; freeze or remove what is not used; if it is right so,"
    " name them in unmoved=[...], * stands for anything",
)
def parameters_move(case: Case) -> str | None:
    """After three steps of training every parameter that is trained has changed, but those named in ``unmoved``."""
    model = case.model()
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    trained(case, case, model, 4, max_steps=3, learning_rate=1e-2)
    stuck = [name for name, value in model.named_parameters() if name in before and torch.equal(value, before[name])]
    if wrong := [name for name in stuck if not any(fnmatch(name, pattern) for pattern in case.unmoved)]:
        raise Fault(f"{len(wrong)} of {len(before)} parameters have not moved in three steps: {', '.join(wrong[:5])}")
    return f"these do not move: {', '.join(stuck)}" if stuck else None


@check(
    "recipe",
    advice="see that the gradient flows, that labels do not change from call to call, and that inputs tell of them",
    of="loss",
)
def small_batch_is_learned(case: Case) -> str:
    """Four examples, always the same, are learned by heart: their loss halves within 150 steps."""
    model, batch = still(case.model()), case.batch()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[float] = []
    counts: list[dict[str, int]] = []
    for step in range(1, STEPS + 1):
        parts, _ = terms(case, model, batch)
        mean = weigh(parts, {name: term.sum / max(int(term.count), 1) for name, term in parts.items()})
        losses.append(float(mean.detach()))
        counts.append({name: int(term.count) for name, term in parts.items()})
        if moved := [name for name, count in counts[0].items() if counts[-1].get(name) != count]:
            raise Fault(
                f"the count{of_term(moved[0])} goes from {counts[0][moved[0]]} to {counts[-1].get(moved[0])}"
                f" in {step} steps",
                "count what the batch tells: the divisor has to be known before the model runs",
            )
        first, last = losses[0], losses[-1]
        if last < first / 2:
            return f"{first:.2f} to {last:.2f} nats in {step} steps"
        if not mean.requires_grad:
            break
        optimiser.zero_grad()
        mean.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    raise Fault(f"four examples cannot be learned: their loss goes from {first:.2f} to {last:.2f} nats in {step} steps")
