"""The manifest of prepared data, which is written last: what lacks it is not whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmtasks.data.prepared.shard import Shard
from lmtasks.data.prepared.store import Store
from lmtasks.errors import InputError

MANIFEST, UNFINISHED = "manifest.json", "unfinished.json"

LAYOUT = 1
"""Goes up when other versions of lmtasks could not read what is written."""


_AGAIN = "the command that prepared the data writes it again"


@dataclass(frozen=True)
class Manifest:
    """What there is, and of what it was made.

    Args:
        identity: see :func:`lmtasks.data.prepared.identity.identity`.
        tokenizer: the settings with which the tokenizer was trained on this very text; empty where it was not.
        files: of the tokenizer, where it was.
        facts: ``source``, ``empty``, ``dropped`` and ``duplicates`` of the corpus.
        train: ``sizes``, ``notes``, ``per_example`` and ``longest`` of the training examples.
        evaluations: of each evaluation set what its stream says of the text.
        versions: of the packages that it was made with.
    """

    identity: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    files: Sequence[str]
    facts: Mapping[str, Any]
    train: Mapping[str, Any]
    shards: Sequence[Shard]
    evaluations: Mapping[str, Mapping[str, Any]]
    held_out: Mapping[str, Shard]
    versions: Mapping[str, str]

    def write(self, store: Store) -> None:
        """Write it."""
        shards = {
            "shards": [shard.as_record() for shard in self.shards],
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
            shards = [Shard.read(entry) for entry in told["shards"]]
            held_out = {name: Shard.read(entry) for name, entry in told["held_out"].items()}
            plain = {name: told[name] for name in cls.__dataclass_fields__ if name not in ("shards", "held_out")}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"'{store.url}/{MANIFEST}' is damaged", "prepare the data anew") from error
        return cls(**plain, shards=shards, held_out=held_out)

    def require_whole(self, store: Store) -> None:
        """Refuse a place where a shard is missing, or has another size; their content is looked at when it is read.

        Raises:
            InputError: names the first one.
        """
        sizes = store.sizes()
        for shard in (*self.shards, *self.held_out.values()):
            if shard.file not in sizes:
                raise InputError(f"'{store.url}/{shard.file}' is missing", _AGAIN)
            if sizes[shard.file] != shard.bytes:
                raise InputError(
                    f"'{store.url}/{shard.file}' has {sizes[shard.file]:,} bytes, and {shard.bytes:,} were written",
                    _AGAIN,
                )
