"""A command in several processes of this machine: torchrun's own launcher, within this process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lmtasks.config.world import World
from lmtasks.errors import InputError

LAUNCHED = "TORCHELASTIC_RUN_ID"
"""A variable that the launcher sets in the processes that it starts."""

LOOK = 0.1
"""Seconds between two looks at whether a process has ended."""


def in_processes(number: int, words: Sequence[str]) -> int:
    """Carry out ``lmtasks`` with these words in so many processes, which share its run.

    They write to this process's own stdout and stderr. Their share of the cores is divided among them, unless
    OMP_NUM_THREADS says otherwise.

    Returns:
        their exit code.

    Raises:
        InputError: this is a process of a launcher already.
    """
    if LAUNCHED in os.environ or World.current().size > 1:
        raise InputError("--num_processes starts processes, and this is one of several already", "leave it out")
    # It tells of each process that ended, and how; these have said it themselves.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=LOOK,
    )
    try:
        elastic_launch(config, entrypoint=sys.executable)("-u", "-m", "lmtasks", *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code >= 0 else 128 - code
    except SignalException as stop:
        return 128 + int(signal.Signals(stop.sigval))
    return 0
