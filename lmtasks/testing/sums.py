"""Checks of the loss: a sum and a count, of the right thing, whatever it is batched with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from lmtasks.api import Batch, LossTerm, of_term, resolve
from lmtasks.config.training_arguments import training_arguments
from lmtasks.errors import InputError
from lmtasks.models.lm_head import EVERYWHERE, separate_head
from lmtasks.testing.case import Case, inputs_of
from lmtasks.testing.proof import Fault, Inapplicable, check
from lmtasks.testing.terms import added, same, sums, terms
from lmtasks.testing.training import training_of
from lmtasks.training.rehearsal import rehearse

# --- of any batch ---


@check("recipe", "architecture", of="loss")
def loss_is_a_sum(case: Case) -> None:
    """The loss of a batch is the sum of the losses of its examples, with and without gradients, never a mean."""
    _compare(case, case, "return the sum over all targets and never divide: only the runner does, once")


@check("recipe", "architecture", of="loss")
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
            alone = [terms(case, model, collate([example]))[0] for example in examples]
            together, _ = terms(case, model, collate(examples))
        when = "with gradients" if gradients else "in evaluation"
        for name, term in together.items():
            if lost := [one for one in alone if name not in one]:
                raise Fault(f"{len(lost)} of {len(examples)} examples have no loss{of_term(name)} ({when})", advice)
            total, count = term.sum.item(), int(term.count)
            expected, targets = (sum(getattr(one[name], of).item() for one in alone) for of in ("sum", "count"))
            if count != targets:
                told = f"{len(examples)} examples have {targets:.0f} targets{of_term(name)}"
                raise Fault(f"{told}, their batch {count} ({when})", advice)
            if not same(total, expected):
                told = f"the losses{of_term(name)} of {len(examples)} examples add up to {expected:.4f}"
                raise Fault(f"{told}, their batch has {total:.4f} ({when})", advice)


def _of_all_lengths(case: Case) -> list[Any]:
    """Four examples, the shortest and the longest among them."""
    examples = sorted(case.examples(24), key=lambda example: len(example["input_ids"]))
    return [examples[0], examples[len(examples) // 3], examples[2 * len(examples) // 3], examples[-1]]


# --- against figures made here ---


@check("recipe", "architecture", of="loss")
def loss_is_the_cross_entropy(case: Case) -> str | None:
    """Loss and gradient are those of the cross-entropy at all labels, computed here from the model's plain logits.

    Where the loss has terms, that is the first; an oracle may say what is right of each.
    """
    oracle, untold = case.oracle or partial(_cross_entropy, case), ""
    for texts in case.lengths():
        model, batch = case.stirred(), texts.collate()(_of_all_lengths(texts))
        found, _ = terms(case, model, batch)
        right = oracle(model, batch)
        told = right if isinstance(right, Mapping) else {next(iter(found)): right}
        if strange := [name for name in told if name not in found]:
            raise Fault(f"the oracle tells of '{strange[0]}', the loss has {', '.join(found)}", "name the same terms")
        for name, (expected, targets) in told.items():
            _require_right(model, name, found[name], expected, targets)
        untold = ", ".join(name for name in found if name not in told)
    return f"nothing says what is right of {untold}: oracle=..." if untold else None


def _require_right(model: torch.nn.Module, name: str, term: LossTerm, expected: torch.Tensor, targets: int) -> None:
    total, count = term.sum, int(term.count)
    if name and term.weight != 1 and count == targets and same(total.item(), term.weight * expected.item()):
        raise Fault(
            f"the sum{of_term(name)} is {total.item():.4f}, its weight of {term.weight} times what it should be",
            "leave the weight out of the sum: the runner multiplies the mean by it, once",
        )
    if count != targets or not same(total.item(), expected.item()):
        raise Fault(
            f"the loss{of_term(name)} is {total.item():.4f} nats for {count} targets,"
            f" it should be {expected.item():.4f} for {targets}",
            "sum -log p over every label that is not -100, as lmtasks.token_sums does;"
            " a loss that is meant to be another needs check_recipe(oracle=...)",
        )
    if (difference := _gradients_apart(model, total, expected)) > 1e-3:
        raise Fault(
            f"the gradient of the loss{of_term(name)} is not that of its value: they differ by {difference:.1%}",
            "let the gradient flow through the whole loss: no detach, no scaling, no torch.no_grad",
        )


def _gradients_apart(model: torch.nn.Module, total: torch.Tensor, expected: torch.Tensor) -> float:
    """How far the gradients of two figures are apart, as a share of the second."""
    return apart(_gradient(model, total), _gradient(model, expected)) if total.requires_grad else 1.0


def _gradient(model: torch.nn.Module, total: torch.Tensor) -> torch.Tensor:
    """The gradient of a figure at all parameters that are trained, as one vector."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.zero_grad()
    total.backward(retain_graph=True)  # type: ignore[no-untyped-call]  # terms may share a part of it
    return vector(torch.zeros_like(one) if one.grad is None else one.grad for one in trained)


def vector(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """All numbers in a row."""
    return torch.cat([part.detach().flatten() for part in parts])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two vectors are apart, as a share of the second."""
    return float((one - other).norm() / other.norm().clamp(min=1e-12))


def plain_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The model's own logits, [examples, length, vocabulary], in float32."""
    logits: torch.Tensor = model(**inputs_of(batch)).logits
    return logits.float()


def _cross_entropy_at(logits: torch.Tensor, labels: torch.Tensor, ahead: int, smoothing: float = 0.0) -> torch.Tensor:
    """The sum over all labels, where a logit speaks of its own position (0) or of the next (1).

    Logits [examples, classes] speak of whole examples.
    """
    said, asked = (logits[:, :-1], labels[:, 1:]) if ahead else (logits, labels)
    wanted = asked != -100  # elsewhere logits may be no numbers
    return cross_entropy(said[wanted], asked[wanted], reduction="sum", label_smoothing=smoothing)


def alignment(case: Case, model: torch.nn.Module, batch: Batch) -> int | None:
    """Whether the loss asks the logits for the label of their own position (0) or of the next (1), found by trying.

    None where it is neither.
    """
    with torch.no_grad():
        logits, labels = plain_logits(model, batch), batch["labels"]
        if logits.shape[:-1] != labels.shape:
            return None
        total = float(sums(case, model, batch)[0])
        tried = [float(_cross_entropy_at(logits, labels, ahead)) for ahead in range(labels.ndim)]
    nearest = min(range(len(tried)), key=lambda ahead: abs(tried[ahead] - total))
    return nearest if same(total, tried[nearest]) else None


def _cross_entropy(case: Case, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
    """The sum over all labels, each asked of the position that the recipe asks."""
    logits, labels = plain_logits(model, batch), batch["labels"]
    if logits.shape[:-1] != labels.shape:
        raise Fault(
            f"the labels are {list(labels.shape)}, the logits {list(logits.shape)}: there is no cross-entropy",
            "make one label for each logit, or say what is right: oracle=(model, batch) -> (sum, count)",
        )
    ahead = alignment(case, model, batch)
    if ahead is None:
        ahead = 1 if case.recipe.attention == "causal" else 0
    return _cross_entropy_at(logits, labels, ahead), int((labels[..., ahead:] != -100).sum())


@check(
    "recipe",
    advice="leave out what stays when the model is right; where it belongs to the loss,"
    " skip={'loss-has-no-floor': 'why'}",
    of="loss",
)
def loss_has_no_floor(case: Case) -> None:
    """Where the model is sure of every label, and right, the loss is zero: no number that nothing learned can lower.

    Where the loss has terms, that is the first.
    """
    model, batch = case.model(), case.batch()
    # The loss may look at the label of the next position, whatever the recipe declares: the lower of both is its floor.
    # Who is asked for the very token that is seen has nothing to predict, so then it has to be the next.
    found = [_when_sure(case, model, batch, ahead) for ahead in range(_repeats(batch), min(batch["labels"].ndim, 2))]
    name, mean = min(found, key=lambda one: abs(one[1]))
    if abs(mean) > 1e-3:
        what = "no model can lower it further" if mean > 0 else "no cross-entropy is below zero"
        raise Fault(f"with every label known for certain the loss{of_term(name)} is {mean:.4f} a target: {what}")


def _repeats(batch: Batch) -> bool:
    """Whether each label is the token at its own position."""
    labels, ids = batch["labels"], batch.get("input_ids")
    return ids is not None and ids.shape == labels.shape and bool((labels == ids)[labels != -100].all())


def _when_sure(case: Case, model: PreTrainedModel, batch: Batch, ahead: int) -> tuple[str, float]:
    """Name and mean of the first term where the model is sure of every label."""

    def sure(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        outputs.logits = _sure_logits(outputs.logits, batch["labels"], ahead)

    with model.register_forward_hook(sure), torch.no_grad():
        found, _ = terms(case, model, batch)
    name, term = next(iter(found.items()))
    return name, term.sum.item() / max(int(term.count), 1)


def _sure_logits(logits: torch.Tensor, labels: torch.Tensor, ahead: int) -> torch.Tensor:
    """Logits of the same shape that give each label a probability of 1, and whose normaliser is 1."""
    if logits.shape[:-1] != labels.shape:
        raise Inapplicable("labels are not those of the logits' positions")
    asked = labels.roll(-1, dims=1) if ahead else labels
    return torch.full_like(logits, -100.0).scatter(-1, asked.clamp(min=0)[..., None], 0.0)


@check(
    "recipe",
    advice="shift once: either labels are the tokens of their own places and the loss looks ahead, as"
    " lmtasks.causal_loss does, or they are shifted and the loss does not",
    of="loss",
)
def targets_are_the_text(case: Case) -> None:
    """The target of a position is the text's own token there, or the next one where the recipe is causal."""
    model = case.model()
    for collate, examples in case.splits():
        batch = collate(examples)
        ahead = alignment(case, model, batch)
        if ahead is None:
            raise Inapplicable("the loss is no cross-entropy of labels at the logits' positions")
        right, what = _right_tokens(case, batch, examples)
        asked = torch.full_like(batch["labels"], -100)
        asked[:, : asked.shape[1] - ahead] = batch["labels"][:, ahead:]
        wrong = (asked != -100) & (right != -100) & (asked != right)
        if bool(wrong.any()):
            row, place = wrong.nonzero()[0].tolist()
            raise Fault(
                f"position {place} of an example is asked for token {int(asked[row, place])}, {what} is"
                f" {int(right[row, place])}"
            )


def _right_tokens(case: Case, batch: Batch, examples: list[Any]) -> tuple[torch.Tensor, str]:
    """The token that each position should be asked for, -100 where nobody knows; and what that is called."""
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


@check("recipe", "architecture", of="loss")
def fast_head_is_the_plain_head(case: Case) -> str | None:
    """Where the head runs on targets only, loss, count and gradient stay those of the plain model."""
    model, quick, batch = case.stirred(), case.stirred(), case.batch()
    if reason := separate_head(quick, inputs_of(batch)):
        return f"{EVERYWHERE}: {reason}"
    (plain, _), (fast, _) = (terms(case, one, batch) for one in (model, quick))
    for name, term in plain.items():
        total, count = fast[name].sum.item(), int(fast[name].count)
        if count != int(term.count) or not same(term.sum.item(), total):
            raise Fault(
                f"with its head on the targets only, the model has a loss{of_term(name)} of {total:.4f} for {count}"
                f" targets, otherwise {term.sum.item():.4f} for {int(term.count)}",
                "hand all of the batch but labels to the model, best through lmtasks.target_sums",
            )
    if apart(_gradient(quick, added(fast)), _gradient(model, added(plain))) > 1e-3:
        raise Fault(
            "with its head on the targets only, the model has another gradient",
            "compute logits from the hidden states alone; a head that looks at other positions or keeps state cannot",
        )
    return None


@check("recipe", of="loss")
def label_smoothing_is_heeded_or_refused(case: Case) -> str | None:
    """``label_smoothing`` changes the gradient, and never the value; a loss that cannot says so before training."""
    batch, strength = case.batch(), 0.3
    arguments = training_arguments({"label_smoothing_factor": strength, "use_cpu": True}, case.folder / "smooth", 1)
    try:
        rehearse(training_of(case, arguments))
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
    if case.oracle is None and (ahead := alignment(case, model, batch)) is not None:
        expected = _cross_entropy_at(plain_logits(model, batch), batch["labels"], ahead, strength)
        if (difference := _gradients_apart(model, smoothed, expected)) > 1e-3:
            raise Fault(
                "the gradient with label smoothing is not that of the smoothed cross-entropy:"
                f" they differ by {difference:.1%}",
                "pass batch['label_smoothing'] on to lmtasks.token_sums or target_sums",
            )
    return None


@check("recipe", of="loss")
def metrics_get_their_sums(case: Case) -> None:
    """Every metric exists, and every sum that it asks for is one that the loss gives, and adds up over batches."""
    model, (_, (collate, examples)) = case.stirred(), case.splits()
    with torch.no_grad():
        named, together = terms(case, model, collate(examples))
        alone = [sums(case, model, collate([example]))[2] for example in examples]
    of_terms = {f"{name}_{what}" for name in named if name for what in ("loss", "targets")}
    given = {"loss", "targets", *of_terms, *together}
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
