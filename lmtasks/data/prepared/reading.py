"""From prepared data to the examples of a run, refused where they are not what it would make itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmtasks.api import Examples
from lmtasks.config.evaluation_sets import UNNAMED, check_names
from lmtasks.config.request import Request
from lmtasks.data.examples import EncodedCorpus, one_example
from lmtasks.data.mixed import Mixed
from lmtasks.data.prepared.identity import differences, identity, prepared_layout
from lmtasks.data.prepared.local_copies import GIGABYTE, LocalCopies
from lmtasks.data.prepared.opening import PreparedData
from lmtasks.data.prepared.shard import Shard, opened_whole
from lmtasks.data.prepared.sharded import Sharded
from lmtasks.data.text.packing import cut
from lmtasks.errors import InputError, RunError


def prepared_examples(prepared: PreparedData, request: Request, processor: Any, *, training: bool) -> EncodedCorpus:
    """The examples of a run, as :func:`lmtasks.data.examples.encode_corpus` makes them of documents.

    Raises:
        InputError: they were prepared for another recipe, tokenizer or layout, or shards are not what was written.
    """
    data, manifest = request.data, prepared.manifest
    blocks = prepared_layout(request, processor)
    if different := list(differences(manifest.identity, identity(request, processor))):
        raise InputError(
            f"--prepared {prepared.store.url}: the data were prepared {' and '.join(different)}",
            "the options that they were prepared with, or lmtasks prepare once more, into another place",
        )
    check_names(filter(None, manifest.held_out), request.recipe.views(processor, request.options))
    files = LocalCopies(prepared.store, round(data.prepared_cache * GIGABYTE))
    train: Examples | None = None
    if training:
        how: dict[str, Any] = {"seed": request.seed, "window": data.prepared_window, "lanes": data.prepared_lanes}
        parts = {
            name: Sharded(manifest.shards[name], told, blocks, files, **how) for name, told in manifest.train.items()
        }
        _verified(files, [shard for part in parts.values() for shard in part.shards_first_seen])
        whole = Mixed(parts, **manifest.mix, seed=request.seed) if manifest.mix else parts[UNNAMED]
        train = whole.head(data.max_train_samples)
        one_example(request, processor, train, "training")
    evaluations: dict[str, Examples] = {}
    for name, shard in manifest.held_out.items():
        (path,) = _verified(files, [shard])
        evaluations[name] = cut(opened_whole(path, shard, **manifest.evaluations[name]), blocks).head(
            data.max_eval_samples
        )
    facts = manifest.facts
    return EncodedCorpus(
        prepared.source, train, evaluations, facts["duplicates"], facts["empty"], facts["dropped"], "text"
    )


def _verified(files: LocalCopies, shards: Sequence[Shard]) -> list[Path]:
    """The files of shards that are needed before anything is written."""
    try:
        return [files.path(shard) for shard in shards]
    except RunError as error:
        raise InputError(error.message, error.hint) from error
