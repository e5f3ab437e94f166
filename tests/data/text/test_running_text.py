"""A running text is tokenised as one text: its ids are those of the tokenizer called on the whole file."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks import Blocks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import Split, load_corpus
from lmtasks.data.text import tokenize
from lmtasks.data.text.tokenize import read
from lmtasks.models.tokenizer import train_tokenizer

WORDS = (
    *("the", "a", "Quick", "brown", "fox's", "jumps", "over,", "lazy", "dogs.", "don't", "42", "3.14", "naïve"),
    *("Ärger", "東京都", "は", "мир", "سلام", "<s>", "</s>", "--", "..."),
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def prose(characters: int, seed: int = 0) -> str:
    """Words, indented and blank lines, dialogue, and a line without any space."""
    draw = random.Random(seed)
    ends = [".\n", ".\n\n", "!\n\n\n", "\n    ", "  ", " ", " ", " ", " ", " ", "\t", ".\n\n"]
    text = ""
    while len(text) < characters:
        text += draw.choice(WORDS) + draw.choice(ends)
        if draw.random() < 0.01:
            text += "x" * 300 + "\n" * draw.randint(1, 400)
    return text


TEXT = prose(30_000)


def fast(backend: Tokenizer, trainer: trainers.Trainer, **special: str) -> PreTrainedTokenizerFast:
    backend.train_from_iterator([TEXT[start : start + 5000] for start in range(0, len(TEXT), 5000)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def byte_level(pattern: str | None = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return fast(backend, trainer, bos_token="<s>")


def prepending() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral: a space before every text, no words, merges over everything."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Replace("▁", " ")
    # Trained with words, as SentencePiece does it, and used without.
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=special, show_progress=False)
    tokenizer = fast(backend, trainer, unk_token="<unk>", bos_token="<s>")
    tokenizer.backend_tokenizer.pre_tokenizer = None
    return tokenizer


def unigram(scheme: str) -> PreTrainedTokenizerFast:
    """As T5, ALBERT and XLM-R."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
    )
    return fast(backend, trainer, unk_token="<unk>", bos_token="<s>")


def word_piece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "<s>"], show_progress=False)
    return fast(backend, trainer, unk_token="[UNK]")


KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "gpt2": byte_level,
    "llama3": lambda: byte_level(LLAMA_3),
    "llama2": prepending,
    "t5": lambda: unigram("always"),
    "first": lambda: unigram("first"),
    "bert": word_piece,
    "trained here": lambda: train_tokenizer([[TEXT]], 600, CAUSAL_LM.tokenizer),
    "unigram here": lambda: train_tokenizer([[TEXT]], 600, CAUSAL_LM.tokenizer, "unigram"),
    "characters here": lambda: train_tokenizer([[TEXT]], 600, CAUSAL_LM.tokenizer, "character"),
}


@pytest.fixture(scope="module")
def made() -> dict[str, PreTrainedTokenizerBase]:
    return {kind: make() for kind, make in KINDS.items()}


def lines_of(*texts: str, folder: Path) -> Split:
    """The texts as files, read by line."""
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"{number}.txt")
        files[-1].write_text(text, encoding="utf-8", newline="")
    corpus = load_corpus(DataSettings(validation_file=[str(file) for file in files]), evaluation_only=True)
    assert corpus.evaluation is not None and not corpus.evaluation.documents
    return corpus.evaluation


def ids_of(split: Split, tokenizer: PreTrainedTokenizerBase, start: int = 0, **blocks: object) -> list[int]:
    pieces = list(read(split, tokenizer, Blocks(size=8, **blocks), start))
    return [token for piece in pieces for token in piece.ids.tolist()]


def whole(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


@pytest.mark.parametrize("longest", [250, 3_000, 1 << 15])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_whole_file(
    kind: str, longest: int, made: dict[str, PreTrainedTokenizerBase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenize, "LONGEST", longest)
    tokenizer = made[kind]
    assert ids_of(lines_of(TEXT, folder=tmp_path), tokenizer) == whole(tokenizer, TEXT)


@pytest.mark.parametrize("kind", ["llama3", "trained here"])
def test_tokens_may_hold_line_breaks(kind: str, made: dict[str, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    """Line by line no token could: this is what fine-tuning on lines unlearns."""
    tokenizer = made[kind]
    across = [tokenizer.decode([token]) for token in ids_of(lines_of(TEXT, folder=tmp_path), tokenizer)]
    assert any(token.count("\n") > 1 or ("\n" in token and token.strip("\n")) for token in across)


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "t5"])
def test_files_are_texts_of_their_own(kind: str, made: dict[str, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    tokenizer = made[kind]
    texts = ["The end of the first file", "Start of the second.\n", "\n  Third\n\nfile"]
    split = lines_of(*texts, folder=tmp_path)
    expected = [[3, *whole(tokenizer, text), 4] for text in texts]
    (*pieces,) = read(split, tokenizer, Blocks(size=8, document_start=(3,), document_end=(4,)))
    assert [token for piece in pieces for token in piece.ids.tolist()] == [token for ids in expected for token in ids]
    begun, seen = [], 0
    for piece in pieces:
        begun += (piece.documents + seen).tolist()
        seen += len(piece.ids)
    assert begun == [0, len(expected[0]), len(expected[0]) + len(expected[1])]
    assert sum(piece.rows for piece in pieces) == len(split) == 6


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "llama2", "t5", "bert"])
def test_reading_goes_on_in_the_middle_with_the_same_tokens(
    kind: str, made: dict[str, PreTrainedTokenizerBase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a piece says that rows end in it, an interrupted tokenisation may begin again."""
    monkeypatch.setattr(tokenize, "LONGEST", 400)
    monkeypatch.setattr(tokenize, "_PARTS", 2)
    tokenizer, frame = made[kind], {"document_start": (3,), "document_end": (4,)}
    split = lines_of(TEXT[:9000], "x", TEXT[9000:15000], folder=tmp_path)
    pieces = list(read(split, tokenizer, Blocks(size=8, **frame)))
    every = [token for piece in pieces for token in piece.ids.tolist()]
    done = seen = stops = 0
    for piece in pieces[:-1]:
        done, seen = done + piece.rows, seen + len(piece.ids)
        if piece.rows:
            assert ids_of(split, tokenizer, done, **frame) == every[seen:]
            stops += 1
    assert stops > 3


def test_words_begin_where_they_begin_in_the_whole(
    made: dict[str, PreTrainedTokenizerBase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = made["llama2"]
    split = lines_of(TEXT, folder=tmp_path)
    flags = []
    for longest in (300, 1 << 20):
        monkeypatch.setattr(tokenize, "LONGEST", longest)
        pieces = read(split, tokenizer, Blocks(size=8, words=True))
        flags.append([flag for piece in pieces for flag in piece.words.tolist()])
    assert flags[0] == flags[1]
