"""Tokenizers: one trained on the spot knows every text; one that is loaded is left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from words_tokenizer import words_tokenizer

from lmtasks.api import TokenizerSpec
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError
from lmtasks.models.tokenizer import load_tokenizer, require_tokens, train_tokenizer

TRAINED = train_tokenizer([["the theory of the thing", "other things"]], 300, MASKED_LM.tokenizer)
SPECIAL = MASKED_LM.tokenizer.special_tokens.values()


def any_text() -> st.SearchStrategy[str]:
    """Any Unicode that UTF-8 can say, without the words that stand for special tokens."""
    return st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not any(s in text for s in SPECIAL))


@given(any_text())
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_as_it_went_in(text: str) -> None:
    ids = TRAINED(text, add_special_tokens=False)["input_ids"]
    assert TRAINED.decode(ids, clean_up_tokenization_spaces=False) == text
    assert not set(ids) & set(TRAINED.all_special_ids), "no unknown token"


def test_common_words_become_tokens_of_their_own() -> None:
    assert len(TRAINED.tokenize(" the theory")) < len(" the theory")


@pytest.mark.parametrize("size", [300, 350, 500])
def test_vocabulary_has_the_size_that_was_asked_for(size: int, documents: list[str]) -> None:
    assert len(train_tokenizer([documents], size, MASKED_LM.tokenizer)) == size


def test_training_is_the_same_every_time_and_for_every_batching(documents: list[str]) -> None:
    one = train_tokenizer([documents[:40]], 350, MASKED_LM.tokenizer)
    other = train_tokenizer(([text] for text in documents[:40]), 350, MASKED_LM.tokenizer)
    assert one.get_vocab() == other.get_vocab()
    assert one.tokenize(documents[50]) == other.tokenize(documents[50])


def test_special_tokens_of_masked_lm_come_first_and_fill_their_roles() -> None:
    assert [TRAINED.convert_ids_to_tokens(i) for i in range(5)] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert (TRAINED.cls_token_id, TRAINED.bos_token_id) == (0, 0)
    assert (TRAINED.sep_token_id, TRAINED.eos_token_id) == (2, 2)
    assert (TRAINED.pad_token_id, TRAINED.unk_token_id, TRAINED.mask_token_id) == (1, 3, 4)


def test_template_of_masked_lm_surrounds_a_text() -> None:
    bare = TRAINED("thing", add_special_tokens=False)["input_ids"]
    assert TRAINED("thing")["input_ids"] == [0, *bare, 2]


def test_template_of_causal_lm_adds_nothing(causal_tokenizer: PreTrainedTokenizerBase) -> None:
    assert causal_tokenizer("thing")["input_ids"] == causal_tokenizer("thing", add_special_tokens=False)["input_ids"]
    assert causal_tokenizer.convert_ids_to_tokens([0, 1]) == ["<|endoftext|>", "<|padding|>"]
    assert (causal_tokenizer.eos_token_id, causal_tokenizer.pad_token_id) == (0, 1)


def test_mask_in_a_text_is_one_token() -> None:
    assert TRAINED("the <mask>", add_special_tokens=False)["input_ids"].count(TRAINED.mask_token_id) == 1


def test_trained_tokenizer_survives_saving(tmp_path: Path) -> None:
    TRAINED.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path), ModelSettings(), MASKED_LM)
    assert loaded.get_vocab() == TRAINED.get_vocab()
    assert loaded("über the <mask>!")["input_ids"] == TRAINED("über the <mask>!")["input_ids"]
    assert loaded.special_tokens_map == TRAINED.special_tokens_map


def test_template_of_ones_own() -> None:
    spec = TokenizerSpec(special_tokens={"bos_token": "[B]", "eos_token": "[E]"}, template="[B] $A [E] [E]")
    tokenizer = train_tokenizer([["abc"]], 300, spec)
    assert [tokenizer.decode([i]) for i in tokenizer("a")["input_ids"]] == ["[B]", "a", "[E]", "[E]"]


# --- loading ---


def test_loaded_tokenizer_keeps_its_own_padding_token(tmp_path: Path) -> None:
    words_tokenizer(pad_token="<pad>", eos_token="</s>").save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), ModelSettings(), CAUSAL_LM).pad_token == "<pad>"


def test_loaded_tokenizer_without_padding_token_gets_none(tmp_path: Path) -> None:
    words_tokenizer(eos_token="</s>").save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), ModelSettings(), CAUSAL_LM).pad_token is None


def test_tokenizer_without_a_mask_is_refused_by_masked_lm(tmp_path: Path) -> None:
    words_tokenizer(eos_token="</s>").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="masked-lm needs a tokenizer with a mask_token") as caught:
        load_tokenizer(str(tmp_path), ModelSettings(), MASKED_LM)
    assert str(tmp_path) in caught.value.message
    require_tokens(TRAINED, "ours", MASKED_LM)


@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2"])
def test_folder_without_tokenizer_files_is_refused(kind: str, model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(model_folders[kind] / "config.json", tmp_path)
    with pytest.raises(InputError) as caught:
        load_tokenizer(str(tmp_path), ModelSettings(), CAUSAL_LM)
    assert str(tmp_path) in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_folder_is_refused() -> None:
    with pytest.raises(InputError, match=r"no tokenizer folder '\./nowhere'"):
        load_tokenizer("./nowhere", ModelSettings(), CAUSAL_LM)


def test_trained_tokenizer_is_what_auto_tokenizer_loads(tmp_path: Path) -> None:
    TRAINED.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("thing")["input_ids"] == TRAINED("thing")["input_ids"]
