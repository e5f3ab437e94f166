"""Tokenised text is found again when nothing has changed, and never when anything has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase

from lmtasks import Blocks, InputError, cache
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.corpus import Split
from lmtasks.encoding import encode
from lmtasks.stream import Stream, read
from lmtasks.tokenization import train_tokenizer

HIT = "tokens of the test text: from the cache"
BLOCKS = Blocks(size=8)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lmtasks" / "tokens"


def split_of(*texts: str, documents: bool = True) -> Split:
    return Split(datasets.Dataset.from_dict({"text": list(texts)}), ("text",), documents)


TEXTS = ("The first text of two.", "And the second, which is longer than the first one.")


class Encoder:
    """Encodes, and hears whether the tokens came from the cache."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]) -> None:
        self.tokenizer, self.capsys = tokenizer, capsys

    def __call__(
        self,
        split: Split | None = None,
        blocks: Blocks = BLOCKS,
        tokenizer: PreTrainedTokenizerBase | None = None,
        fresh: bool = False,
    ) -> tuple[list[list[int]], bool]:
        self.capsys.readouterr()
        packed = encode("test", split or split_of(*TEXTS), tokenizer or self.tokenizer, blocks, fresh)
        hit = HIT in self.capsys.readouterr().err
        return [packed.example(number)["input_ids"].tolist() for number in range(len(packed))], hit


@pytest.fixture
def encoded(masked_tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]) -> Encoder:
    return Encoder(masked_tokenizer, capsys)


def test_the_same_again_is_a_hit_with_the_same_tokens(encoded: Encoder) -> None:
    first, hit = encoded()
    assert not hit
    assert encoded() == (first, True)


def test_the_same_text_from_elsewhere_is_a_hit(encoded: Encoder, tmp_path: Path) -> None:
    first, _ = encoded()
    datasets.Dataset.from_dict({"body": list(TEXTS)}).to_parquet(str(tmp_path / "text.parquet"))
    rows = datasets.Dataset.from_parquet(str(tmp_path / "text.parquet"), cache_dir=str(tmp_path / "datasets"))
    assert encoded(Split(rows, ("body",), True)) == (first, True)


@pytest.mark.parametrize(
    "split",
    [
        split_of(TEXTS[0], TEXTS[1] + " "),
        split_of(TEXTS[1], TEXTS[0]),
        split_of(TEXTS[0][:-1], TEXTS[0][-1] + TEXTS[1]),
        split_of(*TEXTS, documents=False),
    ],
    ids=["a space", "order", "where a document ends", "lines"],
)
def test_other_text_is_no_hit(split: Split, encoded: Encoder) -> None:
    encoded()
    assert encoded(split)[1] is False


@pytest.mark.parametrize(
    "blocks",
    [
        Blocks(size=8, document_start=(5,)),
        Blocks(size=8, document_end=(5,)),
        Blocks(size=8, document_end=(5, 5)),
        Blocks(size=8, line_by_line=True),
        Blocks(size=8, words=True),
    ],
    ids=str,
)
def test_other_documents_are_no_hit(blocks: Blocks, encoded: Encoder) -> None:
    encoded()
    assert encoded(blocks=blocks)[1] is False
    assert encoded(blocks=blocks)[1] is True


def test_another_cut_of_the_same_tokens_is_a_hit_with_another_result(encoded: Encoder) -> None:
    first, _ = encoded()
    second, hit = encoded(blocks=Blocks(size=6, start=(1,)))
    assert hit
    stream = [token for one in first for token in one]
    assert [one[1:] for one in second][:2] == [stream[:5], stream[5:10]]


def retrained(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    assert CAUSAL_LM.tokenizer
    return train_tokenizer([["other text, other tokens"] * 9], 300, CAUSAL_LM.tokenizer)


def with_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    tokenizer.add_tokens(["second"])
    return tokenizer


def with_role(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    tokenizer.unk_token = "!"  # it is counted
    return tokenizer


def splitting(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    tokenizer.split_special_tokens = True
    return tokenizer


@pytest.mark.parametrize("change", [retrained, with_token, with_role, splitting])
def test_another_tokenizer_is_no_hit(
    change: Callable[[Any], Any], encoded: Encoder, model_folders: dict[str, Path]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folders["bert"])
    encoded(tokenizer=tokenizer)
    assert encoded(tokenizer=AutoTokenizer.from_pretrained(model_folders["bert"]))[1] is True
    assert encoded(tokenizer=change(tokenizer))[1] is False


def test_a_tokenizer_in_python_is_never_a_hit(encoded: Encoder, home: Path) -> None:
    assert encoded(tokenizer=ByT5Tokenizer()) == encoded(tokenizer=ByT5Tokenizer())
    assert encoded(tokenizer=ByT5Tokenizer())[1] is False
    assert list(home.iterdir()) == [], "nothing is left of what is not kept"


def test_other_code_is_no_hit(encoded: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encoded()
    edited = tmp_path / "stream.py"
    edited.write_text(Path(cache.stream_module.__file__).read_text() + "\n# edited\n")
    monkeypatch.setattr(cache.stream_module, "__file__", str(edited))
    assert encoded()[1] is False


def test_fresh_tokens_replace_the_old_ones(encoded: Encoder, home: Path) -> None:
    first, _ = encoded()
    (entry,) = home.iterdir()
    with (entry / "ids").open("r+b") as file:
        file.write(b"\1\0\0\0" * 3)
    assert encoded()[0] != first
    assert encoded(fresh=True) == (first, False)
    assert encoded() == (first, True)


@pytest.mark.parametrize("file", ["ids", "stream.json", "words", "documents"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_entry_is_made_anew(file: str, damage: str, encoded: Encoder, home: Path) -> None:
    blocks = Blocks(size=8, words=True)
    first, _ = encoded(blocks=blocks)
    (entry,) = home.iterdir()
    path = entry / file
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-3])
    assert encoded(blocks=blocks) == (first, False)
    assert encoded(blocks=blocks) == (first, True)


def test_words_documents_and_counts_come_back(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    blocks = Blocks(size=8, document_end=(3,), words=True)
    made = cache.store(read(split_of(*TEXTS), masked_tokenizer, blocks), "key")
    again = cache.load("key")
    assert again is not None
    assert made.words is not None and again.words is not None
    ids = [[*masked_tokenizer.encode(text, add_special_tokens=False), 3] for text in TEXTS]
    assert again.ids.tolist() == made.ids.tolist() == ids[0] + ids[1]
    assert again.documents.tolist() == made.documents.tolist() == [0, len(ids[0])]
    assert again.words.tolist() == made.words.tolist()
    assert (again.rows, again.bytes, again.unknown, again.unit) == (2, sum(map(len, TEXTS)), 0, "documents")


def test_an_interrupted_entry_leaves_nothing(home: Path) -> None:
    def pieces() -> Iterator[Stream]:
        yield Stream(np.zeros(3, np.int32), np.zeros(1, np.int64))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store(pieces(), "key")
    assert list(home.iterdir()) == []
    assert cache.load("key") is None


def test_what_nobody_used_for_a_month_is_forgotten(home: Path) -> None:
    piece = Stream(np.arange(3, dtype=np.int32), np.zeros(1, np.int64))
    for key in ("old", "used"):
        cache.store([piece], key)
    past = time.time() - cache.KEPT_FOR - 9
    for key in ("old", "used"):
        os.utime(home / key, (past, past))
    kept = cache.load("used")
    cache.store([piece], "new")
    assert sorted(path.name for path in home.iterdir()) == ["new", "used"]
    assert kept is not None and kept.ids.tolist() == [0, 1, 2]


def test_without_a_place_to_write_tokens_are_not_kept(encoded: Encoder, home: Path) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    first, hit = encoded()
    assert first and not hit
    assert encoded() == (first, False)


def test_entries_stay_readable_while_they_are_replaced(encoded: Encoder, masked_tokenizer: Any) -> None:
    mapped = cache.store(read(split_of(*TEXTS), masked_tokenizer, BLOCKS), "key")
    before = mapped.ids.tolist()
    cache.store([Stream(np.zeros(2, np.int32), np.zeros(1, np.int64))], "key")
    assert mapped.ids.tolist() == before


# --- what is refused ---


def test_no_tokens_is_refused(encoded: Encoder) -> None:
    with pytest.raises(InputError, match="the tokenizer makes no tokens of the test text"):
        encode("test", split_of(), encoded.tokenizer, BLOCKS)


def test_a_block_without_room_for_text_is_refused(encoded: Encoder) -> None:
    with pytest.raises(InputError, match="a block of 2 tokens has no room beside its 2 special tokens"):
        encoded(blocks=Blocks(size=2, start=(0,), end=(2,)))


def test_lines_are_nothing_to_isolate(encoded: Encoder) -> None:
    with pytest.raises(InputError, match="the lines of the test text are one document") as caught:
        encoded(split_of(*TEXTS, documents=False), Blocks(size=8, isolate=True))
    assert "--sample_by paragraph" in str(caught.value.hint)
    assert encoded(split_of(*TEXTS, documents=False), Blocks(size=8, isolate=True, line_by_line=True))[0]
