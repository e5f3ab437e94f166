"""The run folder, seen by all processes of a run: on several machines a path may lead to as many folders."""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path

from lmtasks.artifacts.failures import machine_failures
from lmtasks.config.world import World
from lmtasks.errors import InputError

PATIENCE = 5.0
"""Seconds that a network disk may take until another machine sees a new file."""


def require_shared(folder: Path, world: World) -> None:
    """Refuse a folder that is not one for all processes; nothing is left there, nor made.

    The main process puts a file beside it, as deep as there are folders, and all look for that.

    Raises:
        InputError: a process does not see it, or cannot write there.
    """
    if world.size == 1:
        return
    token = None
    if world.is_main:
        with machine_failures(folder):
            token = _put(folder)
    levels, name = world.broadcast(token)
    place = [folder.absolute(), *folder.absolute().parents][levels]
    try:
        blind = world.gather(None if _is_seen(place / name) else f"on {socket.gethostname()} in '{place}'")
    finally:
        if world.is_main:
            (place / name).unlink(missing_ok=True)
    if any(blind):
        rank, where = next((rank, where) for rank, where in enumerate(blind) if where)
        raise InputError(
            f"output_dir '{folder}' is not one folder for all processes: what process 0 writes there, process {rank}"
            f" {where} does not see, or cannot change",
            "give all of them an --output_dir on a disk that all machines share, best as a path from /",
        )


def _put(folder: Path) -> tuple[int, str]:
    """Put an empty file with a name of its own into the folder, or where it will be: how far up, and the name."""
    places = [folder.absolute(), *folder.absolute().parents]
    levels = next(level for level, place in enumerate(places) if place.is_dir())
    name = f".lmtasks-{secrets.token_hex(8)}"
    try:
        (places[levels] / name).touch()
    except FileNotFoundError as error:  # the folder is there: it is one like /proc, where the system alone makes files
        raise InputError(
            f"output_dir '{folder}' cannot be made: '{places[levels]}' takes no files", "choose another --output_dir"
        ) from error
    return levels, name


def _is_seen(path: Path) -> bool:
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until or not path.parent.is_dir():
            return False
        os.listdir(path.parent)  # some network disks look again only then
        time.sleep(0.1)
    return os.access(path.parent, os.W_OK)
