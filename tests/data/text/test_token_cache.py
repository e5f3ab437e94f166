"""Tokenised text is found again when nothing has changed, and never when anything has."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase

from lmtasks import Blocks, InputError
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.data.corpus import Split
from lmtasks.data.corpus import split as corpus_split
from lmtasks.data.text import encode as encoding
from lmtasks.data.text import token_cache as cache
from lmtasks.data.text import tokenize as stream_module
from lmtasks.data.text.encode import encode
from lmtasks.data.text.tokenize import Stream, read
from lmtasks.errors import RunError
from lmtasks.models.tokenizer import train_tokenizer

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
    made = cache.store(partial(read, split_of(*TEXTS), masked_tokenizer, blocks), "key")
    again = cache.load("key")
    assert again is not None
    assert made.words is not None and again.words is not None
    ids = [[*masked_tokenizer.encode(text, add_special_tokens=False), 3] for text in TEXTS]
    assert again.ids.tolist() == made.ids.tolist() == ids[0] + ids[1]
    assert again.documents.tolist() == made.documents.tolist() == [0, len(ids[0])]
    assert again.words.tolist() == made.words.tolist()
    assert (again.rows, again.bytes, again.unknown, again.unit) == (2, sum(map(len, TEXTS)), 0, "documents")


# --- interruptions ---


NUMBERS = split_of(*[f"This is text number {number}, more or less." for number in range(300)])
WORDS = Blocks(size=8, document_end=(3,), words=True)


class Reading:
    """Reads ``NUMBERS`` in many pieces, fails after some of them, and knows where it was asked to begin."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, fail_after: int | None = None) -> None:
        self.tokenizer, self.fail_after = tokenizer, fail_after
        self.starts: list[int] = []

    def __call__(self, start: int) -> Iterator[Stream]:
        self.starts.append(start)
        for number, piece in enumerate(read(NUMBERS, self.tokenizer, WORDS, start)):
            if number == self.fail_after:
                raise KeyboardInterrupt
            yield piece


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("ids", "documents", "words", "stream.json")}


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_split, "BATCH_BYTES", 1000)


@pytest.mark.usefixtures("in_pieces")
def test_an_interrupted_entry_is_gone_on_with(masked_tokenizer: PreTrainedTokenizerBase, home: Path) -> None:
    cache.store(Reading(masked_tokenizer), "whole")
    pieces = len(list(Reading(masked_tokenizer)(0)))
    assert pieces > 10
    reading = Reading(masked_tokenizer, fail_after=1)
    interruptions = 0
    while cache.load("key") is None:
        try:
            cache.store(reading, "key")
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == pieces - 1, "each time one piece more: none was made twice"
    assert reading.starts[0] == 0 and reading.starts == sorted(set(reading.starts))
    assert contents(home / "key") == contents(home / "whole")


@pytest.mark.usefixtures("in_pieces")
def test_an_interruption_within_a_long_row_begins_that_row_again(
    masked_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "LONGEST", 300)
    long = split_of("a short one", "some words in a row. " * 500, "the last one")
    pieces = list(read(long, masked_tokenizer, WORDS))
    assert [piece.rows for piece in pieces].count(0) > 3

    def failing(start: int) -> Iterator[Stream]:
        assert start == 0
        yield from pieces[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store(failing, "key")
    starts = []
    result = cache.store(lambda start: starts.append(start) or read(long, masked_tokenizer, WORDS, start), "key")
    assert starts == [1]
    assert result.ids.tolist() == [token for piece in pieces for token in piece.ids.tolist()]
    assert (result.rows, result.documents[:2].tolist()) == (3, [0, len(pieces[0].ids)])


KILLED = """
import os, signal, sys
from lmtasks.data.text import token_cache as cache
from lmtasks.data.corpus import split as corpus_split
from test_token_cache import NUMBERS, WORDS
from lmtasks.data.text.tokenize import read
from transformers import AutoTokenizer

corpus_split.BATCH_BYTES = 1000
cache.RECORDED_EVERY = 0
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])

def reading(start):
    for number, piece in enumerate(read(NUMBERS, tokenizer, WORDS, start)):
        if number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        yield piece

cache.store(reading, "key")
"""


@pytest.mark.usefixtures("in_pieces")
def test_what_a_killed_process_has_written_is_used(
    masked_tokenizer: PreTrainedTokenizerBase, model_folders: dict[str, Path], home: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", KILLED, str(model_folders["bert"])]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # What was written after the last record counts for nothing.
    with (home / "key.unfinished" / "ids").open("ab") as file:
        file.write(b"half a piece")
    reading = Reading(masked_tokenizer)
    cache.store(reading, "key")
    cache.store(Reading(masked_tokenizer), "whole")
    first = sum(piece.rows for piece in list(Reading(masked_tokenizer)(0))[:7])
    assert reading.starts == [first]
    assert contents(home / "key") == contents(home / "whole")


@pytest.mark.parametrize("file", ["ids", "documents", "words", "so_far.json"])
@pytest.mark.usefixtures("in_pieces")
def test_what_is_left_of_a_damaged_start_is_not_used(
    file: str, masked_tokenizer: PreTrainedTokenizerBase, home: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.store(Reading(masked_tokenizer, fail_after=3), "key")
    path = home / "key.unfinished" / file
    path.write_bytes(path.read_bytes()[:-3])
    reading = Reading(masked_tokenizer)
    cache.store(reading, "key")
    cache.store(Reading(masked_tokenizer), "whole")
    assert reading.starts == [0]
    assert contents(home / "key") == contents(home / "whole")


@pytest.mark.usefixtures("in_pieces")
def test_fresh_tokens_do_not_go_on_with_old_ones(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.store(Reading(masked_tokenizer, fail_after=3), "key")
    reading = Reading(masked_tokenizer)
    cache.store(reading, "key", fresh=True)
    assert reading.starts == [0]


@pytest.mark.usefixtures("in_pieces")
def test_two_at_once_do_not_write_into_the_same_file(masked_tokenizer: PreTrainedTokenizerBase, home: Path) -> None:
    outer = Reading(masked_tokenizer)

    def during(start: int) -> Iterator[Stream]:
        for number, piece in enumerate(outer(start)):
            if number == 3:
                inner = Reading(masked_tokenizer)
                cache.store(inner, "key")
                assert inner.starts == [0]
            yield piece

    cache.store(during, "key")
    cache.store(Reading(masked_tokenizer), "whole")
    assert contents(home / "key") == contents(home / "whole")
    assert sorted(path.name for path in home.iterdir()) == ["key", "whole"]


@contextmanager
def another_process(rows: int) -> Iterator[int]:
    """A process that makes the entry ``key`` and stops (SIGSTOP) after some pieces; its number.

    Forked from this one, which has all that it needs.
    """
    number = os.fork()
    if not number:
        reading = Reading(AutoTokenizer.from_pretrained(os.environ["TOKENIZER_OF_TEST"]))

        def stopping(start: int) -> Iterator[Stream]:
            for done, piece in enumerate(reading(start)):
                if done == rows:
                    os.kill(os.getpid(), signal.SIGSTOP)
                yield piece

        try:
            cache.store(stopping, "key")
        finally:
            os._exit(0)
    os.waitpid(number, os.WUNTRACED)
    try:
        yield number
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.usefixtures("in_pieces")
def test_who_comes_second_waits_for_the_tokens_of_the_first(
    killed: bool,
    masked_tokenizer: PreTrainedTokenizerBase,
    model_folders: dict[str, Path],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOKENIZER_OF_TEST", str(model_folders["bert"]))
    monkeypatch.setattr(cache, "RECORDED_EVERY", 0.0)
    reading = Reading(masked_tokenizer)
    with another_process(4) as first:
        later = Timer(0.5, os.kill, (first, signal.SIGKILL if killed else signal.SIGCONT))
        later.start()
        began = time.monotonic()
        made = cache.store(reading, "key")
        assert time.monotonic() - began > 0.4
        later.join()
    said = f"waiting for process {first}, which tokenises the same text"
    assert capsys.readouterr().err.count(said) == 1
    # What it has made is taken; where it was killed, only the rest is made.
    pieces = list(Reading(masked_tokenizer)(0))
    assert reading.starts == ([sum(piece.rows for piece in pieces[:4])] if killed else [])
    assert made.ids.tolist() == [token for piece in pieces for token in piece.ids.tolist()]
    assert [entry.name for entry in home.iterdir()] == ["key"]


@pytest.mark.usefixtures("in_pieces")
def test_a_lock_that_a_dead_process_left_keeps_nobody_waiting(
    masked_tokenizer: PreTrainedTokenizerBase, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "key.unfinished").mkdir(parents=True)
    (home / "key.unfinished" / "lock").write_text("1")  # which lives, and is not the one
    cache.store(Reading(masked_tokenizer), "key")
    assert "waiting" not in capsys.readouterr().err
    assert cache.load("key") is not None


def test_tokens_that_cannot_be_written_are_told_of_and_not_kept(home: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RunError, match=r"a file would be larger .*key\.unfinished'") as caught:
            cache.store(lambda start: [Stream(np.zeros(9000, np.int32), np.zeros(1, np.int64), rows=1)], "key")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "XDG_CACHE_HOME" in caught.value.hint
    assert cache.load("key") is None


@pytest.mark.usefixtures("in_pieces")
def test_where_there_are_no_locks_nobody_goes_on(
    masked_tokenizer: PreTrainedTokenizerBase, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    reading = Reading(masked_tokenizer, fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        cache.store(reading, "key")
    assert list(home.iterdir()) == []
    reading.fail_after = None
    cache.store(reading, "key")
    assert reading.starts == [0, 0]
    assert [path.name for path in home.iterdir()] == ["key"]


def test_an_interruption_is_said_and_gone_on_with(
    masked_tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_split, "BATCH_BYTES", 1000)
    whole = encode("test", NUMBERS, masked_tokenizer, Blocks(size=8, document_end=(3,)), fresh=True)
    for entry in cache.cache_folder().iterdir():
        shutil.rmtree(entry)

    def stopping(*arguments: Any) -> Iterator[Stream]:
        yield from itertools.islice(read(*arguments), 4)
        raise ZeroDivisionError

    monkeypatch.setattr(encoding, "read", stopping)
    with pytest.raises(ZeroDivisionError):
        encode("test", NUMBERS, masked_tokenizer, Blocks(size=8, document_end=(3,)))
    monkeypatch.setattr(encoding, "read", read)
    capsys.readouterr()
    packed = encode("test", NUMBERS, masked_tokenizer, Blocks(size=8, document_end=(3,)))
    assert re.search(r"tokens of the test text: going on after \d+ rows", capsys.readouterr().err)
    assert packed.fingerprint == whole.fingerprint
    assert packed.stream.rows == len(NUMBERS)


def test_what_is_not_kept_leaves_nothing_when_interrupted(
    masked_tokenizer: PreTrainedTokenizerBase, home: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.store(Reading(masked_tokenizer, fail_after=0), None)
    assert list(home.iterdir()) == []


def test_what_nobody_used_for_a_month_is_forgotten(home: Path) -> None:
    piece = Stream(np.arange(3, dtype=np.int32), np.zeros(1, np.int64))
    for key in ("old", "used", "unfinished"):
        cache.store(lambda start: [piece], key)
    (home / "unfinished").rename(home / "unfinished.unfinished")
    past = time.time() - cache.KEPT_FOR - 9
    for key in ("old", "used", "unfinished.unfinished"):
        os.utime(home / key, (past, past))
    kept = cache.load("used")
    cache.store(lambda start: [piece], "new")
    assert sorted(path.name for path in home.iterdir()) == ["new", "used"]
    assert kept is not None and kept.ids.tolist() == [0, 1, 2]


def test_without_a_place_to_write_tokens_are_not_kept(encoded: Encoder, home: Path) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    first, hit = encoded()
    assert first and not hit
    assert encoded() == (first, False)


def test_entries_stay_readable_while_they_are_replaced(encoded: Encoder, masked_tokenizer: Any) -> None:
    mapped = cache.store(partial(read, split_of(*TEXTS), masked_tokenizer, BLOCKS), "key")
    before = mapped.ids.tolist()
    cache.store(lambda start: [Stream(np.zeros(2, np.int32), np.zeros(1, np.int64))], "key")
    assert mapped.ids.tolist() == before


HAMMERED = """
import sys
import numpy as np
from lmtasks.data.text import token_cache as cache
from lmtasks.data.text.tokenize import Stream

ids = np.arange(50, dtype=np.int32)
for number in range(int(sys.argv[1])):
    # Now and then somebody asks for fresh tokens.
    made = cache.store(lambda start: [Stream(ids, np.zeros(1, np.int64), rows=1)], "key", fresh=number % 3 == 0)
    found = cache.load("key")
    assert made.ids.tolist() == ids.tolist(), "what was made"
    assert found is None or found.ids.tolist() == ids.tolist(), "what is kept"
"""


def test_processes_that_make_one_entry_at_once_all_have_it(home: Path) -> None:
    command = [sys.executable, "-c", HAMMERED, "60"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    kept = cache.load("key")
    assert kept is not None and kept.ids.tolist() == list(range(50))
    assert [entry.name for entry in home.iterdir()] == ["key"], "nothing is left beside it"


def test_a_good_entry_stays_where_it_is(home: Path) -> None:
    """A process that was slower with the same tokens takes nothing from under those that read them."""
    kept = cache.store(lambda start: [Stream(np.arange(5, dtype=np.int32), np.zeros(1, np.int64))], "key")
    before = (home / "key" / "ids").stat().st_ino
    slower = cache.store(lambda start: [Stream(np.arange(5, dtype=np.int32), np.zeros(1, np.int64))], "key")
    assert (home / "key" / "ids").stat().st_ino == before
    assert kept.ids.tolist() == slower.ids.tolist() == list(range(5))
    assert [entry.name for entry in home.iterdir()] == ["key"]


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"ids": 5}', '{"ids": "x", "documents": [], "words": 0}', '"'])
def test_json_that_is_something_else_is_a_damaged_entry(content: str, home: Path) -> None:
    def whole(start: int) -> list[Stream]:
        assert start == 0
        return [Stream(np.arange(5, dtype=np.int32), np.zeros(1, np.int64), rows=1)]

    cache.store(whole, "key")
    (home / "key" / "stream.json").write_text(content)
    assert cache.load("key") is None
    (home / "key.unfinished").mkdir()
    (home / "key.unfinished" / "so_far.json").write_text(content)
    assert cache.store(whole, "key").ids.tolist() == list(range(5))
    assert cache.load("key") is not None


def test_a_cache_that_can_only_be_read_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(lambda start: [Stream(np.arange(5, dtype=np.int32), np.zeros(1, np.int64))], "key")

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    kept = cache.load("key")
    assert kept is not None and kept.ids.tolist() == list(range(5))


def test_what_is_made_anew_is_a_new_file(home: Path) -> None:
    """A mapping of a file that is cut short ends its process (SIGBUS)."""
    (home / "key.unfinished").mkdir(parents=True)
    file = home / "key.unfinished" / "ids"
    np.arange(5000, dtype=np.int32).tofile(file)
    mapped = np.memmap(file, dtype=np.int32, mode="r")
    cache.store(lambda start: [Stream(np.zeros(5, np.int32), np.zeros(1, np.int64))], "key")
    assert mapped[-1] == 4999


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
