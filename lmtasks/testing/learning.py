"""Checks of training: what the model may see, and that all of it learns, in whatever portions."""

from __future__ import annotations

import contextlib
from fnmatch import fnmatch
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.config.training_arguments import training_arguments
from lmtasks.errors import InputError
from lmtasks.models.document_mask import isolate, probe_isolation
from lmtasks.models.probes import probe
from lmtasks.testing.building import example_of
from lmtasks.testing.case import SEED, Case
from lmtasks.testing.proof import Fault, Inapplicable, check
from lmtasks.testing.sums import padding_does_not_matter, same, still, sums
from lmtasks.training.trainer import train

STEPS = 150
"""Steps in which a small batch must be learned."""


def trained(case: Case, texts: Case, model: PreTrainedModel, **arguments: Any) -> list[dict[str, Any]]:
    """Train the model with the runner's own Trainer, in place; what it has logged at each step."""
    chosen = {"use_cpu": True, "logging_steps": 1, "save_strategy": "no", "seed": SEED, "report_to": "none"}
    done = train(
        model,
        case.recipe,
        case.tokenizer,
        training_arguments({**chosen, "lr_scheduler_type": "constant", **arguments}, case.folder / "training", 1),
        texts.dataset(True),
        texts.dataset(False),
        (texts.collate(True), texts.collate(False)),
        case.folder / "log.jsonl",
        None,
    )
    return [line for line in done.state.log_history if "loss" in line]


@check("recipe", "architecture")
def attention_is_as_declared(case: Case) -> None:
    """A causal model sees nothing of what comes after a position, a bidirectional one sees some of it; measured."""
    if case.recipe.attention is None:
        raise Inapplicable("the recipe does not declare what a position may see")
    example = example_of(case)
    try:
        probe(case.model(), case.recipe, example)
    except InputError as error:
        raise Fault(
            error.message,
            f"the recipe declares attention='{case.recipe.attention}': change that, model_class,"
            " or the mask that model or collator make",
        ) from error


@check("recipe")
def documents_stay_isolated(case: Case) -> None:
    """With ``isolate_documents``, the loss of one document does not feel the tokens of another in its block."""
    isolated = case.having(isolate_documents=True)
    model = case.model()
    try:
        isolate(model, case.recipe)
        example = example_of(isolated)
        probe_isolation(model, case.recipe, example)
    except InputError as refusal:
        raise Inapplicable(refusal.message) from refusal
    for example in isolated.examples(8):
        numbers = torch.as_tensor(example["document_ids"])
        first = int((numbers == 0).sum())
        batch = isolated.collate()([example])
        if first == len(numbers) or batch["labels"].shape != batch["input_ids"].shape:
            continue
        batch["labels"][:, :first] = -100
        if not case.recipe.targets(batch).numel():
            continue
        if _feels(case, model, batch, first):
            raise Fault(
                "the loss of the second document in a block depends on the first, in spite of --isolate_documents",
                "keep the document_ids that lmtasks.stack puts into the batch, and make no target of the first token"
                " of a document where the token before it is asked for it",
            )


def _feels(case: Case, model: PreTrainedModel, batch: dict[str, Any], first: int) -> bool:
    """Whether the loss has a gradient at the first so many tokens."""
    seen: list[torch.Tensor] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        total, _, _ = sums(case, model, batch)
    finally:
        hook.remove()
    gradients = torch.autograd.grad(total, seen, allow_unused=True)
    return any(gradient is not None and bool(gradient[:, :first].count_nonzero()) for gradient in gradients)


@check("recipe", "architecture")
def accumulation_does_not_matter(case: Case) -> None:
    """Two steps on four examples give the same loss, gradient norm and weights as 1×4, 4×1 and 2×2 batches."""
    texts = case
    with contextlib.suppress(Exception):  # what padding does has a check of its own
        padding_does_not_matter(case)
        texts = case.ragged()
    ways = {}
    for size, batches in ((1, 4), (4, 1), (2, 2)):
        model = still(case.model())
        lines = trained(
            case,
            texts,
            model,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=batches,
            max_steps=2,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=1e9,
        )
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        ways[f"{size}×{batches}"] = lines, weights
    (first, (lines, weights)), *others = ways.items()
    advice = "return sums, count with `targets` what the loss counts, and keep no state between batches"
    for way, (other_lines, other_weights) in others:
        for step, (one, other) in enumerate(zip(lines, other_lines, strict=True), 1):
            for name in ("loss", "grad_norm"):
                if not same(one[name], other[name], 1e-3):
                    told = (
                        f"{name} of step {step} is {one[name]:.4f} with {first} batches, {other[name]:.4f} with {way}"
                    )
                    raise Fault(told, advice)
        moved = float((weights - _weights(case)).norm())
        if float((weights - other_weights).norm()) > 1e-3 * moved:
            raise Fault(f"after two steps the weights are not the same with {first} and {way} batches", advice)


def _weights(case: Case) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in case.make().parameters()])


@check("recipe", "architecture")
def parameters_move(case: Case) -> str | None:
    """After three steps of training every parameter that is trained has changed, but those named in ``unmoved``."""
    model = case.model()
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    trained(case, case, model, per_device_train_batch_size=4, max_steps=3, learning_rate=1e-2)
    stuck = [name for name, value in model.named_parameters() if name in before and torch.equal(value, before[name])]
    wrong = [name for name in stuck if not any(fnmatch(name, pattern) for pattern in case.unmoved)]
    if wrong:
        raise Fault(
            f"{len(wrong)} of {len(before)} parameters have not moved in three steps: {', '.join(wrong[:5])}",
            "let the loss depend on them, without detach; freeze or remove what is not used; if it is right so,"
            " name them in unmoved=[...], * stands for anything",
        )
    return f"these do not move: {', '.join(stuck)}" if stuck else None


@check("recipe")
def small_batch_is_learned(case: Case) -> str:
    """Four examples, always the same, are learned by heart: their loss halves within 150 steps."""
    model, batch = still(case.model()), case.batch()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = last = float("inf")
    for step in range(1, STEPS + 1):
        total, count, _ = sums(case, model, batch)
        last = float(total.detach()) / max(count, 1)
        first = last if step == 1 else first
        if last < first / 2:
            return f"{first:.2f} to {last:.2f} nats in {step} steps"
        if not total.requires_grad:
            break
        optimiser.zero_grad()
        (total / count).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    raise Fault(
        f"four examples cannot be learned: their loss goes from {first:.2f} to {last:.2f} nats in {step} steps",
        "see that the gradient flows, that labels do not change from call to call, and that inputs tell of them",
    )
