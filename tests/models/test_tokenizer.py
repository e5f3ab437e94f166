"""Tokenizers: one trained on the spot knows every text; one that is loaded is left as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from words_tokenizer import words_tokenizer

from lmtasks.api import Recipe, TokenizerSpec
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.settings import ModelSettings
from lmtasks.data.sample import sample_documents
from lmtasks.errors import InputError
from lmtasks.models.tokenizer import load_tokenizer, require_tokens, train_tokenizer
from lmtasks.models.tokenizer_kinds import KINDS, WORDS

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


# --- kinds ---

HARD = (
    "Hello there.\n\nThe theory of   things,\n\tindented <0x0A> 東京都 🙂.\r\n\n"
    "  سلام عليكم  ê e\u0301 \u200b\ufeff\x00 naïve\n\n\n"
)
PARAGRAPHS = ["the theory of the thing.\n\nother things.\n\nThe end.\n\n" * 20, "naïve café 東京。"]
NO_LOSS = ("bpe", "unigram", "character")


def of_kind(kind: str, size: int = 400, recipe: Recipe = MASKED_LM) -> PreTrainedTokenizerBase:
    return train_tokenizer([PARAGRAPHS], size, recipe.tokenizer, kind)


@pytest.mark.parametrize("recipe", [MASKED_LM, CAUSAL_LM], ids=["masked", "causal"])
@pytest.mark.parametrize("kind", NO_LOSS)
def test_every_kind_without_loss_gives_any_text_back(kind: str, recipe: Recipe, tmp_path: Path) -> None:
    of_kind(kind, recipe=recipe).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
    @settings(max_examples=100, deadline=None)
    def comes_back(text: str) -> None:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert not set(ids) & set(tokenizer.all_special_ids), "no unknown token"

    comes_back()
    for text in (HARD, *PARAGRAPHS, "<0x41><0x0A>", "<", "x0A"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_word_pieces_keep_capitals_and_accents_and_lose_spaces() -> None:
    tokenizer = of_kind("wordpiece", 400, CAUSAL_LM)
    ids = tokenizer("The naïve café  thing.\n\nTHE things", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "The naïve café thing . <unk> things"
    assert tokenizer.tokenize("things")[0] == "things"
    assert tokenizer.tokenize("theory's")[-1] == "s"
    assert any(token.startswith("##") for token in tokenizer.tokenize("endthe"))
    # What is unknown is no end of a text.
    assert (tokenizer.unk_token, tokenizer.eos_token) == ("<unk>", "<|endoftext|>")
    assert tokenizer.unk_token_id in ids
    assert tokenizer.eos_token_id not in ids


def test_a_character_is_a_token_and_the_rarest_are_told_in_bytes() -> None:
    texts = [["abcabcab \n東東"], ["b"]]  # b 4, a 3, then 東 c twice, then a space and a line break
    tokenizer = train_tokenizer(texts, 265, CAUSAL_LM.tokenizer, "character")
    assert len(tokenizer) == 2 + 256 + 6 == 264
    assert [tokenizer.convert_ids_to_tokens(number) for number in range(258, 264)] == ["b", "a", "c", "東", "\n", " "]
    assert tokenizer("ab 東京\n")["input_ids"] == [259, 258, 263, 261, 2 + 0xE4, 2 + 0xBA, 2 + 0xAC, 262]
    short = train_tokenizer(texts, 260, CAUSAL_LM.tokenizer, "character")
    assert [short.convert_ids_to_tokens(number) for number in (258, 259)] == ["b", "a"]
    assert (len(short), short.decode(short("ab 東京\n")["input_ids"])) == (260, "ab 東京\n")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_token_can_hold_line_breaks(kind: str) -> None:
    tokenizer = of_kind(kind)
    (ends,) = {token for token in tokenizer.tokenize("thing.\n\nThe end.\n\n") if token.startswith(".")}
    assert tokenizer.decode([tokenizer.convert_tokens_to_ids(ends)]) == ".\n\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Title\n\nText it's", ["Title", "\n\n", "Text", " it", "'s"]),
        ("if x:\n    return  1\r\n", ["if", " x", ":\n", "   ", " return", " ", " 1", "\r\n"]),
        ("a\n    b\n\n  \n", ["a", "\n   ", " b", "\n\n  \n"]),
        ("End?!\n\n— 東京、3.14", ["End", "?!\n\n", "—", " 東京", "、", "3", ".", "14"]),
    ],
)
def test_words_of_byte_level_bpe(text: str, words: list[str]) -> None:
    assert regex.findall(WORDS, text) == words
    splitter = of_kind("bpe").backend_tokenizer.pre_tokenizer
    assert [text[start:end] for _, (start, end) in splitter.pre_tokenize_str(text)] == words


def test_training_each_kind_is_the_same_in_every_process(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(sample_documents("python")[:4])[:6000])
    code = f"""
        from pathlib import Path
        from lmtasks.builtin.masked_lm import MASKED_LM
        from lmtasks.models.tokenizer import train_tokenizer
        text = Path({str(text)!r}).read_text()
        for kind in {[*KINDS]}:
            tokenizer = train_tokenizer([[text[:2000], text[2000:]]], 500, MASKED_LM.tokenizer, kind)
            print(tokenizer.backend_tokenizer.to_str())
    """
    told = [
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    one, other = (lines.splitlines() for lines in told)
    assert len(one) == len(KINDS)
    assert one == other


def test_a_unigram_model_with_too_little_room_is_refused() -> None:
    texts = [["".join(map(chr, range(0x4E00, 0x4F00)))]]
    with pytest.raises(InputError, match="--train_tokenizer 300 has no room for the characters of the text"):
        train_tokenizer(texts, 300, CAUSAL_LM.tokenizer, "unigram")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_trains_a_tokenizer_of_each_kind(
    kind: str, text_file: Path, tmp_path: Path, lmtasks: Callable[..., Any]
) -> None:
    run = ["run", "masked-lm", "--model_type", "bert", "--train_file", text_file, "--train_tokenizer", 420]
    run += ["--config_overrides", "num_hidden_layers=1,hidden_size=16,num_attention_heads=1,intermediate_size=16"]
    run += ["--tokenizer_model", kind, "--max_steps", 1, "--block_size", 32, "--use_cpu", "--max_train_samples", 8]
    done = lmtasks(*run, "--max_eval_samples", 4, "--output_dir", tmp_path / "out")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["tokenizer_model"] == kind
    saved = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["type"]
    assert saved == {"wordpiece": "WordPiece", "unigram": "Unigram"}.get(kind, "BPE")
    answer = lmtasks("predict", tmp_path / "out", "the <mask>", "--top_k", 1)
    assert answer.code == 0, answer.err


def test_a_kind_without_training_is_refused(model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    refused = lmtasks("run", "masked-lm", "--model", model_folders["bert"], "--tokenizer_model", "unigram")
    assert refused.code == 2
    assert "--model_name_or_path and --tokenizer_model exclude each other" in refused.err
    refused = lmtasks("run", "masked-lm", "--tokenizer_model", "uniram")
    assert "--tokenizer_model cannot be 'uniram'" in refused.err
    assert "did you mean 'unigram'?" in refused.err


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
