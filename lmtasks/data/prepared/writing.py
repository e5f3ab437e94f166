"""Writing of prepared data: shard by shard, each under the name of its content, so that nothing is written twice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmtasks.artifacts.durable import digest
from lmtasks.config.evaluation_sets import UNNAMED
from lmtasks.config.request import Request
from lmtasks.data.examples import EncodedCorpus
from lmtasks.data.mixed import Mixed
from lmtasks.data.prepared.identity import identity, trained
from lmtasks.data.prepared.manifest import UNFINISHED, Manifest
from lmtasks.data.prepared.place import require_same
from lmtasks.data.prepared.shard import LONG, SHORT, WIDEST, Array, Shard, arrays_of, write
from lmtasks.data.prepared.store import Store
from lmtasks.data.text.packing import Packed
from lmtasks.progress import stage

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

AT_ONCE = 2
"""Shards that are made at once; numpy, digests and files leave other threads alone. Each is in memory twice."""


@dataclass(frozen=True)
class Writing:
    """What is to be written, and where.

    Args:
        tokenizer: as it was loaded or trained.
        versions: of the packages that made it.
        shard_bytes: of the token ids of a shard, at most.
    """

    store: Store
    request: Request
    encoded: EncodedCorpus
    tokenizer: PreTrainedTokenizerBase
    versions: Mapping[str, str]
    shard_bytes: int

    @cached_property
    def trained(self) -> dict[str, Any]:
        """The settings with which the tokenizer was trained on this text; empty where it was not."""
        return trained(self.request)

    def require_place(self) -> None:
        """Refuse a place with other data than these, finished or not.

        Raises:
            InputError: other data are there.
        """
        require_same(self.store, self._claim)

    def carry_out(self) -> Manifest:
        """Write what is not there yet; the manifest last."""
        self.store.write_json(UNFINISHED, self._claim)
        there = self.store.sizes()
        sources, train = self._sources, self.encoded.train
        manifest = Manifest(
            **self._claim,
            tokenizer=self.trained,
            files=TOKENIZER_FILES if self.trained else (),
            facts=_facts(self.encoded),
            train={name: _told(name, packed) for name, packed in sources.items()},
            shards={name: self._shards(name, packed, there) for name, packed in sources.items()},
            mix=train.how if isinstance(train, Mixed) else {},
            evaluations={name: _text(examples) for name, examples in self._evaluations.items()},
            held_out={name: self._held_out(name, examples, there) for name, examples in self._evaluations.items()},
            versions=self.versions,
        )
        if self.trained:
            self._save_tokenizer()
        manifest.write(self.store)
        # Files with a dot are those that a killed process was about to write.
        for name in (UNFINISHED, *(name for name in self.store.sizes() if name.startswith("."))):
            self.store.remove(name)
        return manifest

    def _shards(self, source: str, train: Packed, there: Mapping[str, int]) -> list[Shard]:
        """The shards of a source, of which those are written that are not there."""
        parts = list(_parts(train, self.shard_bytes // self._ids.itemsize))
        doing = f"writing shards {source and f'of {source}'}".strip()
        ended = Event()
        with stage(doing, len(parts), "shards") as progress, ThreadPoolExecutor(AT_ONCE) as pool:

            def one(number: int) -> Shard | None:
                if ended.is_set():
                    return None
                with _ending(ended):  # here, for whoever waits for the results may be slow to hear of it
                    arrays, examples = arrays_of(train, *parts[number], self._ids)
                    if not examples:  # a few short lines that have nothing to predict
                        return None
                    return self._put(Shard.of(_named("train", source, f"{number:05}"), arrays, examples), arrays, there)

            shards = []
            with _ending(ended):  # and of an interruption nobody else hears
                for done, shard in enumerate(pool.map(one, range(len(parts))), start=1):
                    shards += [shard] if shard else []
                    progress.update(done)
        return shards

    @cached_property
    def _sources(self) -> dict[str, Packed]:
        """The training examples of each source; of the only one under an empty name."""
        train = self.encoded.train
        sources = train.sources if isinstance(train, Mixed) else {UNNAMED: train}
        return {name: one for name, one in sources.items() if isinstance(one, Packed)}

    @property
    def _evaluations(self) -> dict[str, Packed]:
        return {name: one for name, one in self.encoded.evaluations.items() if isinstance(one, Packed)}

    @property
    def _ids(self) -> np.dtype[Any]:
        return SHORT if len(self.tokenizer) <= WIDEST else LONG

    @cached_property
    def _claim(self) -> dict[str, Any]:
        """What an unfinished place says of itself, as a manifest does."""
        splits = {"train": self._sources, "held out": self._evaluations}
        prints = {split: {name: one.fingerprint for name, one in parts.items()} for split, parts in splits.items()}
        return {"identity": identity(self.request, self.tokenizer), "fingerprints": prints}

    def _held_out(self, name: str, examples: Packed, there: Mapping[str, int]) -> Shard:
        """An evaluation set, which is read as a whole and in other ways: all of its stream, as it is in memory."""
        stream = examples.stream
        arrays = {"ids": np.ascontiguousarray(stream.ids, "<i4"), "documents": stream.documents.astype("<i8")}
        if stream.words is not None:
            arrays["words"] = np.ascontiguousarray(stream.words)
        shard = Shard.of(_named("held-out", name), arrays, len(examples))
        return self._put(shard, arrays, there)

    def _put(self, shard: Shard, arrays: Mapping[str, Array], there: Mapping[str, int]) -> Shard:
        """Write a shard, unless it is there."""
        folder, size = self.store.folder, there.get(shard.file)
        whole = size == shard.bytes and (folder is None or digest(folder / shard.file) == shard.sha256)
        if not whole:
            with self.store.new(shard.file) as path:
                write(arrays, path)
        return shard

    def _save_tokenizer(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            for name in TOKENIZER_FILES:
                with self.store.new(name) as path:
                    path.write_bytes(Path(folder, name).read_bytes())


@contextmanager
def _ending(ended: Event) -> Iterator[None]:
    """Say to all others that no shard is to be begun any more, where something goes wrong while this is open."""
    try:
        yield
    except BaseException:
        ended.set()
        raise


def _parts(packed: Packed, most: int) -> Iterator[tuple[int, int]]:
    """Places in the stream between which shards lie, of at most so many tokens where an example has no more."""
    if not packed.blocks.line_by_line:
        step = max(1, most // packed.blocks.body) * packed.blocks.body
        yield from ((first, min(first + step, packed.end)) for first in range(0, packed.end, step))
        return
    starts, first = packed.stretches, 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + most, side="right")) - 1)
        last = len(starts) if packed.end - starts[first] <= most else last
        yield int(starts[first]), int(starts[last]) if last < len(starts) else packed.end
        first = last


def _named(*parts: str) -> str:
    return "-".join(filter(None, parts))


def _told(source: str, train: Packed) -> dict[str, Any]:
    return {
        "sizes": train.sizes(),
        "notes": list(train.notes(f"training {source}".strip())),
        "per_example": train.per_example,
        "longest": next(iter(train.longest_first()), 0),
    }


def _facts(encoded: EncodedCorpus) -> dict[str, Any]:
    facts = {"source": encoded.source, "empty": encoded.empty, "dropped": dict(encoded.dropped)}
    return {**facts, "duplicates": dict(encoded.duplicates)}


def _text(examples: Packed) -> dict[str, Any]:
    """What the stream of an evaluation set says of its text."""
    stream = examples.stream
    told = {name: getattr(stream, name) for name in ("rows", "unit", "bytes", "unknown")}
    return {**told, "special": dict(stream.special)}
