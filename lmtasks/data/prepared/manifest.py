"""The manifest of prepared data, which is written last: what lacks it is not whole."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmtasks.data.prepared.shard import Shard
from lmtasks.data.prepared.store import Store
from lmtasks.errors import InputError

MANIFEST, UNFINISHED = "manifest.json", "unfinished.json"

LAYOUT = 2
"""Goes up when other versions of lmtasks could not read what is written."""


_AGAIN = "the command that prepared the data writes it again"


@dataclass(frozen=True)
class Manifest:
    """What there is, and of what it was made.

    Args:
        identity: see :func:`lmtasks.data.prepared.identity.identity`.
        fingerprints: of the examples of each source, and of each evaluation set.
        tokenizer: the settings with which the tokenizer was trained on this very text; empty where it was not.
        files: of the tokenizer, where it was.
        facts: ``source``, ``empty``, ``dropped`` and ``duplicates`` of the corpus.
        train: of each source ``sizes``, ``notes``, ``per_example`` and ``longest`` of the training examples. The only
            source of what is no mix has an empty name.
        shards: those of each source.
        mix: ``weights`` and ``stopping_strategy`` of a mix; empty where there is none.
        evaluations: of each evaluation set what its stream says of the text.
        versions: of the packages that it was made with.
    """

    identity: Mapping[str, Any]
    fingerprints: Mapping[str, Mapping[str, str]]
    tokenizer: Mapping[str, Any]
    files: Sequence[str]
    facts: Mapping[str, Any]
    train: Mapping[str, Mapping[str, Any]]
    shards: Mapping[str, Sequence[Shard]]
    mix: Mapping[str, Any]
    evaluations: Mapping[str, Mapping[str, Any]]
    held_out: Mapping[str, Shard]
    versions: Mapping[str, str]

    def write(self, store: Store) -> None:
        """Write it."""
        shards = {
            "shards": {name: [shard.as_record() for shard in shards] for name, shards in self.shards.items()},
            "held_out": {name: shard.as_record() for name, shard in self.held_out.items()},
        }
        store.write_json(MANIFEST, {"layout": LAYOUT, **vars(self), **shards})

    @classmethod
    def read(cls, store: Store) -> Manifest | None:
        """That of a place; None where there is none.

        Raises:
            InputError: it is damaged, or of another version of lmtasks.
        """
        told = store.read_json(MANIFEST)
        if told is None:
            return None
        if told.get("layout") != LAYOUT:
            raise InputError(
                f"'{store.url}' was prepared by another version of lmtasks", "prepare the data anew with this one"
            )
        try:
            shards = {name: [Shard.read(entry) for entry in entries] for name, entries in told["shards"].items()}
            held_out = {name: Shard.read(entry) for name, entry in told["held_out"].items()}
            plain = {name: told[name] for name in cls.__dataclass_fields__ if name not in ("shards", "held_out")}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"'{store.url}/{MANIFEST}' is damaged", "prepare the data anew") from error
        return cls(**plain, shards=shards, held_out=held_out)

    @property
    def every_shard(self) -> list[Shard]:
        """Those of all sources and of what is held out."""
        return [*itertools.chain(*self.shards.values()), *self.held_out.values()]

    def require_whole(self, store: Store) -> None:
        """Refuse a place where a shard is missing, or has another size; their content is looked at when it is read.

        Raises:
            InputError: names the first one.
        """
        sizes = store.sizes()
        for shard in self.every_shard:
            if shard.file not in sizes:
                raise InputError(f"'{store.url}/{shard.file}' is missing", _AGAIN)
            if sizes[shard.file] != shard.bytes:
                raise InputError(
                    f"'{store.url}/{shard.file}' has {sizes[shard.file]:,} bytes, and {shard.bytes:,} were written",
                    _AGAIN,
                )
