"""The meeting of the processes of a run, before which none can talk to another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

from lmtasks.config.request import Request
from lmtasks.config.world import World
from lmtasks.progress import quietly, speak
from lmtasks.runs.ending import Ending, together
from lmtasks.training.extensions import arguments_for


def met(request: Request, world: World) -> AbstractContextManager[Ending]:
    """While this is open the processes of a run are joined; InputError where its training arguments are wrong."""
    return joined(world, lambda: arguments_for(request, Path(), 0))


@contextmanager
def joined(world: World, join: Callable[[], object]) -> Iterator[Ending]:
    """While this is open the processes of a world can talk, the end of one is that of all, and the first alone speaks.

    The libraries are silent.

    Args:
        join: makes torch's process group.

    Raises:
        EndedElsewhere, RunError: see :func:`lmtasks.runs.ending.together`.
    """
    speak(world.is_main)
    if world.size > 1:
        _begin_again(world)
        join()
    with quietly(), together(world) as ending:
        yield ending


def _begin_again(world: World) -> None:
    """Where torchrun has started the processes once more, let them meet apart from what it keeps of the last attempt.

    Its store still has the addresses of processes that are gone, and whoever is first would try those (pytorch issue
    167288). Several machines need not agree in which attempt they are: there it is left to torch.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    from torch import distributed
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    if attempt == "0" or os.environ.get("GROUP_WORLD_SIZE", "1") != "1" or distributed.is_initialized():
        return
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(*place, is_master=False, timeout=timedelta(minutes=10))
    distributed.init_process_group(
        store=PrefixStore(f"lmtasks/{attempt}", store), rank=world.rank, world_size=world.size
    )
