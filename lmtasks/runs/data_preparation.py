"""Preparation of data: what a run would be trained and evaluated on, written down as shards, and no run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtasks.api import Recipe
from lmtasks.artifacts.failures import machine_failures
from lmtasks.config.request import configure, read_yaml
from lmtasks.data.prepared.manifest import Manifest
from lmtasks.data.prepared.writing import Writing
from lmtasks.models.architectures import register_architectures
from lmtasks.progress import quietly
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.apart import place_apart
from lmtasks.runs.load import load_data
from lmtasks.runs.objects import written
from lmtasks.runs.versions import versions

MEGABYTE = 10**6


@dataclass(frozen=True)
class Preparation:
    """What was written.

    Args:
        url: where it lies.
        manifest: what it says of itself.
        notes: decisions that were taken for the user, and warnings.
    """

    url: str
    manifest: Manifest
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        manifest = self.manifest
        sizes = [dict(told["sizes"]) for told in manifest.train.values()]
        train = {name: sum(one[name] for one in sizes) for name in ("tokens", "blocks")}
        return {
            "prepared": self.url,
            "recipe": manifest.identity["recipe"],
            "source": manifest.facts["source"],
            "train": {**train, "sources": dict(zip(manifest.train, sizes, strict=True))} if manifest.mix else sizes[0],
            "evaluations": {name: shard.examples for name, shard in manifest.held_out.items()},
            "shards": sum(map(len, manifest.shards.values())),
            "bytes": sum(shard.bytes for shard in manifest.every_shard),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """For people."""
        told = self.as_dict()
        train, sets = told["train"], told["evaluations"]
        return [
            f"data       {told['source']}",
            f"  train    {train['tokens']:,} tokens, {train['blocks']:,} examples, {told['shards']:,} shards",
            *(f"  held out {f'{name}: ' if name else ''}{count:,} examples" for name, count in sets.items()),
            f"written    {told['bytes'] / MEGABYTE:,.1f} MB to {self.url}",
            *(f"note       {note}" for note in self.notes),
        ]


@machine_failures()
def prepare(
    recipe: str | Recipe,
    output_dir: str | Path,
    *,
    config: str | Path | None = None,
    shard_size: float = 64,
    **values: Any,
) -> Preparation:
    """The data of a run, tokenised and cut, as shards that ``run(..., prepared=URL)`` trains on.

    Given once more after it was interrupted, it goes on; what is there is not written again.

    Args:
        recipe: name of an installed recipe, or a recipe.
        output_dir: folder, or URL that fsspec reaches.
        config: YAML file with more values; keyword arguments win over it.
        shard_size: of the token ids of a shard, at most, in MB.
        values: everything that :func:`lmtasks.run` takes; what is about training alone changes nothing.

    Raises:
        InputError: as for a run; data that are no text, or a place that holds something else.
        RunError: a place or the machine failed.
    """
    catalog = load_catalog()
    chosen = recipe if isinstance(recipe, Recipe) else catalog.recipe(recipe)
    folder = str(output_dir).removeprefix("file://")
    place = {} if "://" in folder else {"output_dir": folder}
    with quietly(), written(values) as named:
        request = configure(catalog.watched(chosen), {**named, **place}, read_yaml(config) if config else None)
        store = place_apart(request, str(output_dir))
        register_architectures(catalog)
        data = load_data(request, training=True)
        shard_bytes = max(1, round(shard_size * MEGABYTE))
        writing = Writing(store, data.request, data.encoded, data.processor, versions(), shard_bytes)
        writing.require_place()
        return Preparation(store.url, writing.carry_out(), data.notes)
