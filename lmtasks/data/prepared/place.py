"""The place to which data are prepared: a new one, or one that holds the same data, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmtasks.artifacts.run_folder import new_folder, require_writable
from lmtasks.config.request import Request
from lmtasks.config.world import World
from lmtasks.data.prepared.manifest import MANIFEST, UNFINISHED
from lmtasks.data.prepared.store import Store
from lmtasks.errors import InputError

OF_A_RUN = {
    "prepared": "it names data that were prepared already",
    "max_train_samples": "give it to lmtasks run",
    "max_eval_samples": "give it to lmtasks run",
}
"""Data settings that mean nothing here, and why."""


def place_for(request: Request, url: str) -> Store:
    """The place for prepared data, before anything is read that would be written there.

    Raises:
        InputError: nobody reaches it, it holds something else, or what is asked for cannot be prepared.
    """
    if (size := World.current().size) > 1:
        raise InputError(
            f"prepare is for one process, which takes all cores of its machine, and this is one of {size}",
            "start it once",
        )
    for name, why in OF_A_RUN.items():
        if getattr(request.data, name) is not None:
            raise InputError(f"--{name} means nothing to lmtasks prepare: {why}", f"leave --{name} out")
    if request.recipe.medium is not None:
        medium = request.recipe.medium.name
        raise InputError(f"only text can be prepared, and {request.recipe.name} is about {medium}", "lmtasks run")
    store = Store(url, "output_dir")
    if store.folder is not None:
        require_writable(new_folder(url.removeprefix("file://")))
    _said(store)
    return store


def require_same(store: Store, claim: Mapping[str, Any]) -> None:
    """Refuse a place that says of its data something else than this; what is not there yet says nothing.

    Raises:
        InputError: it does.
    """
    said = _said(store)
    if said is not None and any(said.get(name) != wanted for name, wanted in claim.items()):
        raise InputError(f"output_dir '{store.url}' holds other prepared data", "choose another --output_dir")


def _said(store: Store) -> Mapping[str, Any] | None:
    """What a place says of the data that it holds, finished or not; None where it is empty.

    Raises:
        InputError: it holds something else.
    """
    said = store.read_json(MANIFEST) or store.read_json(UNFINISHED)
    if said is None and store.sizes():
        raise InputError(
            f"output_dir '{store.url}' holds files that are no prepared data", "choose another --output_dir"
        )
    return said
