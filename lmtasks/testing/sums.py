"""Checks of the loss: a sum and a count, of the right thing, whatever it is batched with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from lmtasks.api import Batch, resolve
from lmtasks.config.training_arguments import training_arguments
from lmtasks.errors import InputError
from lmtasks.models.lm_head import EVERYWHERE, separate_head
from lmtasks.testing.case import Case
from lmtasks.testing.proof import Fault, Inapplicable, check
from lmtasks.training.rehearsal import rehearse

ROUNDING = 1e-4
"""Relative difference of two sums in float32 that are the same but for the order of their terms."""


def sums(case: Case, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int, dict[str, Any]]:
    """What the recipe's loss says of a batch.

    Raises:
        Fault: it does not say a sum, a count and perhaps further sums.
    """
    advice = "return (sum of the losses, number of targets), two scalar tensors, and perhaps {name: further sum}"
    said = case.recipe.loss(model, dict(batch))
    if not isinstance(said, tuple) or len(said) not in (2, 3):
        raise Fault(f"loss returns {type(said).__name__}, no pair and no triple", advice)
    total, count, *more = said
    if not torch.is_tensor(total) or total.numel() != 1:
        raise Fault(f"the loss is {_shape(total)}, no scalar tensor", advice)
    if not torch.is_tensor(count) or count.numel() != 1:
        raise Fault(f"the count is {_shape(count)}, no scalar tensor", advice)
    return total, int(count), dict(*more)


def _shape(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if torch.is_tensor(value) else f"a {type(value).__name__}"


def same(one: float, other: float, tolerance: float = ROUNDING) -> bool:
    """Whether two figures are equal but for rounding."""
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-6)


# --- of any batch ---


@check("recipe", "architecture")
def loss_is_a_sum(case: Case) -> None:
    """The loss of a batch is the sum of the losses of its examples, with and without gradients, never a mean."""
    _compare(case, case, "return the sum over all targets and never divide: only the runner does, once")


@check("recipe", "architecture")
def padding_does_not_matter(case: Case) -> None:
    """Examples of other lengths in the batch change neither the loss of an example nor its number of targets."""
    advice = (
        "label padding -100, count labels that are not -100, and see that the model gets attention_mask and heeds it:"
        " lmtasks.stack makes one"
    )
    _compare(case, case.ragged(), advice)


def _compare(case: Case, texts: Case, advice: str) -> None:
    """Refute that the loss of a batch is the sum of those of its examples."""
    model, collate = case.stirred(), texts.collate()
    examples = _of_all_lengths(texts)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            alone = [sums(case, model, collate([example])) for example in examples]
            total, count, _ = sums(case, model, collate(examples))
        expected, targets = sum(one[0].item() for one in alone), sum(one[1] for one in alone)
        when = "with gradients" if gradients else "in evaluation"
        if count != targets:
            raise Fault(f"{len(examples)} examples have {targets} targets, their batch {count} ({when})", advice)
        if not same(total.item(), expected):
            told = (
                f"the losses of {len(examples)} examples add up to {expected:.4f}, their batch has {total.item():.4f}"
            )
            raise Fault(f"{told} ({when})", advice)


def _of_all_lengths(case: Case) -> list[Any]:
    """Four examples, the shortest and the longest among them."""
    examples = sorted(case.examples(24), key=lambda example: len(example["input_ids"]))
    return [examples[0], examples[len(examples) // 3], examples[2 * len(examples) // 3], examples[-1]]


@check("recipe")
def count_is_that_of_the_targets(case: Case) -> None:
    """The number of targets that the loss returns is that of ``targets``, by which the runner divides."""
    for training in (True, False):
        batch = case.batch(training=training)
        with torch.no_grad():
            count = sums(case, case.model(), batch)[1]
        found = case.recipe.targets(batch)
        if found.dim() != 1:
            raise Fault(f"targets gives {_shape(found)}", "give the ids of the targets in one dimension")
        if found.numel() != count:
            raise Fault(
                f"the loss counts {count} targets, recipe.targets finds {found.numel()}",
                "let both count the same: labels that are not -100, or a `targets` of the recipe's own",
            )
        if not count:
            raise Fault("a batch of four whole blocks has no target", "see that the collator makes labels")


# --- against figures made here ---


@check("recipe", "architecture")
def loss_is_the_cross_entropy(case: Case) -> None:
    """Loss and gradient are those of the cross-entropy at all labels, computed here from the model's plain logits."""
    oracle = case.oracle or _cross_entropy_of(case)
    for texts in case.lengths():
        model, batch = case.stirred(), texts.collate()(_of_all_lengths(texts))
        total, count, _ = sums(case, model, batch)
        expected, targets = oracle(model, batch)
        if count != targets or not same(total.item(), expected.item()):
            raise Fault(
                f"the loss is {total.item():.4f} nats for {count} targets, it should be {expected.item():.4f}"
                f" for {targets}",
                "sum -log p over every label that is not -100, as lmtasks.token_sums does;"
                " a loss that is meant to be another needs check_recipe(oracle=...)",
            )
        if (apart := _apart(model, total, expected)) > 1e-3:
            raise Fault(
                f"the gradient of the loss is not that of its value: they differ by {apart:.1%}",
                "let the gradient flow through the whole loss: no detach, no scaling, no torch.no_grad",
            )


def _apart(model: torch.nn.Module, total: torch.Tensor, expected: torch.Tensor) -> float:
    """How far two gradients are apart, as a share of the second."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not total.requires_grad:
        return 1.0
    ours, theirs = (
        torch.cat(
            [part.flatten() for part in torch.autograd.grad(one, trained, allow_unused=True, materialize_grads=True)]
        )
        for one in (total, expected)
    )
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def plain_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """What the model itself says, [examples, length, vocabulary], in float32."""
    logits: torch.Tensor = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return logits.float()


def aligned(logits: torch.Tensor, labels: torch.Tensor, ahead: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the targets, where a logit speaks of its own position (0) or of the next (1)."""
    said, asked = logits[:, : logits.shape[1] - ahead], labels[:, ahead:]
    return said[asked != -100], asked[asked != -100]


def alignment(case: Case, model: torch.nn.Module, batch: Batch) -> int | None:
    """Whether the loss asks the logits for the label of their own position (0) or of the next (1), found by trying.

    None where it is neither.
    """
    with torch.no_grad():
        logits, labels = plain_logits(model, batch), batch["labels"]
        if logits.shape[:2] != labels.shape:
            return None
        total = float(sums(case, model, batch)[0])
        tried = [float(cross_entropy(*aligned(logits, labels, ahead), reduction="sum")) for ahead in (0, 1)]
    nearest = min((0, 1), key=lambda ahead: abs(tried[ahead] - total))
    return nearest if same(total, tried[nearest]) else None


def _cross_entropy_of(case: Case) -> Callable[[torch.nn.Module, Batch], tuple[torch.Tensor, int]]:
    """The sum over all labels, each asked of the position that the recipe asks."""

    def oracle(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
        logits, labels = plain_logits(model, batch), batch["labels"]
        if logits.shape[:2] != labels.shape:
            raise Fault(
                f"the labels are {list(labels.shape)}, the logits {list(logits.shape)}: there is no cross-entropy",
                "make one label for each logit, or say what is right: oracle=(model, batch) -> (sum, count)",
            )
        usual = 1 if case.recipe.attention == "causal" else 0
        found = alignment(case, model, batch)
        said, asked = aligned(logits, labels, usual if found is None else found)
        return cross_entropy(said, asked, reduction="sum"), len(asked)

    return oracle


@check("recipe")
def targets_are_the_text(case: Case) -> None:
    """What is asked of a position is the text's own token there, or the next one where the recipe is causal."""
    model = case.model()
    for training in (True, False):
        examples = case.examples(training=training)
        batch = case.collate(training)(examples)
        ahead = alignment(case, model, batch)
        if ahead is None:
            raise Inapplicable("the loss is no cross-entropy of labels at the logits' positions")
        asked = torch.full_like(batch["labels"], -100)
        asked[:, : asked.shape[1] - ahead] = batch["labels"][:, ahead:]
        right, what = _right_tokens(case, batch, examples)
        wrong = (asked != -100) & (right != -100) & (asked != right)
        if bool(wrong.any()):
            row, place = wrong.nonzero()[0].tolist()
            raise Fault(
                f"position {place} of an example is asked for token {int(asked[row, place])}, {what} is"
                f" {int(right[row, place])}",
                "shift once: either labels are the tokens of their own places and the loss looks ahead, as"
                " lmtasks.causal_loss does, or they are shifted and the loss does not",
            )


def _right_tokens(case: Case, batch: Batch, examples: list[Any]) -> tuple[torch.Tensor, str]:
    """What the logits of each position should say, -100 where nobody knows; and what that is."""
    ids: torch.Tensor = batch["decoder_input_ids" if "decoder_input_ids" in batch else "input_ids"]
    if ids.shape != batch["labels"].shape:
        raise Inapplicable("labels are not those of the input's positions")
    right = torch.full_like(ids, -100)
    if "decoder_input_ids" in batch or case.recipe.attention == "causal":
        right[:, :-1] = ids[:, 1:]
        return right, "the next token"
    if case.recipe.attention is None:
        raise Inapplicable("the recipe does not declare what a position may see")
    for row, example in zip(right, examples, strict=True):
        own = torch.as_tensor(example["input_ids"])
        row[: len(own)] = own
    return right, "its own token"


@check("recipe", "architecture")
def fast_head_is_the_plain_head(case: Case) -> str | None:
    """Where the head runs on targets only, loss, count and gradient stay those of the plain model."""
    model, batch = case.stirred(), case.batch()
    quick = case.stirred()
    if reason := separate_head(quick, {name: value for name, value in batch.items() if name != "labels"}):
        return f"{EVERYWHERE}: {reason}"
    results = []
    for one in (model, quick):
        total, count, _ = sums(case, one, batch)
        total.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in one.parameters() if parameter.requires_grad]
        whole = torch.cat([part.flatten() for part in gradients if part is not None])
        results.append((total.item(), count, whole))
    (plain, targets, theirs), (fast, count, ours) = results
    if count != targets or not same(plain, fast) or ours.shape != theirs.shape:
        raise Fault(
            f"with its head on the targets only, the model has a loss of {fast:.4f} for {count} targets,"
            f" otherwise {plain:.4f} for {targets}",
            "hand all of the batch but labels to the model, best through lmtasks.target_sums",
        )
    if float((ours - theirs).norm()) > 1e-3 * float(theirs.norm()):
        raise Fault(
            "with its head on the targets only, the model has another gradient",
            "compute logits from the hidden states alone; a head that looks at other positions or keeps state cannot",
        )
    return None


@check("recipe")
def label_smoothing_is_heeded_or_refused(case: Case) -> str | None:
    """``label_smoothing`` changes the gradient, and never the value; a loss that cannot says so before training."""
    batch, strength = case.batch(), 0.3
    arguments = training_arguments({"label_smoothing_factor": strength, "use_cpu": True}, case.folder / "smooth", 1)
    try:
        rehearse(case.model(), case.recipe, arguments, case.dataset(True), case.collate(), 1)
    except InputError as refusal:
        return f"refused: {refusal.message}"
    model = case.model()
    plain, _, _ = sums(case, model, batch)
    smoothed, _, _ = sums(case, model, {**batch, "label_smoothing": strength})
    if not same(plain.item(), smoothed.item()):
        raise Fault(
            f"label smoothing changes the loss that is published, {plain.item():.4f} to {smoothed.item():.4f}",
            "let it change the gradient only, as lmtasks.token_sums does: smoothed figures compare with no others",
        )
    ahead = None if case.oracle else alignment(case, model, batch)
    if ahead is None:
        return None
    expected = cross_entropy(
        *aligned(plain_logits(model, batch), batch["labels"], ahead), reduction="sum", label_smoothing=strength
    )
    if (apart := _apart(model, smoothed, expected)) > 1e-3:
        raise Fault(
            f"the gradient with label smoothing is not that of the smoothed cross-entropy: they differ by {apart:.1%}",
            "pass batch['label_smoothing'] on to lmtasks.token_sums or target_sums",
        )
    return None


@check("recipe")
def metrics_get_their_sums(case: Case) -> None:
    """Every metric exists, and every sum that it asks for is one that the loss gives, and adds up over batches."""
    model, collate = case.stirred(), case.collate(training=False)
    examples = case.examples(4, training=False)
    with torch.no_grad():
        _, _, together = sums(case, model, collate(examples))
        alone = [sums(case, model, collate([example]))[2] for example in examples]
    given = {"loss", "targets", *together}
    for reference in case.recipe.metrics:
        wanted = set(resolve(reference)(keep_in_memory=True).features)
        if missing := sorted(wanted - given):
            raise Fault(
                f"{reference} wants {', '.join(missing)}, the loss gives {', '.join(sorted(given))}",
                f"return it as a third item: {{'{missing[0]}': sum}}; or take the metric out of `metrics`",
            )
    for name, value in together.items():
        parts = [float(one.get(name, math.nan)) for one in alone]
        if not same(float(value), sum(parts)):
            raise Fault(
                f"'{name}' is {float(value):.4f} for a batch whose examples have {sum(parts):.4f} together",
                "return sums over the batch, never means",
            )


def still(model: PreTrainedModel) -> PreTrainedModel:
    """The model, kept in its mode whatever is said to it: without dropout, steps can be compared."""
    model.train = lambda mode=True: model
    return model
