"""Words: the same ones for every tokenizer, because the text says where they begin."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks import InputError
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions, hide
from lmtasks.data.corpus import Split
from lmtasks.data.sample import sample_documents
from lmtasks.data.text.encode import encode
from lmtasks.data.text.packing import Packed
from lmtasks.data.text.word_boundaries import word_starts

TEXTS = {
    "Hello, world! It's (really) fine.": ["Hello", ",", "world", "!", "It's", "(", "really", ")", "fine", "."],
    "unbelievable, unbelievably naïve cafés": ["unbelievable", ",", "unbelievably", "naïve", "cafés"],
    "我喜欢学习中文。": list("我喜欢学习中文。"),
    "日本語を学ぶ、毎日。": list("日本語を学ぶ、毎日。"),
    "ภาษาไทย": list("ภาษาไทย"),
    "한국어 텍스트, 좋아요": ["한국어", "텍스트", ",", "좋아요"],
    "price: 3.14 dollars\n\nnew line": ["price", ":", "3.14", "dollars", "new", "line"],
}
"""Texts and their words, by hand after UAX #29, spaces left out."""


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return trained(tokenizer, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"]))


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))


def sentencepiece() -> Tokenizer:
    """As T5 and XLM-R: a comma is part of the word before it, a Chinese sentence is one word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return trained(
        tokenizer, trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"]), with_texts=True
    )


def byte_fallback() -> Tokenizer:
    """As Llama: spaces are a symbol, unknown characters become bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=special, limit_alphabet=60))


def trained(tokenizer: Tokenizer, trainer: trainers.Trainer, with_texts: bool = False) -> Tokenizer:
    texts = [document[:2000] for document in sample_documents("python")[:60]]
    tokenizer.train_from_iterator(texts + list(TEXTS) * with_texts * 3, trainer)
    return tokenizer


KINDS = {
    kind.__name__: PreTrainedTokenizerFast(tokenizer_object=kind())
    for kind in (wordpiece, byte_level, sentencepiece, byte_fallback)
}


def words(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The text of each word: from the first character of its tokens to the last."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    starts = np.flatnonzero(word_starts(text, offsets))
    groups = [offsets[first:last] for first, last in zip(starts, [*starts[1:], len(offsets)], strict=True)]
    assert not offsets or starts[0] == 0
    spans = [text[group[0][0] : max(end for _, end in group)].strip() for group in groups]
    return [span for span in spans if span]


# A WordPiece tokenizer made from English makes one unknown token of anything else; see below.
CASES = [(kind, text) for kind in KINDS for text in TEXTS if kind != "wordpiece" or text.startswith("Hello")]


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_words_are_those_of_the_text(kind: str, text: str) -> None:
    assert words(KINDS[kind], text) == TEXTS[text]


def test_an_unknown_word_is_a_word() -> None:
    assert words(KINDS["wordpiece"], "snow ☃☃ snow") == ["snow", "☃☃", "snow"]


def test_the_real_word_of_several_tokens_is_one(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    text = "the incomprehensible"
    offsets = masked_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    starts = word_starts(text, offsets)
    assert len(starts) > 4, "a test of pieces needs pieces"
    assert np.flatnonzero(starts).tolist() == [0, next(n for n, (_, end) in enumerate(offsets) if end > 4)]


def test_no_tokens_no_words() -> None:
    assert word_starts("", []).tolist() == []
    assert word_starts(" ", []).tolist() == []


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_has_a_flag_for_each_token_and_begins_with_a_word(kind: str, text: str) -> None:
    offsets = KINDS[kind](text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    starts = word_starts(text, offsets)
    assert starts.shape == (len(offsets),)
    if text.strip() and text[0].isalpha() and len(offsets):
        assert starts[0]


# --- whole words masked ---


def packed_words(text: str, tokenizer: PreTrainedTokenizerBase, **more: object) -> Packed:
    split = Split(datasets.Dataset.from_dict({"text": [text]}), ("text",), True)
    options = MaskedLMOptions(mask_unit="word", **more)  # type: ignore[arg-type]
    return encode("test", split, tokenizer, MASKED_LM.preprocess(tokenizer, options))


def hidden(packed: Packed, tokenizer: PreTrainedTokenizerBase, epochs: int, probability: float = 0.15) -> list[tuple]:
    special = np.asarray(tokenizer.all_special_ids)
    ids = np.setdiff1d(np.arange(len(tokenizer)), special)
    return [
        (example, *hide({**example, "seed": (1, epoch, number)}, probability, special, ids, tokenizer.mask_token_id))
        for number in range(len(packed))
        for epoch in range(epochs)
        for example in [packed.example(number)]
    ]


TEXT = " ".join(sample_documents("python")[3][:6000].split())


def test_a_word_is_hidden_whole_or_not_at_all(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    packed = packed_words(TEXT, masked_tokenizer, block_size=64)
    partly = several = 0
    for example, _, labels in hidden(packed, masked_tokenizer, epochs=3):
        # The first token of the body may go on with the word of the block before: its own word here.
        numbers = np.cumsum(example["word_starts"])
        numbers[1:][numbers[1:] == numbers[0]] = 0
        for number in np.unique(numbers):
            targets = (labels != -100)[numbers == number]
            partly += targets.any() and not targets.all()
            several += targets.all() and len(targets) > 1
    assert partly == 0
    assert several > 50


def test_rate_and_fates_are_the_published_ones(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    packed = packed_words(TEXT, masked_tokenizer, block_size=128)
    share = masked = kept = changed = total = 0
    for example, inputs, labels in hidden(packed, masked_tokenizer, epochs=60):
        targets = labels != -100
        ids = example["input_ids"]
        assert (labels[targets] == ids[targets]).all()
        assert (inputs[~targets] == ids[~targets]).all()
        assert not np.isin(ids[targets], masked_tokenizer.all_special_ids).any()
        share += targets.sum()
        total += len(ids) - 2
        masked += (inputs[targets] == masked_tokenizer.mask_token_id).sum()
        kept += (inputs[targets] == ids[targets]).sum()
        changed += ((inputs != masked_tokenizer.mask_token_id) & (inputs != ids) & targets).sum()
    assert share / total == pytest.approx(0.15, abs=0.006)
    assert masked / share == pytest.approx(0.8, abs=0.01)
    assert kept / share == pytest.approx(0.1, abs=0.008)
    assert changed / share == pytest.approx(0.1, abs=0.008)


def test_every_example_has_a_target_and_then_a_whole_word(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    packed = packed_words("incomprehensible", masked_tokenizer)
    for _, _, labels in hidden(packed, masked_tokenizer, epochs=20, probability=1e-9):
        assert (labels != -100).tolist() == [False, *[True] * (len(labels) - 2), False]


def test_a_tokenizer_that_does_not_know_places_is_refused() -> None:
    byt5 = ByT5Tokenizer()
    byt5.add_special_tokens({"mask_token": "<mask>"})
    with pytest.raises(InputError, match="ByT5Tokenizer does not say where in the text its tokens are"):
        packed_words("a text", byt5)


def test_saved_and_loaded_tokenizers_agree(masked_tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    masked_tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = next(iter(TEXTS))
    assert words(again, text) == words(masked_tokenizer, text) == TEXTS[text]
