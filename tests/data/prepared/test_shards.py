"""Shards: every example as before it was prepared, from whatever place, and none that was changed meanwhile."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from words_tokenizer import words_tokenizer

from lmtasks import Blocks, InputError, RunError
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.prepared import sharded as sharded_module
from lmtasks.data.prepared.local_copies import LocalCopies
from lmtasks.data.prepared.manifest import Manifest
from lmtasks.data.prepared.shard import LONG, SHORT, Shard, arrays_of, opened_whole, write
from lmtasks.data.prepared.sharded import Sharded
from lmtasks.data.prepared.store import Store
from lmtasks.data.prepared.writing import _parts, _told
from lmtasks.data.text.packing import Packed, cut
from lmtasks.data.text.tokenize import Stream

TOKENIZER = words_tokenizer()


def text(documents: int = 60, *, words: bool = False, seed: int = 0) -> Stream:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 40, documents)
    ids = draw.integers(1, 300, int(lengths.sum()), dtype=np.int32)
    starts = np.cumsum(lengths) - lengths
    return Stream(ids, starts, draw.random(len(ids)) < 0.5 if words else None, rows=documents, bytes=4 * len(ids))


def shards_of(packed: Packed, store: Store, tokens: int, ids: Any = SHORT) -> list[Shard]:
    shards = []
    for number, part in enumerate(_parts(packed, tokens)):
        arrays, examples = arrays_of(packed, *part, ids)
        shards.append(Shard.of(f"train-{number:05}", arrays, examples))
        with store.new(shards[-1].file) as path:
            write(arrays, path)
    return shards


def prepared(packed: Packed, url: str, tokens: int = 100, *, limit: int = 10**9, **how: Any) -> Sharded:
    store = Store(url, "prepared")
    shards = shards_of(packed, store, tokens, how.pop("ids", SHORT))
    told = {**_told("", packed)}
    return Sharded(shards, told, packed.blocks, LocalCopies(store, limit), **{"seed": 0, **how})


def assert_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])
        assert getattr(value, "dtype", None) == getattr(other[name], "dtype", None)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """fsspec's file system in memory, empty, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


LAYOUTS = [
    Blocks(size=16),
    Blocks(size=16, start=(1,), end=(2,), isolate=True),
    Blocks(size=16, words=True),
    Blocks(size=16, line_by_line=True, context=3),
    Blocks(size=16, line_by_line=True, start=(1,), never_targets=tuple(range(1, 200)), words=True),
    Blocks(size=4096),
]


@pytest.mark.parametrize("blocks", LAYOUTS, ids=str)
@pytest.mark.parametrize("tokens", [1, 50, 333, 10**6])
def test_every_example_is_the_one_that_it_was(blocks: Blocks, tokens: int, tmp_path: Path) -> None:
    packed = cut(text(words=blocks.words), blocks)
    sharded = prepared(packed, str(tmp_path / "there"), tokens, ids=LONG if tokens == 50 else SHORT)
    assert len(sharded) == len(packed)
    for number in range(len(packed)):
        assert_alike(sharded.example(number), packed.example(number))
    assert (sharded.total, sharded.per_example) == (packed.total, packed.per_example)
    assert sharded.fingerprint == packed.fingerprint
    own = sharded.sizes()
    assert own.pop("shards") == sum(shard.examples > 0 for shard in sharded.shards)
    assert own == packed.sizes()
    longest = max(len(packed.example(number)["input_ids"]) for number in range(len(packed)))
    assert len(sharded.example(next(sharded.longest_first()))["input_ids"]) == longest
    with pytest.raises(IndexError):
        sharded.example(len(packed))


def test_shards_are_as_large_as_was_said() -> None:
    packed = cut(text(), Blocks(size=16))
    sizes = [last - first for first, last in _parts(packed, 100)]
    assert set(sizes[:-1]) == {96} and 0 < sizes[-1] <= 96
    lines = cut(text(), Blocks(size=16, line_by_line=True))
    parts = list(_parts(lines, 100))
    assert [last for _, last in parts] == [*(first for first, _ in parts[1:]), lines.end]
    assert all(last - first <= 100 for first, last in parts)
    assert all(parts[turn][1] - parts[turn - 1][0] > 100 for turn in range(1, len(parts))), "as full as may be"


@pytest.mark.parametrize(("lanes", "tokens"), [(1, 100), (8, 100), (1, 1)])
def test_an_epoch_has_the_same_examples_with_the_same_seeds_as_before(lanes: int, tokens: int, tmp_path: Path) -> None:
    packed = cut(text(), Blocks(size=16, line_by_line=True, context=3))
    before = ExampleDataset(packed, 42, training=True)
    sharded = prepared(packed, str(tmp_path), tokens, lanes=lanes, window=20, seed=42)
    after = ExampleDataset(sharded, 42, training=True)
    orders = []
    for epoch in (0, 1):
        before.start_epoch(epoch)
        after.start_epoch(epoch)
        every = [after[position] for position in range(len(after))]
        orders.append([example["seed"][2] for example in every])
        assert sorted(orders[-1]) == list(range(len(packed)))
        for example in every:
            assert_alike(example, before[example["seed"][2]])
        assert after[17]["seed"] == every[17]["seed"], "also out of turn"
    assert orders[0] != orders[1] and orders[0] != sorted(orders[0])
    plain = ExampleDataset(after.examples, 0)
    assert [plain[number]["seed"][2] for number in range(9)] == list(range(9)), "not trained on: by number"


def test_the_first_examples_are_the_first_of_the_text(tmp_path: Path) -> None:
    packed = cut(text(), Blocks(size=16))
    sharded = prepared(packed, str(tmp_path)).head(9)
    assert len(sharded) == 9
    dataset = ExampleDataset(sharded, 0, training=True)
    assert sorted(dataset[position]["seed"][2] for position in range(9)) == list(range(9))
    assert sharded.fingerprint != packed.fingerprint
    assert sharded.head(None) is sharded
    with pytest.raises(IndexError):
        sharded.example(9)


def test_what_was_sent_to_another_process_reads_the_same(tmp_path: Path) -> None:
    sharded = prepared(cut(text(), Blocks(size=16)), str(tmp_path))
    there = pickle.loads(pickle.dumps(sharded))
    assert_alike(there.example(3), sharded.example(3))


def test_no_more_files_are_open_than_a_process_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_module, "OPEN", 2)
    packed = cut(text(), Blocks(size=16))
    sharded = prepared(packed, str(tmp_path), 32)
    assert len(sharded.shards) > 10
    for number in range(len(packed)):
        assert_alike(sharded.example(number), packed.example(number))
        held = [os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")]
        assert sum(one.startswith(str(tmp_path)) for one in held) <= 2


def test_held_out_text_is_mapped_as_it_was(tmp_path: Path) -> None:
    packed = cut(text(words=True), Blocks(size=16, words=True))
    stream = packed.stream
    assert stream.words is not None
    arrays = {"ids": stream.ids, "documents": stream.documents.astype("<i8"), "words": stream.words}
    write(arrays, tmp_path / "held-out")
    facts = {name: getattr(stream, name) for name in ("rows", "unit", "bytes", "unknown", "special")}
    again = opened_whole(tmp_path / "held-out", Shard.of("held-out", arrays, 0), **facts)
    assert cut(again, packed.blocks).fingerprint == packed.fingerprint
    assert again.ids.dtype == np.int32
    assert (again.rows, again.bytes) == (stream.rows, stream.bytes)


# --- elsewhere, and the cache ---


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "lmtasks" / "shards").iterdir() if "." not in path.name]


def test_shards_from_elsewhere_are_fetched_once(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = cut(text(), Blocks(size=16))
    sharded = prepared(packed, "memory://bucket/there", window=12)
    fetched: list[str] = []
    plain = Store.fetch
    monkeypatch.setattr(Store, "fetch", lambda self, name, path: fetched.append(name) or plain(self, name, path))
    dataset = ExampleDataset(sharded, 0, training=True)
    for _ in range(2):
        for position in range(len(packed)):
            example = dataset[position]
            assert_alike({**packed.example(example["seed"][2]), "seed": example["seed"]}, example)
    again = Sharded(sharded.shards, sharded.told, sharded.blocks, LocalCopies(sharded.files.store, 10**9), seed=1)
    again.example(0)
    assert sorted(fetched) == sorted(shard.file for shard in sharded.shards)
    assert len(cached(tmp_path)) == len(fetched)


def test_what_comes_next_is_fetched_before_it_is_asked_for(memory: Any, tmp_path: Path) -> None:
    packed = cut(text(), Blocks(size=16))
    sharded = prepared(packed, "memory://bucket/there", window=12)
    ExampleDataset(sharded, 0, training=True)[0]
    wanted = {*sharded.order.shards(0, 0, 0), *sharded.order.shards(0, 1, 0)}
    sharded.files._pool.shutdown()  # type: ignore[union-attr]  (waits)
    names = {sharded.shards[number].sha256[:32] for number in wanted}
    assert {path.name for path in cached(tmp_path)} == names
    assert len(names) < len(sharded.shards)


def test_the_cache_keeps_what_was_used_last_within_its_limit(memory: Any, tmp_path: Path) -> None:
    packed = cut(text(), Blocks(size=16))
    sharded = prepared(packed, "memory://bucket/there")
    size = sharded.shards[0].bytes
    files = LocalCopies(sharded.files.store, 3 * size + 20)
    for number in (0, 1, 2, 0, 3):
        path = files.path(sharded.shards[number])
        os.utime(path, ns=(number, 10**9 * len(cached(tmp_path)) + (number == 0) * 10**12))
    kept = {path.name for path in cached(tmp_path)}
    assert sharded.shards[0].sha256[:32] in kept and sharded.shards[3].sha256[:32] in kept
    assert len(kept) == 3
    assert files.path(sharded.shards[1]).stat().st_size == sharded.shards[1].bytes, "fetched once more"


def test_a_shard_that_was_changed_or_lost_is_refused_when_it_is_read(memory: Any, tmp_path: Path) -> None:
    packed = cut(text(), Blocks(size=16))
    for url in ("memory://bucket/there", str(tmp_path / "there")):
        sharded = prepared(packed, url)
        first, second = (shard.file for shard in sharded.shards[:2])
        files, root = fsspec.core.url_to_fs(url)
        content = bytearray(files.cat_file(f"{root}/{first}"))
        content[5] ^= 1
        files.pipe_file(f"{root}/{first}", bytes(content))
        files.rm_file(f"{root}/{second}")
        with pytest.raises(RunError, match=f"'{url}/{first}' is not as it was written"):
            sharded.example(0)
        with pytest.raises(RunError, match=f"'{url}/{second}' is missing"):
            sharded.example(sharded.shards[0].examples)
        assert len(ExampleDataset(sharded, 0)[len(packed) - 1]["input_ids"]) == 16, "the others are good"


def test_a_cached_shard_that_was_damaged_is_fetched_once_more(memory: Any, tmp_path: Path) -> None:
    sharded = prepared(cut(text(), Blocks(size=16)), "memory://bucket/there")
    path = sharded.files.path(sharded.shards[0])
    path.write_bytes(b"x" * sharded.shards[0].bytes)
    with pytest.raises(RunError, match="is not as it was written"):
        LocalCopies(sharded.files.store, 10**9).path(sharded.shards[0])
    assert LocalCopies(sharded.files.store, 10**9).path(sharded.shards[0]).stat().st_size == sharded.shards[0].bytes


# --- places ---


@pytest.mark.parametrize(
    ("url", "told", "hint"),
    [
        ("nowhere://bucket/x", "--prepared nowhere://bucket/x: Protocol not known: nowhere", "a folder, or a URL"),
        ("s3://key:word@bucket/x", "--prepared holds a name or a password", "leave it out"),
        ("s3://bucket/x", "--prepared s3://bucket/x: Install s3fs", "pip install s3fs"),
    ],
)
def test_places_that_nobody_reaches(url: str, told: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        Store(url, "prepared")
    assert caught.value.message.startswith(told)
    assert caught.value.hint.startswith(hint)


def test_a_store_that_fails_is_named(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://bucket/x", "prepared")

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(type(memory), "ls", fail)
    with pytest.raises(RunError, match="'memory://bucket/x': ConnectionResetError: gone"):
        store.sizes()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is damaged: Expecting"),
        ("[]", "is damaged: it is no JSON object"),
        ('{"layout": 0}', "was prepared by another version of lmtasks"),
        ('{"layout": 2}', "manifest.json' is damaged"),
        ('{"layout": 2, "shards": [5]}', "manifest.json' is damaged"),
    ],
)
def test_a_manifest_that_is_none(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=told):
        Manifest.read(Store(str(tmp_path), "prepared"))


def test_where_one_shard_cannot_be_written_no_other_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, Path], text_file: Path
) -> None:
    from lmtasks import prepare

    begun: list[str] = []

    def full(self: Store, name: str) -> Any:
        begun.append(name)
        if name.startswith("train-"):
            raise OSError(28, "No space left on device", name)
        return plain(self, name)

    plain = Store.new
    monkeypatch.setattr(Store, "new", full)
    with pytest.raises(RunError, match="the disk is full"):
        prepare(
            "causal-lm",
            tmp_path / "there",
            model=str(model_folders["llama"]),
            train_file=str(text_file),
            shard_size=0.0003,
            block_size=16,
        )
    assert len(begun) < 20, "of a hundred and more"
