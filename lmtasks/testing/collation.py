"""Checks of how text becomes batches: nothing lost, nothing seen that should be told, the same every time."""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

from lmtasks.api import Batch, BlockOptions, Blocks, Example, options_of, target_ids
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import Packed
from lmtasks.errors import InputError
from lmtasks.testing.case import Case
from lmtasks.testing.proof import Fault, Inapplicable, check
from lmtasks.testing.set_up import chance_kept

TOKENS = ("input_ids", "labels", "decoder_input_ids")
"""Where a batch has tokens of the text."""


# --- text ---


@check("recipe", of="preprocess")
def blocks_have_the_size_that_was_asked_for(case: Case) -> None:
    """``preprocess`` gives Blocks, and no example, special tokens included, is longer than ``block_size``."""
    options = case.request.options
    blocks = case.recipe.preprocess(case.tokenizer(), options)
    if not isinstance(blocks, Blocks):
        raise Fault(f"preprocess gives {type(blocks).__name__}", "return lmtasks.Blocks, best options.blocks(...)")
    if not isinstance(options, BlockOptions):
        return
    for collate, examples in case.splits(8):
        longest = collate(examples)["input_ids"].shape[1]
        if longest > options.block_size:
            raise Fault(
                f"examples have {longest} tokens in a batch, block_size is {options.block_size}",
                "take the size from options.block_size, and leave room in it for what the collator adds",
            )


@check(
    "recipe",
    advice="put all of them into input_ids or labels; shorten in preprocess, never in the collator",
    of="collator",
)
def tokens_are_kept(case: Case) -> None:
    """Every token of an example is in its batch, as input or as label; none is cut off."""
    for collate, examples in case.splits():
        for example in examples:
            ids = _all_different(case, example)
            batch = collate([{**example, "input_ids": ids}])
            there = Counter(token for name in TOKENS if name in batch for token in batch[name].flatten().tolist())
            if lost := Counter(ids.tolist()) - there:
                raise Fault(f"{lost.total()} of the {len(ids)} tokens of an example are not in its batch")


def _all_different(case: Case, example: Example) -> np.ndarray[Any, Any]:
    """As many ids as the example has, among which no token of the text comes twice."""
    ids, blocks = example["input_ids"], case.packed(True).blocks
    words = np.setdiff1d(np.arange(len(case.tokenizer())), case.tokenizer().all_special_ids)
    body = np.random.default_rng(example["seed"]).permutation(words)[: len(ids) - blocks.size + blocks.body]
    return np.concatenate([blocks.start, body, blocks.end]).astype(ids.dtype)


@check("recipe", of="views")
def views_score_every_token_once(case: Case) -> str:
    """Each way of cutting the evaluation text scores each of its tokens once, and targets these and nothing else."""
    told = []
    for options in _options_with_views(case):
        texts = options.packed(False)
        for name, blocks in options.recipe.views(options.tokenizer(), options.request.options).items():
            recut = ExampleDataset(texts.recut(blocks), 0)
            examples = [recut[number] for number in range(len(recut))]
            scored = sum(_scored_tokens(example, blocks) for example in examples)
            # Blocks that are no view have all tokens of the stream, those around documents as well.
            count = _tokens_of_text(texts, blocks) if "scored" in examples[0] else texts.seen
            if scored != count:
                raise Fault(
                    f"the view '{name}' scores {scored} of {count} tokens",
                    "let `stride` be at most the tokens of a block, and refuse others with InputError in `views`",
                )
            _require_scored_only(options, name, [example for example in examples if "scored" in example][:8])
            told.append(name)
    if not told:
        raise Inapplicable("the recipe has no views")
    return ", ".join(dict.fromkeys(told))


def _scored_tokens(example: Example, blocks: Blocks) -> int:
    """How many tokens of the text an example may have as targets."""
    first, last = len(blocks.start), len(example["input_ids"]) - len(blocks.end)
    return int(example["scored"][first:last].sum()) if "scored" in example else last - first


def _tokens_of_text(texts: Packed, blocks: Blocks) -> int:
    """How many tokens the documents themselves have, without what is around them."""
    end, count = texts.seen, 0
    for begin, stop in itertools.pairwise([*texts.stream.documents.tolist(), texts.tokens]):
        count += max(0, min(stop - len(blocks.document_end), end) - begin - len(blocks.document_start))
    return count


def _require_scored_only(case: Case, view: str, examples: list[Example]) -> None:
    for number, example in enumerate(examples):
        labels = case.collate(False)([example])["labels"][0]
        outside = labels.clone()
        outside[example["scored"]] = -100
        if len(labels) == len(example["input_ids"]) and bool((outside != -100).any()):
            raise Fault(
                f"in the view '{view}' tokens are targets that example['scored'] does not have",
                "label only example['scored'] where an example has it: the others are context, and scored elsewhere",
            )
        # The first token of a text may have nothing before it; the first that a later block scores always has.
        if number and len(labels) == len(example["input_ids"]) and not _told(case, example, labels):
            raise Fault(
                f"in the view '{view}' the first token that a block scores is no target",
                "let blocks overlap where a target needs a token before it: refuse a wider `stride` in `views`",
            )


def _told(case: Case, example: Example, labels: torch.Tensor) -> bool:
    """Whether the first token that an example scores is a target, if the recipe makes it one anywhere."""
    places, blocks = np.flatnonzero(example["scored"])[:1], case.packed(False).blocks
    ids = example["input_ids"][places]
    isolated = "document_ids" in example and bool(np.diff(example["document_ids"], prepend=-1)[places].any())
    return isolated or not len(places) or ids[0] in blocks.never_targets or bool((labels[places] != -100).all())


def _options_with_views(case: Case) -> Iterator[Case]:
    """The case with each option that asks for views of its own."""
    block = getattr(case.request.options, "block_size", 32)
    tries: list[dict[str, Any]] = [{}]
    for name, option in options_of(case.recipe.options).items():
        if option.is_switch:
            tries.append({name: True})
        elif int in option.alternatives:
            tries += [{name: block // 2}, {name: block}, {name: block + block // 2}]
    for values in tries:
        with contextlib.suppress(Inapplicable, InputError):
            other = case.having(**values)
            if other.recipe.views(other.tokenizer(), other.request.options):
                yield other


# --- repeatable ---


@check("recipe", advice="work on copies: {**example, ...}, ids.copy()", of="collator")
def examples_stay_as_they_are(case: Case) -> None:
    """Collating examples changes none of them: they are used again in the next epoch."""
    for collate, examples in case.splits():
        before = copy.deepcopy(examples)
        collate(examples)
        changed = [differing(one, other) for one, other in zip(before, examples, strict=True)]
        if name := next(filter(None, changed), None):
            raise Fault(f"the collator changes '{name}' of its examples")


@check("recipe", of="collator")
def batches_are_repeatable(case: Case) -> None:
    """The same examples make the same batch, bit for bit, whatever was drawn before, and at any time of day."""
    _require_repeatable(case, training=True)


@check("recipe", of="collator")
def evaluation_is_fixed(case: Case) -> None:
    """In evaluation the same examples make the same batch every time, so figures can be compared."""
    _require_repeatable(case, training=False)


def _require_repeatable(case: Case, *, training: bool) -> None:
    examples, collate = case.examples(training=training), case.collate(training)
    with _elsewhere(1):
        first = collate(copy.deepcopy(examples))
    for what, again in (("a second time", collate), ("with a new collator", case.collate(training))):
        with _elsewhere(2):
            second = again(copy.deepcopy(examples))
        if name := differing(first, second):
            raise Fault(
                f"the same examples collated {what} have another '{name}'",
                "draw only from numpy.random.default_rng(example['seed']): not from global generators, the clock,"
                " or anything that the collator keeps from call to call",
            )


@contextlib.contextmanager
def _elsewhere(seed: int) -> Iterator[None]:
    """Another state of every global generator, another time, and both as they were afterwards."""
    now, now_ns, later = time.time, time.time_ns, seed * 86_400
    with chance_kept(), mock.patch.multiple(time, time=lambda: now() + later, time_ns=lambda: now_ns() + later):
        for reseed in (random.seed, np.random.seed, torch.manual_seed):
            reseed(seed)
        yield


def differing(one: Batch, other: Batch) -> str | None:
    """The first thing in which two batches, or two examples, differ."""
    if one.keys() != other.keys():
        return min(one.keys() ^ other.keys())
    return next((name for name, value in one.items() if not _equal(value, other[name])), None)


def _equal(one: Any, other: Any) -> bool:
    if torch.is_tensor(one) and torch.is_tensor(other):
        return torch.equal(one, other)
    return np.array_equal(one, other) if np.ndarray in (type(one), type(other)) else bool(one == other)


@check("recipe", advice="give all of example['seed'] to numpy.random.default_rng, not a part of it", of="collator")
def epochs_differ(case: Case) -> str:
    """Where training draws anything, every epoch, every seed of a run and every example draws otherwise."""
    collate, examples = case.collate(), case.examples(8)
    first = collate(examples)
    steps = {"seed of the run": (1, 0, 0), "epoch": (0, 1, 0), "number of the example": (0, 0, 1000)}
    moved = {
        name: differing(first, collate([{**one, "seed": (np.array(one["seed"]) + step).tolist()} for one in examples]))
        for name, step in steps.items()
    }
    if not any(moved.values()):
        return "nothing is drawn"
    if idle := [name for name, change in moved.items() if not change]:
        raise Fault(f"what is drawn does not depend on the {idle[0]}")
    return "epoch, seed and example are drawn from"


@check(
    "recipe",
    advice="make each example from its own ids, length and seed; pad on the right, like lmtasks.stack",
    of="collator",
)
def neighbours_do_not_matter(case: Case) -> None:
    """An example is collated alike alone and in company, in whatever order, up to its padding."""
    for texts in case.lengths():
        for collate, examples in texts.splits(6):
            together, turned = collate(examples), collate(examples[::-1])
            for row, example in enumerate(examples):
                alone = collate([example])
                if name := _differing_row(alone, together, row) or _differing_row(alone, turned, -1 - row):
                    raise Fault(f"'{name}' of an example depends on the examples beside it")


def _differing_row(alone: Batch, batch: Batch, row: int) -> str | None:
    """The first thing that a row of a batch has otherwise than the example has on its own; padding does not count."""
    for name, value in batch.items():
        if not torch.is_tensor(value) or not value.dim():
            continue
        expected = alone.get(name)
        if expected is None and name.endswith("attention_mask"):
            # It comes with padding only; of the example itself it says yes everywhere.
            expected = torch.ones_like(alone["input_ids"])
        if expected is None:
            return name
        if not torch.equal(value[row][tuple(slice(size) for size in expected.shape[1:])], expected[0]):
            return name
    return min(alone.keys() - batch.keys(), default=None)


# --- targets ---


@check("recipe", of="collator")
def padding_is_no_target(case: Case) -> None:
    """Where examples are padded, the label is -100."""
    for collate, examples in case.ragged().splits(6):
        batch = collate(examples)
        mask, labels = batch.get("attention_mask"), batch["labels"]
        if mask is None:
            raise Fault(
                "examples of several lengths have no attention_mask in their batch",
                "collate with lmtasks.stack, and keep its attention_mask",
            )
        if mask.shape == labels.shape and bool((labels[mask == 0] != -100).any()):
            raise Fault("padding has labels", "set labels to -100 where attention_mask is 0")


@check("recipe", advice="label no position whose token is in tokenizer.all_special_ids", of="collator")
def special_tokens_are_no_targets(case: Case) -> None:
    """A model that sees both sides is never asked for a special token: it could tell by the place alone."""
    if case.recipe.attention != "bidirectional":
        raise Inapplicable("only where positions see both sides; elsewhere the end of a document is learned")
    special = set(case.tokenizer().all_special_ids)
    for collate, examples in case.splits(16):
        ids = target_ids(case.recipe.targets(collate(examples)))
        if ids is None:
            raise Inapplicable("`targets` counts the targets, and does not say which they are")
        if asked := special.intersection(ids.tolist()):
            tokens = case.tokenizer().convert_ids_to_tokens(sorted(asked))
            raise Fault(f"special tokens are targets: {', '.join(tokens)}")


@check("recipe", advice="put tokenizer.mask_token_id into input_ids where there is a label", of="collator")
def answers_are_hidden(case: Case) -> None:
    """A model that sees both sides does not find its targets in its input, but for a small share."""
    if case.recipe.attention != "bidirectional":
        raise Inapplicable("only where positions see both sides")
    for collate, examples in case.splits(16):
        batch = collate(examples)
        if batch["labels"].shape != batch["input_ids"].shape:
            raise Inapplicable("labels are not those of the input's positions")
        asked = batch["labels"] != -100
        seen = float((batch["input_ids"][asked] == batch["labels"][asked]).float().mean())
        if seen > 0.5:
            raise Fault(f"{seen:.0%} of the targets stand in the input as they are")
