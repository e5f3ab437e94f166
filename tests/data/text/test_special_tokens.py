"""Special tokens that stand in a text: counted as what they are, and plain text where that is wanted."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import datasets
import pytest
from test_word_boundaries import byte_fallback, byte_level, sentencepiece, wordpiece
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks import Blocks, InputError
from lmtasks.data.corpus import Split
from lmtasks.data.text import tokenize
from lmtasks.data.text.encode import encode
from lmtasks.data.text.special_tokens import as_plain_text
from lmtasks.data.text.token_cache import store
from lmtasks.data.text.tokenize import Stream, read

GPT2 = {"bos_token": "<|end|>", "eos_token": "<|end|>", "unk_token": "<|end|>"}
BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "pad_token": "<pad>", "unk_token": "<unk>"}


def split_of(*texts: str) -> Split:
    return Split(datasets.Dataset.from_dict({"text": list(texts)}), ("text",), True)


def stream_of(tokenizer: PreTrainedTokenizerBase, *texts: str, blocks: Blocks | None = None) -> Stream:
    return store(partial(read, split_of(*texts), tokenizer, blocks or Blocks(size=8)), None)


@cache
def trained(make: Callable[[], Tokenizer]) -> str:
    return make().to_str()


def made(make: Callable[[], Tokenizer]) -> Tokenizer:
    return Tokenizer.from_str(trained(make))


def bare(make: Callable[[], Tokenizer]) -> Callable[[str], list[int]]:
    """The ids of a tokenizer that has never heard of special tokens."""
    backend = Tokenizer.from_str(json.dumps({**json.loads(trained(make)), "added_tokens": []}))
    return lambda text: backend.encode(text, add_special_tokens=False).ids


def with_pieces(backend: Tokenizer) -> Tokenizer:
    """As published Unigram tokenizers are: special tokens are pieces of the model, likelier than any other."""
    vocabulary = json.loads(backend.model.__getstate__())["vocab"]
    special = [(piece, 0.0) for piece in ("<s>", "</s>", "<pad>", "<mask>")]
    backend.model = models.Unigram([*map(tuple, vocabulary), *special], unk_id=0)
    return backend


# --- unknown or special ---


def words(**special: str) -> PreTrainedTokenizerFast:
    names = ["cat", "sat", *dict.fromkeys(special.values())]
    backend = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, special["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def test_an_unknown_token_that_ends_texts_and_is_written_is_not_unknown() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made(byte_level), **GPT2)
    stream = stream_of(tokenizer, "a<|end|>", "b <|end|><|end|>", "naïve")
    assert (stream.unknown, stream.special) == (0, {"<|end|>": 3})
    encoded = encode("training", split_of("a<|end|>"), tokenizer, Blocks(size=8))
    (note,) = encoded.notes("training")
    assert note.startswith("50.0% of the training tokens are special tokens that stand in the text: <|end|> 1;")
    assert encoded.sizes()["unknown"] == 0 and encoded.sizes()["special"] == {"<|end|>": 1}


def test_words_that_are_not_known_are_told_from_the_token_that_is_written() -> None:
    tokenizer = words(unk_token="<end>", eos_token="<end>", pad_token="<pad>")
    stream = stream_of(tokenizer, "cat dog <end>", "sat <pad> bird <pad> ant", blocks=Blocks(size=8, document_end=(2,)))
    assert (stream.unknown, stream.special) == (3, {"<end>": 1, "<pad>": 2})
    ordinary = words(unk_token="<unk>", eos_token="<end>")
    stream = stream_of(ordinary, "cat dog <unk> <end>", "<unk> <unk>")
    assert (stream.unknown, stream.special) == (1, {"<unk>": 3, "<end>": 1})


def test_a_text_of_nothing_but_unknown_words_is_refused_with_any_tokenizer() -> None:
    for special in ({"unk_token": "<end>", "eos_token": "<end>"}, {"unk_token": "<unk>"}):
        with pytest.raises(InputError, match="67% of the training tokens are unknown"):
            encode("training", split_of("cat dog bird"), words(**special), Blocks(size=8))
        assert len(encode("training", split_of(f"cat {special['unk_token']}"), words(**special), Blocks(size=8)))


def test_special_tokens_are_counted_once_however_the_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by what was added without a role, across the parts of one long text, and in the cache."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made(byte_level), **GPT2)
    tokenizer.add_tokens(["<tool>"], special_tokens=True)
    text = "The quick brown fox, and then some.<|end|> More of it<tool>, said he. " * 200
    monkeypatch.setattr(tokenize, "LONGEST", 300)
    assert len(list(read(split_of(text), tokenizer, Blocks(size=8)))) > 1
    assert stream_of(tokenizer, text).special == {"<|end|>": 200, "<tool>": 200}
    first = encode("training", split_of(text), tokenizer, Blocks(size=8), fresh=True)
    assert encode("training", split_of(text), tokenizer, Blocks(size=8)).sizes() == first.sizes()


# --- plain text ---


KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "gpt2": (byte_level, GPT2),
    "roberta": (byte_level, ROBERTA),
    "bert": (wordpiece, BERT),
    "t5": (sentencepiece, ROBERTA),
    "llama": (byte_fallback, ROBERTA),
}


def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    if kind == "python":
        return ByT5Tokenizer()
    make, special = KINDS[kind]
    backend = with_pieces(made(make)) if kind == "t5" else made(make)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.mark.parametrize("kind", [*KINDS, "python"])
def test_plain_text_has_the_ids_of_a_tokenizer_without_special_tokens(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    expected = bare(KINDS[kind][0]) if kind in KINDS else lambda text: [byte + 3 for byte in text.encode()]
    names = [name for name in tokenizer.all_special_tokens if "unk" not in name.lower()]
    texts = ["Nothing special here.", "".join(names), *(f"some {name} and{name}more" for name in names)]
    before = [tokenizer(text)["input_ids"] for text in texts]
    plain = stream_of(as_plain_text(tokenizer), *texts)
    assert plain.ids.tolist() == [token for text in texts for token in expected(text)]
    assert plain.special == {} and stream_of(tokenizer, *texts).special.keys() == set(names)
    assert [tokenizer(text)["input_ids"] for text in texts] == before, "the tokenizer that is saved is as it was"
    assert not tokenizer.split_special_tokens


def test_the_unknown_token_of_a_unigram_model_is_spelt_as_well() -> None:
    tokenizer = tokenizer_of("t5")
    assert tokenizer("<unk>", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
    ids = as_plain_text(tokenizer)("x<unk>x", add_special_tokens=False)["input_ids"]
    assert len(ids) > 3 and tokenizer.convert_tokens_to_ids("u") in ids


def test_merges_that_make_a_special_token_are_left_out() -> None:
    backend = Tokenizer(
        models.BPE({"<": 0, "s": 1, ">": 2, "<s": 3, "<s>": 4, "ss": 5}, [("<", "s"), ("<s", ">"), ("s", "s")])
    )
    plain = as_plain_text(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"))
    assert plain("ss<s>", add_special_tokens=False)["input_ids"] == [5, 3, 2]


def test_words_that_are_special_tokens_become_unknown() -> None:
    plain = as_plain_text(words(unk_token="<unk>", pad_token="<pad>"))
    stream = stream_of(plain, "cat <pad> sat <unk>")
    assert stream.ids.tolist() == [0, 2, 1, 2]
    assert (stream.unknown, stream.special) == (2, {})


def test_a_tokenizer_that_insists_is_refused() -> None:
    class Insisting(ByT5Tokenizer):
        def tokenize(self, text: str, **kwargs: Any) -> list[str]:
            return super().tokenize(text, **{**kwargs, "split_special_tokens": False})

    with pytest.raises(InputError, match=r"Insisting cannot take .* as plain text"):
        as_plain_text(Insisting())
