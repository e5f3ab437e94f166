"""causal-lm: where documents end, and which tokens are learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from words_tokenizer import words_tokenizer

from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions, answers
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import load_corpus
from lmtasks.data.text.encode import encode


@pytest.mark.parametrize(
    ("template", "special", "start", "end"),
    [
        ("$A", {"eos_token": "<|endoftext|>"}, (), (21,)),
        ("<s> $A", {"bos_token": "<s>", "eos_token": "</s>"}, (21,), (22,)),
        ("<s> $A </s>", {"bos_token": "<s>", "eos_token": "</s>"}, (21,), (22,)),
        ("$A", {"bos_token": "<s>"}, (), ()),
    ],
    ids=["GPT-2", "Llama", "both", "no end"],
)
def test_documents_start_as_the_tokenizer_says_and_end_with_its_end_token_once(
    template: str, special: dict[str, str], start: tuple[int, ...], end: tuple[int, ...]
) -> None:
    blocks = CAUSAL_LM.preprocess(words_tokenizer(template, **special), CausalLMOptions(block_size=64))
    assert (blocks.document_start, blocks.document_end) == (start, end)
    assert (blocks.start, blocks.end, blocks.body) == ((), (), 64)


def collated(*lengths: int, **special: str) -> dict[str, list[list[int]]]:
    tokenizer = words_tokenizer(**special)
    examples = [{"input_ids": np.arange(length, dtype=np.int32) + 1, "seed": (0, 0, 0)} for length in lengths]
    batch = CAUSAL_LM.collator(tokenizer, CausalLMOptions(), True)(examples)
    return {name: tensor.tolist() for name, tensor in batch.items()}


def test_labels_are_the_tokens_but_for_the_first() -> None:
    assert collated(4) == {"input_ids": [[1, 2, 3, 4]], "labels": [[-100, 2, 3, 4]]}


def test_padding_is_no_target() -> None:
    batch = collated(4, 2, pad_token="<pad>")
    assert batch["labels"] == [[-100, 2, 3, 4], [-100, 2, -100, -100]]
    assert batch["attention_mask"] == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_end_of_a_document_is_learned_where_it_serves_as_padding_too() -> None:
    tokenizer = words_tokenizer(eos_token="</s>", pad_token="</s>")
    examples = [{"input_ids": np.array(ids, np.int32)} for ids in ([5, 21, 6, 7], [8, 21])]
    batch = CAUSAL_LM.collator(tokenizer, CausalLMOptions(), True)(examples)
    assert batch["labels"].tolist() == [[-100, 21, 6, 7], [-100, 21, -100, -100]]


def test_labels_are_no_view_of_the_inputs() -> None:
    tokenizer = words_tokenizer()
    batch = CAUSAL_LM.collator(tokenizer, CausalLMOptions(), True)([{"input_ids": np.array([3, 4], np.int32)}])
    assert batch["input_ids"].tolist() == [[3, 4]]


def test_answers_are_the_lines_of_the_continuations() -> None:
    assert answers([{"generated_text": "a\nb"}, {"generated_text": "c"}]) == ["a", "b", "c"]


def test_a_text_file_is_one_text_with_one_beginning_and_one_end(tmp_path: Path) -> None:
    """A template as Llama's: the tokens of the file are those of its text as a whole, and the end token."""
    (tmp_path / "text.txt").write_text("1 2 3\n4 5\n\n6 7 8\n")
    tokenizer = words_tokenizer("<s> $A", bos_token="<s>", eos_token="</s>")
    corpus = load_corpus(DataSettings(validation_file=[str(tmp_path / "text.txt")]), sample=None, evaluation_only=True)
    assert corpus.evaluation is not None
    blocks = CAUSAL_LM.preprocess(tokenizer, CausalLMOptions(block_size=64))
    packed = encode("test", corpus.evaluation, tokenizer, blocks)
    start, end = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    assert packed.example(0)["input_ids"].tolist() == [start, 1, 2, 3, 4, 5, 6, 7, 8, end]
    assert packed.stream.ids.tolist()[:-1] == tokenizer((tmp_path / "text.txt").read_text())["input_ids"]
