"""masked-lm: what is hidden, how often, and that it depends on the example alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions, answers, hide, perplexity_name, prompt

SPECIAL = np.array([0, 1, 2, 3, 4])
WORDS = np.arange(5, 100)
MASK = 4


def hidden(ids: Any, seed: tuple[int, int, int] = (0, 0, 0), probability: float = 0.15) -> tuple[list[int], list[int]]:
    inputs, labels = hide({"input_ids": np.asarray(ids), "seed": seed}, probability, SPECIAL, WORDS, MASK)
    return inputs.tolist(), labels.tolist()


TEXT = [0, *range(5, 69), 2]


def test_same_seed_gives_the_same_masks() -> None:
    assert hidden(TEXT, (7, 3, 11)) == hidden(TEXT, (7, 3, 11))


def test_masks_of_a_seed_are_pinned() -> None:
    """What a resumed or repeated run relies on: the draw itself, and not only that it repeats in this process."""
    draw = np.random.default_rng((7, 3, 11))
    chance = draw.random(len(TEXT))
    expected = [place for place in range(1, len(TEXT) - 1) if chance[place] < 0.15]
    _, labels = hidden(TEXT, (7, 3, 11))
    assert [place for place, label in enumerate(labels) if label != -100] == expected
    assert len(expected) > 3


@pytest.mark.parametrize("other", [(8, 3, 11), (7, 4, 11), (7, 3, 12), (3, 7, 11)])
def test_other_seed_epoch_or_example_gives_other_masks(other: tuple[int, int, int]) -> None:
    assert hidden(TEXT, (7, 3, 11))[1] != hidden(TEXT, other)[1]


def test_labels_are_the_hidden_tokens_and_nothing_else() -> None:
    inputs, labels = hidden(TEXT, (1, 2, 3), probability=0.5)
    assert any(label == -100 for label in labels[1:-1])
    for original, shown, label in zip(TEXT, inputs, labels, strict=True):
        assert label in (original, -100)
        if label == -100:
            assert shown == original


def binomial(successes: int, trials: int, probability: float) -> bool:
    """Whether so many are within five standard deviations: fails once in two million for a right program."""
    return abs(successes - trials * probability) < 5 * math.sqrt(trials * probability * (1 - probability))


def test_shares_are_those_of_bert() -> None:
    ids = np.full(400_000, 50)
    inputs, labels = hide({"input_ids": ids, "seed": (0, 0, 0)}, 0.15, SPECIAL, WORDS, MASK)
    target = labels != -100
    count = int(target.sum())
    masked, kept = int((inputs[target] == MASK).sum()), int((inputs[target] == 50).sum())
    assert binomial(count, len(ids), 0.15)
    assert binomial(masked, count, 0.8)
    assert binomial(kept, count, 0.1 + 0.1 / len(WORDS)), "kept, or replaced by itself"
    assert binomial(count - masked - kept, count, 0.1 * (1 - 1 / len(WORDS)))
    assert (inputs[~target] == 50).all()


def test_replacements_are_spread_over_all_words_and_no_special_token() -> None:
    ids = np.full(400_000, 50)
    inputs, labels = hide({"input_ids": ids, "seed": (0, 0, 0)}, 0.5, SPECIAL, WORDS, MASK)
    drawn = inputs[(labels != -100) & (inputs != MASK) & (inputs != 50)]
    counts = np.bincount(drawn, minlength=100)
    assert counts[SPECIAL].sum() == 0
    assert all(binomial(int(counts[word]), int(counts.sum()), 1 / (len(WORDS) - 1)) for word in WORDS if word != 50)


@given(
    ids=st.lists(st.integers(0, 99), min_size=1, max_size=40),
    seed=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 99), st.integers(0, 10**9)),
    probability=st.floats(1e-300, 0.9999),
)
@settings(max_examples=200, deadline=None)
def test_there_is_always_a_target_and_never_a_special_one(
    ids: list[int], seed: tuple[int, int, int], probability: float
) -> None:
    inputs, labels = hidden(ids, seed, probability)
    targets = [original for original, label in zip(ids, labels, strict=True) if label != -100]
    assert not set(targets) & set(SPECIAL.tolist())
    assert bool(targets) == bool(set(ids) - set(SPECIAL.tolist()))
    assert all(shown == original for original, shown in zip(ids, inputs, strict=True) if original in SPECIAL)


def test_tiny_probability_hides_exactly_one() -> None:
    _, labels = hidden(TEXT, (0, 0, 0), 1e-12)
    assert sum(label != -100 for label in labels) == 1


# --- the collator ---


def collated(tokenizer: PreTrainedTokenizerBase, examples: list[dict[str, Any]], **how: Any) -> dict[str, torch.Tensor]:
    training = how.pop("training", True)
    return MASKED_LM.collator(tokenizer, MaskedLMOptions(**how), training)(examples)


def an_example(number: int, length: int = 30) -> dict[str, Any]:
    return {"input_ids": np.arange(300, 300 + length, dtype=np.int32), "seed": (1, 0, number)}


def test_example_is_hidden_the_same_in_any_company(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    alone = collated(masked_tokenizer, [an_example(5)])
    among = collated(masked_tokenizer, [an_example(3), an_example(5), an_example(9, 40)])
    for name in ("input_ids", "labels"):
        assert among[name][1, :30].tolist() == alone[name][0].tolist()
    assert among["labels"][0].tolist() != among["labels"][1].tolist()


def test_padding_is_padded_and_no_target(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    batch = collated(masked_tokenizer, [an_example(0, 30), an_example(1, 20)])
    assert batch["input_ids"][1, 20:].tolist() == [masked_tokenizer.pad_token_id] * 10
    assert batch["labels"][1, 20:].tolist() == [-100] * 10
    assert batch["attention_mask"].sum(1).tolist() == [30, 20]


def test_special_tokens_are_neither_hidden_nor_drawn(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    special = masked_tokenizer.all_special_ids
    example = {"input_ids": np.array([*special, *range(100, 140)] * 50, np.int32), "seed": (0, 0, 0)}
    batch = collated(masked_tokenizer, [example], mlm_probability=0.9)
    before, after, labels = torch.tensor(example["input_ids"]), batch["input_ids"][0], batch["labels"][0]
    assert (labels[torch.isin(before, torch.tensor(special))] == -100).all()
    replaced = after[(labels != -100) & (after != masked_tokenizer.mask_token_id) & (after != before)]
    assert len(replaced) > 100
    assert not torch.isin(replaced, torch.tensor(special)).any()
    assert int(replaced.max()) < len(masked_tokenizer)


def test_evaluation_has_a_share_of_its_own(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    examples = [{"input_ids": np.full(5000, 300, np.int32), "seed": (0, 0, 0)}]
    shares = {"mlm_probability": 0.5, "eval_mlm_probability": 0.1}
    train = (collated(masked_tokenizer, examples, **shares)["labels"] != -100).sum().item()
    evaluation = (collated(masked_tokenizer, examples, training=False, **shares)["labels"] != -100).sum().item()
    assert binomial(train, 5000, 0.5)
    assert binomial(evaluation, 5000, 0.1)


def test_global_random_state_is_neither_read_nor_changed(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = collated(masked_tokenizer, [an_example(0)])
    after = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    np.random.seed(1)
    torch.manual_seed(1)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == after
    np.random.seed(2)
    torch.manual_seed(2)
    assert collated(masked_tokenizer, [an_example(0)])["input_ids"].tolist() == first["input_ids"].tolist()


# --- the rest of the declaration ---


def test_blocks_wear_the_tokenizers_frame_once(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    blocks = MASKED_LM.preprocess(masked_tokenizer, MaskedLMOptions(block_size=64))
    assert (blocks.size, blocks.body) == (64, 62)
    assert (blocks.start, blocks.end) == ((masked_tokenizer.cls_token_id,), (masked_tokenizer.sep_token_id,))
    assert (blocks.document_start, blocks.document_end) == ((), ())


def test_either_common_mask_becomes_the_tokenizers_own(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    assert prompt(masked_tokenizer, "a [MASK] b <mask>") == "a <mask> b <mask>"


def test_perplexity_is_named_after_what_it_is() -> None:
    name = perplexity_name(MaskedLMOptions(eval_mlm_probability=0.3))
    assert name.startswith("masked-token perplexity")
    assert "30%" in name


def test_answers_of_one_mask_show_probability_token_and_text() -> None:
    guess = {"score": 0.25, "token": 1, "token_str": " list", "sequence": "a  list\nof"}
    assert answers([guess]) == [" 25.0%  list             a list of"]


def test_answers_of_several_masks_are_told_mask_by_mask() -> None:
    guess = {"score": 0.5, "token": 1, "token_str": "\n", "sequence": "x"}
    assert answers([[guess], [guess]]) == ["mask 1", " 50.0%  '\\n'", "mask 2", " 50.0%  '\\n'"]
