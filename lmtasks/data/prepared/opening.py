"""Prepared data as a request names them: found, whole, and with the tokenizer that was trained on them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lmtasks.api import options_of
from lmtasks.config.request import Request
from lmtasks.config.settings import DataSettings
from lmtasks.data.prepared.identity import trained
from lmtasks.data.prepared.manifest import MANIFEST, UNFINISHED, Manifest
from lmtasks.data.prepared.store import Store
from lmtasks.errors import InputError, nearest_path

BESIDE = frozenset({"max_train_samples", "max_eval_samples", "split_special_tokens"})
"""Data settings that mean something to a run on prepared data, beside those that are about it."""


@dataclass(frozen=True)
class PreparedData:
    """Prepared data that were found to be whole."""

    store: Store
    manifest: Manifest

    @property
    def source(self) -> str:
        """Short words for people."""
        return f"{self.manifest.facts['source']}, prepared"

    @contextmanager
    def tokenizer(self, request: Request) -> Iterator[str]:
        """A folder with the tokenizer that was trained when they were prepared.

        Raises:
            InputError: there is none, or one that was trained otherwise.
        """
        wanted = trained(request)
        if self.manifest.tokenizer != wanted:
            there = ", ".join(f"--{name} {value}" for name, value in self.manifest.tokenizer.items())
            raise InputError(
                f"--prepared {self.store.url} has "
                + (f"a tokenizer trained with {there}" if there else "no tokenizer of its own"),
                there or "name its tokenizer with --tokenizer_name",
            )
        with tempfile.TemporaryDirectory(prefix="lmtasks-") as folder:
            for name in self.manifest.files:
                content = self.store.read(name)
                if content is None:
                    hint = "the command that prepared it writes it again"
                    raise InputError(f"'{self.store.url}/{name}' is missing", hint)
                Path(folder, name).write_bytes(content)
            yield folder


def open_prepared(request: Request) -> PreparedData:
    """The prepared data that a request names.

    Raises:
        InputError: there are none, they are not whole, or the request names other data, too.
    """
    data = request.data
    url = str(data.prepared)
    for name, option in options_of(DataSettings).items():
        if getattr(data, name) != option.default and name not in BESIDE and not name.startswith("prepared"):
            raise InputError(
                f"--{name} says something about data that --prepared {url} has already",
                f"leave --{name} out, or give it to lmtasks prepare",
            )
    if (strategy := request.training.get("train_sampling_strategy", "random")) != "random":
        hint = "leave --train_sampling_strategy out"
        raise InputError(f"--train_sampling_strategy {strategy}: prepared data have an order of their own", hint)
    store = Store(url, "prepared")
    manifest = Manifest.read(store)
    if store.folder is not None and not store.folder.is_dir():
        raise InputError(
            f"--prepared: no such folder: {url}{nearest_path(store.folder)}", "what lmtasks prepare has written"
        )
    if manifest is None:
        unfinished = store.read(UNFINISHED) is not None
        raise InputError(
            f"--prepared {url} " + ("is not prepared to the end" if unfinished else f"has no {MANIFEST}"),
            "the command that began to prepare it goes on" if unfinished else "lmtasks prepare RECIPE --output_dir URL",
        )
    # Before its tokenizer is read, which may lack what another recipe needs.
    if (there := manifest.identity.get("recipe")) != (here := request.recipe.name):
        raise InputError(
            f"--prepared {url}: the data were prepared for the recipe {there}, and this is {here}",
            f"lmtasks run {there}, or lmtasks prepare {here} into another place",
        )
    manifest.require_whole(store)
    return PreparedData(store, manifest)
